"""What the pages show beside the counters: values of one moment, held elsewhere. Sans-I/O."""

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
    merge,
    part,
)

UNLIMITED: Final = 2**64 - 1
"""The value for a resource limit of "unlimited"."""

_STUN_REQUESTS: Final = "stun.counter_requests"
_STUN_FAMILY: Final = "stun.counter_addrfamily"


@attrs.frozen(kw_only=True)
class Process:
    """What the kernel knows about a process. Times are Unix times in seconds."""

    open_fds: int = gauge("gauge_process_open_fds", also="derp.gauge_current_file_descriptors")
    max_fds: int = gauge("gauge_process_max_fds")
    cpu_seconds: float = counter("counter_process_cpu_seconds_total")
    resident_bytes: int = gauge("gauge_process_resident_memory_bytes")
    virtual_bytes: int = gauge("gauge_process_virtual_memory_bytes")
    virtual_max_bytes: int = figure(name="gauge_process_virtual_memory_max_bytes", merge=min)
    started: float = figure(name="gauge_process_start_time_seconds", merge=first)
    booted: int = figure(name="node_boot_time_seconds", merge=first, show=Untyped)
    received_bytes: int | None = figure(
        name="counter_process_network_receive_bytes_total", merge=first
    )
    """By all processes of the network namespace; None if unknown."""
    transmitted_bytes: int | None = figure(
        name="counter_process_network_transmit_bytes_total", merge=first
    )


@attrs.frozen(kw_only=True)
class Certificate:
    """A certificate to serve. Times are Unix times in seconds, 0 for never."""

    name: str
    """The first of its names."""
    not_after: int = figure(name="gauge_derper_certificate_expiry_seconds")
    """0 while there is no certificate."""
    replaced: int = figure(name="counter_derper_certificate_replaced")
    """How often it was replaced since the start, and when last."""
    replaced_at: int = figure(name="gauge_derper_certificate_last_replaced_seconds")
    failures: int = figure(name="counter_derper_certificate_failures")
    """How often no new one could be served, and when last."""
    failed_at: int = figure(name="gauge_derper_certificate_last_failure_seconds")
    failure: str = ""
    """Why, the last time; empty for never."""


def _merge_processes(processes: Sequence[Process | None]) -> Process | None:
    known = [process for process in processes if process is not None]
    return merge(known) if known else None


def _final_process(process: Process | None) -> Process | None:
    return None if process is None else final(process)


@attrs.frozen(kw_only=True)
class Gauges:
    """The values of one moment."""

    version: str = figure(name="version", also="derp.version", merge=first)
    started: float = figure(
        name="process_start_unix_time", show=lambda time: Untyped(int(time)), merge=first
    )
    """Unix time of the start, in seconds."""
    uptime: float = figure(name="counter_uptime_sec", show=int, merge=first)
    """Seconds since the start, by the monotonic clock."""
    tasks: int = gauge("gauge_goroutines")
    """Trio tasks."""
    process: Process | None = figure(
        name="", default=None, merge=_merge_processes, final=_final_process
    )
    """None where there is no /proc."""

    current_connections: int = gauge()
    """Logged-in clients."""
    current_home_connections: int = gauge()
    current_notideal_connections: int = gauge()
    """Clients that would prefer another node of the region (Ideal-Node)."""
    pending_connections: int = gauge("gauge_derper_{}")
    """Connections that have not logged in, and the bytes of memory counted for them."""
    pending_bytes: int = gauge("gauge_derper_{}")

    clients_total: int = gauge(merge=max)
    """Keys that are connected, here or at a mesh peer."""
    clients_local: int = gauge()
    clients_remote: int = gauge(merge=None)
    watchers: int = gauge()
    """Mesh peers that watch who connects and disconnects (Go: watchers)."""
    current_dup_client_keys: int = gauge(merge=None)
    """Keys that are connected more than once, and the connections of such keys."""
    current_dup_client_conns: int = gauge(merge=None)
    total_dup_client_conns: int = counter("derp.counter_{}")
    multiforwarder_created: int = counter()
    """Keys that became reachable through a second mesh peer."""
    multiforwarder_deleted: int = counter()
    packet_forwarder_delete_other_value: int = counter()
    """Removals of a link from a key that only another link leads to."""

    serves_tls: bool = figure(name="", default=False, merge=first)
    certificates: Sequence[Certificate] = figure(name="", default=(), merge=first)
    rate_limit_per_client_bytes_per_second: int | None = gauge(
        "derp.{}", default=None, show=Untyped, merge=first_set
    )
    """None without -rate-config, 0 for a configuration that sets no limit."""
    rate_limit_per_client_burst_bytes: int | None = gauge(
        "derp.{}", default=None, show=Untyped, merge=first_set
    )

    memory_at_start: int = gauge("derp.gauge_memstats_sys0")
    """Bytes of memory in use at the start of the process."""
    queue_bytes: int = gauge("gauge_derper_{}")
    """Bytes in send queues, and their limit."""
    queue_limit_bytes: int = gauge("gauge_derper_{}")

    workers: int | None = figure(name="gauge_derper_{}", default=None, merge=first)
    """Live workers; None if this process is the only one."""
    worker_restarts: int = figure(name="counter_derper_{}", default=0, merge=first, needs="workers")

    stun_not_stun: int = counter(_STUN_REQUESTS, show=part("disposition", "not_stun"))
    """See stun.stats.Stats."""
    stun_read_error: int = counter(_STUN_REQUESTS, show=part("disposition", "read_error"))
    stun_success: int = counter(_STUN_REQUESTS, show=part("disposition", "success"))
    stun_write_error: int = counter(_STUN_REQUESTS, show=part("disposition", "write_error"))
    stun_ipv4: int = counter(_STUN_FAMILY, show=part("family", "ipv4"))
    stun_ipv6: int = counter(_STUN_FAMILY, show=part("family", "ipv6"))

    bootstrap_dns_requests: int = counter("counter_{}")
    """See derp.http.bootstrap_dns.BootstrapDNS."""
    bootstrap_dns_published_hits: int = counter("counter_{}")
    bootstrap_dns_published_misses: int = counter("counter_{}")
    bootstrap_dns_unpublished_hits: int = counter("counter_{}")
    bootstrap_dns_unpublished_misses: int = counter("counter_{}")
    bootstrap_dns_unpublished_percent_misses: int = counter("counter_{}")
    bootstrap_dns_queried_domains: int = counter("counter_{}")
