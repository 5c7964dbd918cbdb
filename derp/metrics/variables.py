"""All metrics as a tree of names and values, as the Go derper has them in package expvar. Pure.

A name that begins with `counter_` or `gauge_` says its Prometheus type by that. Names and types are
those of cmd/derper with tsweb/varz, so that an existing dashboard need not know which program it
looks at. Left out is what only a Go runtime has: go_*, memstats. Of our own are
derp_connection_ends, by the reason that the log names, derper_admission*, derper_certificate_*,
derper_pending_*, derper_queue_*, and with several workers derper_worker*.
"""

from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import TypeAlias

import attrs

from derp.metrics.counters import DropReason, Histogram, Metrics
from derp.metrics.gauges import BootstrapStats, Certificate, Gauges, Process, StunStats


@attrs.frozen
class Untyped:
    """A number without a Prometheus type (Go: expvar.Func)."""

    value: float


@attrs.frozen
class Labelled:
    """Numbers told apart by labels (Go: metrics.LabelMap; metrics.MultiLabelMap)."""

    labels: tuple[str, ...]
    numbers: Iterable[tuple[tuple[str, ...], float]]
    """Each behind the values of its labels."""
    kind: str = ""
    """The Prometheus type, where the name does not say it; empty for none."""


Variable: TypeAlias = "float | str | Untyped | Labelled | Histogram | Variables"
"""A number is a counter, unless its name says otherwise; text has no place in Prometheus."""
Variables: TypeAlias = Mapping[str, Variable]
"""Of one level of the tree, in any order."""


def variables(
    metrics: Metrics, gauges: Gauges, stun: StunStats, bootstrap: BootstrapStats
) -> Variables:
    """Return all but what `process_variables` has."""
    found: dict[str, Variable] = {
        **_bootstrap_dns(bootstrap),
        "counter_uptime_sec": int(gauges.uptime),
        "derp": _derp(metrics, gauges),
        "derp_bytes_dropped": _by_reason(metrics.bytes_dropped),
        "derp_packets_dropped": _by_reason(metrics.packets_dropped),
        "derp_websocket_accepts": metrics.websocket_accepts,
        "derper_tls_request_version": _labelled("version", metrics.tls_requests),
        "gauge_derper_pending_bytes": metrics.pending_bytes,
        "gauge_derper_pending_connections": metrics.pending_connections,
        "gauge_derper_queue_bytes": gauges.queue_bytes,
        "gauge_derper_queue_limit_bytes": gauges.queue_limit_bytes,
        "gauge_derper_tls_active_version": _labelled("version", metrics.tls_active),
        "gauge_goroutines": gauges.tasks,
        "process_start_unix_time": Untyped(int(gauges.started)),
        "stun": _stun(stun),
        "version": gauges.version,
    }
    if metrics.admission_verdicts:
        verdicts = _labelled("verdict", metrics.admission_verdicts)
        found["counter_derper_admission_verdicts"] = verdicts
        found["counter_derper_admissions"] = Labelled(
            ("source", "outcome"), metrics.admissions.items()
        )
    if gauges.certificates:
        found |= _certificates(gauges.certificates)
    if gauges.workers is not None:
        found["counter_derper_worker_restarts"] = gauges.worker_restarts
        found["gauge_derper_workers"] = gauges.workers
    if gauges.process is not None:
        found["node_boot_time_seconds"] = Untyped(gauges.process.booted)
    if gauges.serves_tls:
        found["tls_listener"] = {
            "counter_accepted_connections": metrics.tls_accepted_connections,
            "counter_rejected_connections": metrics.tls_rejected_connections,
        }
    return found


def process_variables(process: Process | None) -> Variables:
    """Return what Prometheus' own collector has in the Go derper, where expvar has it not."""
    if process is None:
        return {}
    found: dict[str, Variable] = {
        "counter_process_cpu_seconds_total": process.cpu_seconds,
        "gauge_process_max_fds": process.max_fds,
        "gauge_process_open_fds": process.open_fds,
        "gauge_process_resident_memory_bytes": process.resident_bytes,
        "gauge_process_start_time_seconds": process.started,
        "gauge_process_virtual_memory_bytes": process.virtual_bytes,
        "gauge_process_virtual_memory_max_bytes": process.virtual_max_bytes,
    }
    if process.received_bytes is not None:
        found["counter_process_network_receive_bytes_total"] = process.received_bytes
    if process.transmitted_bytes is not None:
        found["counter_process_network_transmit_bytes_total"] = process.transmitted_bytes
    return found


def _labelled(label: str, values: Mapping[str, float]) -> Labelled:
    return Labelled((label,), [((key,), value) for key, value in values.items()])


def _by_reason(counts: Mapping[tuple[DropReason, bool], int]) -> Labelled:
    numbers = [
        ((reason.value, "disco" if disco else "other"), count)
        for (reason, disco), count in counts.items()
    ]
    return Labelled(("reason", "kind"), numbers, kind="counter")


