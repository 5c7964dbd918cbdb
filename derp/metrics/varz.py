"""The text of /debug/varz: Prometheus' exposition format, as the Go derper writes it.

Names, types, labels and order are those of tailscale.com's cmd/derper with tsweb/varz, so that
an existing dashboard need not know which program it looks at. Where that page has no TYPE line
(Prometheus then calls the metric untyped) ours has none either, and a label that was never
counted (a TLS version nobody speaks) is absent. Left out is what only a Go runtime has: go_*,
memstats_*. Of our own are derp_connection_ends, by the reason that the log names,
derper_admission*, derper_certificate_*, and with several workers derper_worker*.

Nothing here does I/O or reads a clock: what the counters do not know comes in as Gauges.
"""

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Final, Protocol

import attrs

from derp.metrics.counters import DropReason, Histogram, Metrics

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

UNLIMITED: Final = 2**64 - 1
"""How a resource limit of "unlimited" is shown."""


class StunStats(Protocol):
    """What a STUN responder counts: answers and their hindrances, and askers by family."""

    not_stun: int
    read_error: int
    success: int
    write_error: int
    ipv4: int
    ipv6: int


class BootstrapStats(Protocol):
    """What /bootstrap-dns counts: requests in all, and whether a name asked for was known."""

    requests: int
    published_hits: int
    published_misses: int
    unpublished_hits: int
    unpublished_misses: int
    unpublished_percent_misses: int
    """Names left out because the asker is not among the share they are rolled out to."""
    queried_domains: int
    """Distinct names asked for since the start."""


@attrs.frozen(kw_only=True)
class Process:
    """What the kernel knows about this process. Times are Unix times in seconds."""

    open_fds: int
    max_fds: int
    cpu_seconds: float
    resident_bytes: int
    virtual_bytes: int
    virtual_max_bytes: int
    started: float
    booted: int
    received_bytes: int | None
    """By all processes that share the network namespace; None where that is not known."""
    transmitted_bytes: int | None


@attrs.frozen(kw_only=True)
class Certificate:
    """A certificate that is to be served. Times are Unix times in seconds, 0 for never."""

    name: str
    """The first of its names."""
    not_after: int
    """0 while there is none."""
    replaced: int
    """How often it was replaced since the start, and when last."""
    replaced_at: int
    failures: int
    """How often another could not be served, and when last."""
    failed_at: int
    failure: str = ""
    """Why, the last time."""


@attrs.frozen(kw_only=True)
class Gauges:
    """What others than the counters own, at the moment of rendering."""

    version: str
    started: float
    """Unix time of the server's start, in seconds."""
    uptime: float
    """Seconds since then, by a clock that nobody sets."""
    tasks: int
    """Trio tasks."""
    process: Process | None
    """None where there is no /proc."""

    clients_total: int
    """Keys known to this server, here or at a mesh peer."""
    clients_local: int
    clients_remote: int
    watchers: int
    """Mesh peers that asked to be told who comes and goes."""
    dup_client_keys: int
    """Keys that are connected more than once, and the connections of such keys."""
    dup_client_conns: int
    total_dup_client_conns: int

    serves_tls: bool
    certificates: Sequence[Certificate] = ()
    rate_limit_bytes_per_second: int | None
    """None without -rate-config, 0 for a configuration that sets no limit."""
    rate_limit_burst_bytes: int

    workers: int | None = None
    """How many workers live; None where this process is the only one."""
    worker_restarts: int = 0
    """How often one has been started anew."""


def render(metrics: Metrics, gauges: Gauges, stun: StunStats, bootstrap: BootstrapStats) -> str:
    """Return the whole page."""
    page = _Page()
    if gauges.process is not None:
        _process(page, gauges.process)
    _bootstrap_dns(page, bootstrap)
    if metrics.admission_verdicts:
        _admissions(page, metrics)
    if gauges.certificates:
        _certificates(page, gauges.certificates)
    if gauges.workers is not None:
        page.counter("derper_worker_restarts", gauges.worker_restarts)
        page.gauge("derper_workers", gauges.workers)
    _derp(page, metrics, gauges)
    _derp_by_reason(page, metrics)
    page.counter("derp_websocket_accepts", metrics.websocket_accepts)
    page.labelled("derper_tls_active_version", "gauge", "version", metrics.tls_active)
    page.labelled("derper_tls_request_version", None, "version", metrics.tls_requests)
    page.gauge("goroutines", gauges.tasks)
    if gauges.process is not None:
        page.untyped("node_boot_time_seconds", gauges.process.booted)
    page.untyped("process_start_unix_time", int(gauges.started))
    _stun(page, stun)
    if gauges.serves_tls:
        page.counter("tls_listener_accepted_connections", metrics.tls_accepted_connections)
        page.counter("tls_listener_rejected_connections", metrics.tls_rejected_connections)
    page.counter("uptime_sec", int(gauges.uptime))
    page.untyped(f'version{{version="{_escaped(gauges.version)}",binary="derper"}}', 1)
    return page.text()


