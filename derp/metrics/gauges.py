"""The values of one moment that the pages show beside the counters; held elsewhere. Sans-I/O."""

from collections.abc import Sequence
from typing import Final

import attrs

from derp.metrics.figures import (
    Untyped,
    counter,
    figure,
    final,
    first,
    first_set,
    gauge,
    labelled,
    merge,
    part,
)

UNLIMITED: Final = 2**64 - 1
"""The value for a resource limit of "unlimited"."""

_STUN_REQUESTS: Final = "stun.counter_requests"
_STUN_FAMILY: Final = "stun.counter_addrfamily"
_REQUESTS_HELP: Final = "Datagrams on the STUN port, by what became of them."
_FAMILY_HELP: Final = "STUN requests, by address family."


@attrs.frozen(kw_only=True)
class Process:
    """The kernel's figures of a process. Times are Unix times in seconds."""

    open_fds: int = gauge(
        "gauge_process_open_fds",
        also="derp.gauge_current_file_descriptors",
        help="Open file descriptors.",
    )
    max_fds: int = gauge("gauge_process_max_fds", help="Limit on open file descriptors.")
    cpu_seconds: float = counter(
        "counter_process_cpu_seconds_total", help="User and system CPU time in seconds."
    )
    resident_bytes: int = gauge(
        "gauge_process_resident_memory_bytes", help="Resident memory in bytes."
    )
    virtual_bytes: int = gauge(
        "gauge_process_virtual_memory_bytes", help="Virtual memory in bytes."
    )
    virtual_max_bytes: int = figure(
        name="gauge_process_virtual_memory_max_bytes",
        merge=min,
        help="Limit on virtual memory in bytes.",
    )
    started: float = figure(
        name="gauge_process_start_time_seconds",
        merge=first,
        help="Start of the process, as Unix time in seconds.",
    )
    booted: int = figure(
        name="node_boot_time_seconds",
        kind="gauge",
        merge=first,
        show=Untyped,
        help="Boot of the machine, as Unix time in seconds.",
    )
    received_bytes: int | None = figure(
        name="counter_process_network_receive_bytes_total",
        merge=first,
        help="Bytes received by all processes of the network namespace.",
    )
    """By all processes of the network namespace; None if unknown."""
    transmitted_bytes: int | None = figure(
        name="counter_process_network_transmit_bytes_total",
        merge=first,
        help="Bytes sent by all processes of the network namespace.",
    )


@attrs.frozen(kw_only=True)
class Certificate:
    """A certificate to serve. Times are Unix times in seconds, 0 for never."""

    name: str
    """The first of its names."""
    lifetime: int = figure(
        name="gauge_derper_certificate_lifetime_seconds",
        default=0,
        help="From the beginning to the end of the certificate's validity; 0 while there is none.",
    )
    not_after: int = figure(
        name="gauge_derper_certificate_expiry_seconds",
        help="End of the certificate's validity, as Unix time in seconds; 0 while there is none.",
    )
    replaced: int = figure(
        name="counter_derper_certificate_replaced",
        help="How often the certificate was replaced since the start.",
    )
    replaced_at: int = figure(
        name="gauge_derper_certificate_last_replaced_seconds",
        help="When the certificate was replaced last, as Unix time in seconds; 0 for never.",
    )
    failures: int = figure(
        name="counter_derper_certificate_failures",
        help="How often no new certificate could be served.",
    )
    failed_at: int = figure(
        name="gauge_derper_certificate_last_failure_seconds",
        help="When no new certificate could be served last, as Unix time in seconds; 0 for never.",
    )
    failure: str = figure(
        name="gauge_derper_certificate_last_failure_info",
        default="",
        help="Why no new certificate could be served the last time, as a label.",
    )
    """Empty for never."""


def _merge_processes(processes: Sequence[Process | None]) -> Process | None:
    known = [process for process in processes if process is not None]
    return merge(known) if known else None


def _final_process(process: Process | None) -> Process | None:
    return None if process is None else final(process)


