"""The part of the configuration that bounds what all clients, or all of one network, may use.

The limits on a network (derp.relay.networks), -queue-memory, -workers and -drain-time are
additions, the others the Go derper's.
"""

import math
from pathlib import Path

import attrs

from derp.config import checks
from derp.config.field import ConfigError, file_option, option
from derp.config.goflags import DURATION, FLOAT, INT, STRING
from derp.config.memorysize import MemorySize, memory_size


@attrs.frozen(kw_only=True)
class Limits:
    """Limits on connections, traffic and memory, the number of processes, and the drain time."""

    per_network_accept_limit: int = option(
        "per-network-accept-limit",
        INT,
        checks.count_or_unlimited,
        default="500",
        variable="DERP_PER_NETWORK_ACCEPT_LIMIT",
        usage="New connections a second from one network (/24 of IPv4, /64 of IPv6), with a burst "
        "of twice as many; those above it are closed at once. 0 for no limit.",
    )
    per_network_pending_limit: int = option(
        "per-network-pending-limit",
        INT,
        checks.count_or_unlimited,
        default="512",
        variable="DERP_PER_NETWORK_PENDING_LIMIT",
        usage="Connections from one network that have not logged in, at most a quarter of the "
        "limit on open files; above it the oldest is closed. 0 for no limit.",
    )
    accept_limit: float = option(
        "accept-connection-limit",
        FLOAT,
        checks.accept_limit,
        default="+Inf",
        default_words="no limit",
        want=checks.ACCEPT_LIMIT_WANT,
        usage="New connections a second; those above it are closed at once.",
    )
    """Connections a second; infinite for no limit."""
    accept_burst: int = option(
        "accept-connection-burst",
        INT,
        checks.accept_burst,
        default="9223372036854775807",
        default_words="no limit",
        usage="Burst of -accept-connection-limit: new connections at once.",
    )
    rate_config: Path | None = file_option(
        "rate-config",
        usage="JSON file with PerClientRateLimitBytesPerSec and PerClientRateBurstBytes; "
        "read again at SIGHUP.",
    )
    queue_memory: MemorySize = option(
        "queue-memory",
        STRING,
        memory_size,
        default="auto",
        variable="DERP_QUEUE_MEMORY",
        placeholder="SIZE",
        usage="Memory for the queues to all clients and relays together, such as 64MiB, or 10% "
        "of the machine's or container's. Above it, packets are dropped from the largest queues. "
        "auto is 10%, but at most 64MiB; 0 is no bound.",
    )
    workers: int = option(
        "workers",
        STRING,
        checks.worker_count,
        default="1",
        variable="DERP_WORKERS",
        placeholder="N",
        usage="Processes that share the ports and the clients; auto is one per core.",
    )
    """0 for `auto`."""
    drain_time: float = option(
        "drain-time",
        DURATION,
        checks.duration_up_to(86400.0, "24h"),
        default="0s",
        variable="DERP_DRAIN_TIME",
        usage="Time over which the relay ends its connections, one by one, when it is stopped; "
        "0 ends all at once.",
    )

    def __attrs_post_init__(self) -> None:
        """Check the rule that joins burst and limit. Raises ConfigError."""
        if self.accept_burst == 0 and math.isfinite(self.accept_limit):
            want = "with -accept-connection-limit nothing would be accepted; want 1 or more"
            raise ConfigError("accept-connection-burst", self.accept_burst, want)