def _admissions(page: "_Page", metrics: Metrics) -> None:
    verdicts = metrics.admission_verdicts
    page.labelled("derper_admission_verdicts", "counter", "verdict", verdicts)
    answers = {
        f'{_escaped(source)}",outcome="{outcome}': count
        for (source, outcome), count in metrics.admissions.items()
    }
    page.labelled("derper_admissions", "counter", "source", answers)


def _certificates(page: "_Page", certificates: Sequence[Certificate]) -> None:
    for name, kind, value in (
        ("expiry_seconds", "gauge", attrgetter("not_after")),
        ("failures", "counter", attrgetter("failures")),
        ("last_failure_seconds", "gauge", attrgetter("failed_at")),
        ("last_replaced_seconds", "gauge", attrgetter("replaced_at")),
        ("replaced", "counter", attrgetter("replaced")),
    ):
        values = {_escaped(certificate.name): value(certificate) for certificate in certificates}
        page.labelled(f"derper_certificate_{name}", kind, "name", values)
    reasons = {
        f'{_escaped(certificate.name)}",reason="{_escaped(certificate.failure)}': 1.0
        for certificate in certificates
        if certificate.failure
    }
    if reasons:
        page.labelled("derper_certificate_last_failure_info", "gauge", "name", reasons)


class _Page:
    """Lines in the order in which they are shown."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def text(self) -> str:
        return "".join(f"{line}\n" for line in self._lines)

    def counter(self, name: str, value: float) -> None:
        self._lines += (f"# TYPE {name} counter", f"{name} {value}")

    def gauge(self, name: str, value: float) -> None:
        self._lines += (f"# TYPE {name} gauge", f"{name} {value}")

    def untyped(self, name: str, value: float) -> None:
        self._lines.append(f"{name} {value}")

    def labelled(
        self, name: str, kind: str | None, label: str, values: Mapping[str, float]
    ) -> None:
        if kind is not None:
            self._lines.append(f"# TYPE {name} {kind}")
        self._lines += (f'{name}{{{label}="{key}"}} {values[key]}' for key in sorted(values))

    def by_reason(self, name: str, counts: Mapping[tuple[DropReason, bool], int]) -> None:
        self._lines.append(f"# TYPE {name} counter")
        for reason in sorted(DropReason, key=lambda reason: reason.value):
            for kind, disco in (("disco", True), ("other", False)):
                labels = f'reason="{reason.value}",kind="{kind}"'
                self._lines.append(f"{name}{{{labels}}} {counts[reason, disco]}")

    def histogram(self, name: str, histogram: Histogram) -> None:
        buckets = histogram.cumulative()
        self._lines.append(f"# TYPE {name} histogram")
        self._lines += (f'{name}_bucket{{le="{bound}"}} {count}' for bound, count in buckets)
        self._lines.append(f"{name}_sum {histogram.sum}")
        self._lines.append(f"{name}_count {buckets[-1][1]}")


def _process(page: _Page, process: Process) -> None:
    page.counter("process_cpu_seconds_total", process.cpu_seconds)
    page.gauge("process_max_fds", process.max_fds)
    for direction, nbytes in (
        ("receive", process.received_bytes),
        ("transmit", process.transmitted_bytes),
    ):
        if nbytes is not None:
            page.counter(f"process_network_{direction}_bytes_total", nbytes)
    page.gauge("process_open_fds", process.open_fds)
    page.gauge("process_resident_memory_bytes", process.resident_bytes)
    page.gauge("process_start_time_seconds", process.started)
    page.gauge("process_virtual_memory_bytes", process.virtual_bytes)
    page.gauge("process_virtual_memory_max_bytes", process.virtual_max_bytes)


def _bootstrap_dns(page: _Page, stats: BootstrapStats) -> None:
    page.counter("bootstrap_dns_published_hits", stats.published_hits)
    page.counter("bootstrap_dns_published_misses", stats.published_misses)
    page.counter("bootstrap_dns_queried_domains", stats.queried_domains)
    page.counter("bootstrap_dns_requests", stats.requests)
    page.counter("bootstrap_dns_unpublished_hits", stats.unpublished_hits)
    page.counter("bootstrap_dns_unpublished_misses", stats.unpublished_misses)
    page.counter("bootstrap_dns_unpublished_percent_misses", stats.unpublished_percent_misses)


def _derp(page: _Page, metrics: Metrics, gauges: Gauges) -> None:
    # The Go derper sorts these by a name that says their type as well: "counter_tcp_rtt".
    page.counter("derp_accepts", metrics.accepts)
    page.untyped("derp_average_queue_duration_ms", metrics.average_queue_duration_ms)
    page.counter("derp_bytes_received", metrics.bytes_received)
    page.counter("derp_bytes_sent", metrics.bytes_sent)

    page.histogram("derp_buffered_write_frames", metrics.buffered_write_frames)
    page.histogram("derp_mesh_update_batch_size", metrics.mesh_update_batch_size)
    page.histogram("derp_mesh_update_loop_count", metrics.mesh_update_loop_count)
    kinds = {"disco": metrics.packets_received_disco, "other": metrics.packets_received_other}
    page.labelled("derp_packets_received_kind", "counter", "kind", kinds)
    page.labelled("derp_tcp_rtt", "counter", "le", metrics.tcp_rtt)
    page.counter("derp_total_dup_client_conns", gauges.total_dup_client_conns)

    page.gauge("derp_clients_local", gauges.clients_local)
    page.gauge("derp_clients_remote", gauges.clients_remote)
    page.gauge("derp_clients_total", gauges.clients_total)
    page.gauge("derp_current_connections", metrics.current_connections)
    page.gauge("derp_current_dup_client_conns", gauges.dup_client_conns)
    page.gauge("derp_current_dup_client_keys", gauges.dup_client_keys)
    if gauges.process is not None:
        page.gauge("derp_current_file_descriptors", gauges.process.open_fds)
    page.gauge("derp_current_home_connections", metrics.current_home_connections)
    page.gauge("derp_current_notideal_connections", metrics.current_notideal_connections)
    page.gauge("derp_watchers", gauges.watchers)

    page.counter("derp_got_ping", metrics.got_ping)
    page.counter("derp_home_moves_in", metrics.home_moves_in)
    page.counter("derp_home_moves_out", metrics.home_moves_out)
    page.counter("derp_multiforwarder_created", metrics.multiforwarder_created)
    page.counter("derp_multiforwarder_deleted", metrics.multiforwarder_deleted)
    page.counter(
        "derp_packet_forwarder_delete_other_value", metrics.packet_forwarder_delete_other_value
    )
    page.counter("derp_packets_forwarded_in", metrics.packets_forwarded_in)
    page.counter("derp_packets_forwarded_out", metrics.packets_forwarded_out)
    page.counter("derp_packets_received", metrics.packets_received)
    page.counter("derp_packets_sent", metrics.packets_sent)
    page.counter("derp_peer_gone_disconnected_frames", metrics.peer_gone_disconnected_frames)
    page.counter("derp_peer_gone_not_here_frames", metrics.peer_gone_not_here_frames)
    if gauges.rate_limit_bytes_per_second is not None:
        burst, limit = gauges.rate_limit_burst_bytes, gauges.rate_limit_bytes_per_second
        page.untyped("derp_rate_limit_per_client_burst_bytes", burst)
        page.untyped("derp_rate_limit_per_client_bytes_per_second", limit)
        waited = metrics.rate_limit_per_client_waited
        page.counter("derp_rate_limit_per_client_waited", waited)
    page.counter("derp_sclient_write_timeouts", metrics.sclient_write_timeouts)
    page.counter("derp_sent_pong", metrics.sent_pong)
    page.counter("derp_unknown_frames", metrics.unknown_frames)


def _derp_by_reason(page: _Page, metrics: Metrics) -> None:
    page.by_reason("derp_bytes_dropped", metrics.bytes_dropped)
    page.labelled("derp_connection_ends", "counter", "reason", metrics.connection_ends)
    page.by_reason("derp_packets_dropped", metrics.packets_dropped)


def _stun(page: _Page, stats: StunStats) -> None:
    families = {"ipv4": stats.ipv4, "ipv6": stats.ipv6}
    page.labelled("stun_addrfamily", "counter", "family", families)
    outcomes = {
        "not_stun": stats.not_stun,
        "read_error": stats.read_error,
        "success": stats.success,
        "write_error": stats.write_error,
    }
    page.labelled("stun_requests", "counter", "disposition", outcomes)


def _escaped(label: str) -> str:
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
