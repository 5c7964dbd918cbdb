"""What the pages show beside the counters: what others than these own, at one moment. Pure."""

from collections.abc import Sequence
from typing import Final, Protocol

import attrs

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
    """What others than the counters own."""

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

    memory_at_start: int
    """Bytes of memory that the process had in use then."""

    queue_bytes: int = 0
    """Held for clients and relays that are slow to take it."""
    queue_limit_bytes: int = 0
    """The most that may be."""

    workers: int | None = None
    """How many workers live; None where this process is the only one."""
    worker_restarts: int = 0
    """How often one has been started anew."""