@attrs.frozen(kw_only=True)
class Gauges:
    """The values of one moment."""

    version: str = figure(
        name="version",
        kind="gauge",
        also="derp.version",
        merge=first,
        help="The version of the relay, as a label.",
    )
    started: float = figure(
        name="process_start_unix_time",
        kind="gauge",
        show=lambda time: Untyped(int(time)),
        merge=first,
        help="Start of the relay, as Unix time in seconds.",
    )
    uptime: float = figure(
        name="counter_uptime_sec",
        show=int,
        merge=first,
        help="Seconds since the start of the relay.",
    )
    tasks: int = gauge("gauge_goroutines", help="Trio tasks, under the name that monitors know.")
    process: Process | None = figure(
        name="", default=None, merge=_merge_processes, final=_final_process
    )
    """None where there is no /proc."""

    current_connections: int = gauge(help="Logged-in clients.")
    current_home_connections: int = gauge(help="Logged-in clients whose home this server is.")
    current_notideal_connections: int = gauge(
        help="Logged-in clients that would prefer another node of the region."
    )
    accepting_processes: int = gauge(
        "gauge_derper_{}", help="Processes that have room for new connections."
    )
    pending_connections: int = gauge("gauge_derper_{}", help="Connections that have not logged in.")
    pending_bytes: int = gauge(
        "gauge_derper_{}", help="Bytes counted for connections that have not logged in."
    )

    clients_total: int = gauge(merge=max, help="Keys that are connected, here or at a mesh peer.")
    clients_local: int = gauge(help="Keys that are connected here.")
    clients_remote: int = gauge(merge=None, help="Keys that are connected at mesh peers only.")
    mesh_links: int = gauge("gauge_derper_{}", help="Links to other relays that are wanted.")
    mesh_links_up: int = gauge("gauge_derper_{}", help="Links to other relays that there are.")
    watchers: int = gauge(help="Mesh peers that watch who connects and disconnects.")
    current_dup_client_keys: int = gauge(merge=None, help="Keys that are connected more than once.")
    current_dup_client_conns: int = gauge(
        merge=None, help="Connections of keys that are connected more than once."
    )
    total_dup_client_conns: int = counter(
        "derp.counter_{}", help="Logins with keys that were connected already."
    )
    multiforwarder_created: int = counter(
        help="Keys that became reachable through a second mesh peer."
    )
    multiforwarder_deleted: int = counter(
        help="Keys that ceased to be reachable through a second mesh peer."
    )
    packet_forwarder_delete_other_value: int = counter(
        help="Removals of a link from a key that only another link leads to."
    )

    key_sent_bytes: dict[str, int] | None = counter(
        "derper_{}_total",
        default=None,
        show=labelled("key"),
        merge=None,
        help="Bytes that clients acknowledged to TCP, TLS included, by node key.",
    )
    """By node key as text, or OTHER_KEYS; None unless -metrics-per-key asks for them."""
    key_received_bytes: dict[str, int] | None = counter(
        "derper_{}_total",
        default=None,
        show=labelled("key"),
        merge=None,
        help="Bytes that clients sent by TCP, TLS included, by node key.",
    )

    serves_tls: bool = figure(name="", default=False, merge=first)
    certificates: Sequence[Certificate] = figure(name="", default=(), merge=first)
    rate_limit_per_client_bytes_per_second: int | None = gauge(
        "derp.{}",
        default=None,
        show=Untyped,
        merge=first_set,
        help="The limit on what one client sends, in bytes per second; 0 for none.",
    )
    """None without -rate-config, 0 for a configuration that sets no limit."""
    rate_limit_per_client_burst_bytes: int | None = gauge(
        "derp.{}",
        default=None,
        show=Untyped,
        merge=first_set,
        help="The burst of the limit on what one client sends, in bytes.",
    )

    memory_at_start: int = gauge(
        "derp.gauge_memstats_sys0", help="Memory in use at the start of the process, in bytes."
    )
    queue_bytes: int = gauge("gauge_derper_{}", help="Bytes in send queues.")
    queue_limit_bytes: int = gauge(
        "gauge_derper_{}", help="Limit on the bytes in send queues; 0 for none."
    )

    workers: int | None = figure(
        name="gauge_derper_{}", default=None, merge=first, help="Live workers."
    )
    """Live workers; None if this process is the only one."""
    worker_restarts: int = figure(
        name="counter_derper_{}",
        default=0,
        merge=first,
        needs="workers",
        help="Restarts of workers.",
    )

    stun_not_stun: int = counter(
        _STUN_REQUESTS, show=part("disposition", "not_stun"), help=_REQUESTS_HELP
    )
    """See stun.stats.Stats."""
    stun_read_error: int = counter(
        _STUN_REQUESTS, show=part("disposition", "read_error"), help=_REQUESTS_HELP
    )
    stun_success: int = counter(
        _STUN_REQUESTS, show=part("disposition", "success"), help=_REQUESTS_HELP
    )
    stun_write_error: int = counter(
        _STUN_REQUESTS, show=part("disposition", "write_error"), help=_REQUESTS_HELP
    )
    stun_ipv4: int = counter(_STUN_FAMILY, show=part("family", "ipv4"), help=_FAMILY_HELP)
    stun_ipv6: int = counter(_STUN_FAMILY, show=part("family", "ipv6"), help=_FAMILY_HELP)

    bootstrap_dns_requests: int = counter("counter_{}", help="Requests of /bootstrap-dns.")
    """See derp.http.bootstrap_dns.BootstrapDNS."""
    bootstrap_dns_published_hits: int = counter(
        "counter_{}", help="Queries of /bootstrap-dns for published names."
    )
    bootstrap_dns_published_misses: int = counter(
        "counter_{}", help="Queries of /bootstrap-dns for published names without addresses."
    )
    bootstrap_dns_unpublished_hits: int = counter(
        "counter_{}", help="Queries of /bootstrap-dns for unpublished names."
    )
    bootstrap_dns_unpublished_misses: int = counter(
        "counter_{}", help="Queries of /bootstrap-dns for names that the client does not get."
    )
    bootstrap_dns_unpublished_percent_misses: int = counter(
        "counter_{}",
        help="Queries of /bootstrap-dns for unpublished names by clients outside of their shares.",
    )
    bootstrap_dns_queried_domains: int = counter(
        "counter_{}", help="Distinct names queried at /bootstrap-dns."
    )
