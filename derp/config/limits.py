"""The part of the configuration that bounds what all clients, or those of one network, may use.

The limits on a network, -trusted-proxies, -queue-memory, -workers and -drain-time are ours, the
others the Go derper's. What is limited is a /24 of IPv4 or a /64 of IPv6 (derp.relay.networks).
"""

import math
from pathlib import Path

import attrs

from derp.config import checks
from derp.config.field import ConfigError, option
from derp.config.goflags import DURATION, FILE, FLOAT, INT, STRING
from derp.config.memorysize import MemorySize, memory_size
from derp.relay.networks import Network


@attrs.frozen(kw_only=True)
class Limits:
    """Limits on connections, traffic and memory, the number of processes, and the drain time."""

    per_network_accept_limit: int = option(
        "per-network-accept-limit",
        INT,
        checks.count_or_unlimited,
        default="500",
        variable="DERP_PER_NETWORK_ACCEPT_LIMIT",
        placeholder="N",
        usage="New connections a second from one network (/24 of IPv4, /64 of IPv6), after twice "
        "as many at once; those above it are closed at once. 0 for no limit.",
    )
    per_network_pending_limit: int = option(
        "per-network-pending-limit",
        INT,
        checks.count_or_unlimited,
        default="512",
        variable="DERP_PER_NETWORK_PENDING_LIMIT",
        placeholder="N",
        usage="Connections from one network that have not logged in, and no more than a quarter of "
        "the limit on open files; above it the newest takes the place of the oldest. "
        "0 for no limit.",
    )
    trusted_proxies: tuple[Network, ...] = option(
        "trusted-proxies",
        STRING,
        checks.network_list,
        variable="DERP_TRUSTED_PROXIES",
        placeholder="LIST",
        usage="Networks of reverse proxies in front of the relay, such as 10.0.0.0/8, with commas "
        "between them: the limits for one network do not count there, nor for 127.0.0.1 and ::1; "
        "and /debug/ is closed to who comes from there.",
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
        usage="New connections at once, before -accept-connection-limit counts.",
    )
    rate_config: Path | None = option(
        "rate-config",
        FILE,
        checks.optional_path,
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
        usage="Memory for what waits for all clients and relays together, such as 64MiB, or 10% "
        "of what there is. Above that, packets are dropped where most of them wait. "
        "auto is 10%, but at most 64MiB; 0 is no bound.",
    )
    workers: int = option(
        "workers",
        STRING,
        checks.worker_count,
        default="1",
        variable="DERP_WORKERS",
        placeholder="N",
        usage="Processes that share the ports and the work, one for each core to be used; "
        "auto is one for each there is.",
    )
    """0 for one per core."""
    drain_time: float = option(
        "drain-time",
        DURATION,
        checks.duration_up_to(86400.0, "24h"),
        default="0s",
        variable="DERP_DRAIN_TIME",
        usage="Time over which connections are ended, one by one, when the relay is told to stop; "
        "0 ends all at once.",
    )

    def __attrs_post_init__(self) -> None:
        """Check the rule that joins burst and limit. Raises ConfigError."""
        if self.accept_burst == 0 and math.isfinite(self.accept_limit):
            want = "with -accept-connection-limit nothing would be accepted; want 1 or more"
            raise ConfigError("accept-connection-burst", self.accept_burst, want)