def _bootstrap_dns(stats: BootstrapStats) -> Variables:
    return {
        "counter_bootstrap_dns_published_hits": stats.published_hits,
        "counter_bootstrap_dns_published_misses": stats.published_misses,
        "counter_bootstrap_dns_queried_domains": stats.queried_domains,
        "counter_bootstrap_dns_requests": stats.requests,
        "counter_bootstrap_dns_unpublished_hits": stats.unpublished_hits,
        "counter_bootstrap_dns_unpublished_misses": stats.unpublished_misses,
        "counter_bootstrap_dns_unpublished_percent_misses": stats.unpublished_percent_misses,
    }


def _certificates(certificates: Sequence[Certificate]) -> Variables:
    found: dict[str, Variable] = {}
    for name, value in (
        ("gauge_derper_certificate_expiry_seconds", attrgetter("not_after")),
        ("counter_derper_certificate_failures", attrgetter("failures")),
        ("gauge_derper_certificate_last_failure_seconds", attrgetter("failed_at")),
        ("gauge_derper_certificate_last_replaced_seconds", attrgetter("replaced_at")),
        ("counter_derper_certificate_replaced", attrgetter("replaced")),
    ):
        found[name] = _labelled("name", {each.name: value(each) for each in certificates})
    reasons = [((each.name, each.failure), 1.0) for each in certificates if each.failure]
    if reasons:
        name = "gauge_derper_certificate_last_failure_info"
        found[name] = Labelled(("name", "reason"), reasons)
    return found


def _stun(stats: StunStats) -> Variables:
    outcomes = {
        "not_stun": stats.not_stun,
        "read_error": stats.read_error,
        "success": stats.success,
        "write_error": stats.write_error,
    }
    families = {"ipv4": stats.ipv4, "ipv6": stats.ipv6}
    return {
        "counter_addrfamily": _labelled("family", families),
        "counter_requests": _labelled("disposition", outcomes),
    }


def _derp(metrics: Metrics, gauges: Gauges) -> Variables:
    kinds = {"disco": metrics.packets_received_disco, "other": metrics.packets_received_other}
    found: dict[str, Variable] = {
        "accepts": metrics.accepts,
        "average_queue_duration_ms": Untyped(metrics.average_queue_duration_ms),
        "bytes_received": metrics.bytes_received,
        "bytes_sent": metrics.bytes_sent,
        "counter_buffered_write_frames": metrics.buffered_write_frames,
        "counter_connection_ends": _labelled("reason", metrics.connection_ends),
        "counter_mesh_update_batch_size": metrics.mesh_update_batch_size,
        "counter_mesh_update_loop_count": metrics.mesh_update_loop_count,
        "counter_packets_received_kind": _labelled("kind", kinds),
        "counter_tcp_rtt": _labelled("le", metrics.tcp_rtt),
        "counter_total_dup_client_conns": gauges.total_dup_client_conns,
        "gauge_clients_local": gauges.clients_local,
        "gauge_clients_remote": gauges.clients_remote,
        "gauge_clients_total": gauges.clients_total,
        "gauge_current_connections": metrics.current_connections,
        "gauge_current_dup_client_conns": gauges.dup_client_conns,
        "gauge_current_dup_client_keys": gauges.dup_client_keys,
        "gauge_current_home_connections": metrics.current_home_connections,
        "gauge_current_notideal_connections": metrics.current_notideal_connections,
        "gauge_memstats_sys0": gauges.memory_at_start,
        "gauge_watchers": gauges.watchers,
        "got_ping": metrics.got_ping,
        "home_moves_in": metrics.home_moves_in,
        "home_moves_out": metrics.home_moves_out,
        "multiforwarder_created": metrics.multiforwarder_created,
        "multiforwarder_deleted": metrics.multiforwarder_deleted,
        "packet_forwarder_delete_other_value": metrics.packet_forwarder_delete_other_value,
        "packets_forwarded_in": metrics.packets_forwarded_in,
        "packets_forwarded_out": metrics.packets_forwarded_out,
        "packets_received": metrics.packets_received,
        "packets_sent": metrics.packets_sent,
        "peer_gone_disconnected_frames": metrics.peer_gone_disconnected_frames,
        "peer_gone_not_here_frames": metrics.peer_gone_not_here_frames,
        "sclient_write_timeouts": metrics.sclient_write_timeouts,
        "sent_pong": metrics.sent_pong,
        "unknown_frames": metrics.unknown_frames,
        "version": gauges.version,
    }
    if gauges.process is not None:
        found["gauge_current_file_descriptors"] = gauges.process.open_fds
    limit = gauges.rate_limit_bytes_per_second
    if limit is not None:
        found["rate_limit_per_client_burst_bytes"] = Untyped(gauges.rate_limit_burst_bytes)
        found["rate_limit_per_client_bytes_per_second"] = Untyped(limit)
        found["rate_limit_per_client_waited"] = metrics.rate_limit_per_client_waited
    return found
