"""The part of the configuration that says what one network may take before anybody logs in.

All of it is ours. Networks are /24 of IPv4 and /64 of IPv6; see derp/relay/pending.py.
"""

from typing import Final

import attrs

from derp.config import checks
from derp.config.field import option
from derp.config.goflags import INT, STRING
from derp.relay.networks import Network

LIMITS: Final = "Limits"


@attrs.frozen(kw_only=True, slots=False)
class LimitOptions:
    """What the operator decides about networks; 0 is no limit."""

    per_network_accept_limit: int = option(
        "per-network-accept-limit",
        INT,
        "500",
        checks.count,
        group=LIMITS,
        variable="DERP_PER_NETWORK_ACCEPT_LIMIT",
        placeholder="N",
        usage="New connections a second from one network (/24 of IPv4, /64 of IPv6), after twice "
        "as many at once; those above it are closed at once. 0 for no limit.",
    )
    per_network_pending_limit: int = option(
        "per-network-pending-limit",
        INT,
        "512",
        checks.count,
        group=LIMITS,
        variable="DERP_PER_NETWORK_PENDING_LIMIT",
        placeholder="N",
        usage="Connections from one network that have not logged in, and no more than a quarter of "
        "the limit on open files; above it the newest takes the place of the oldest. "
        "0 for no limit.",
    )
    trusted_proxies: tuple[Network, ...] = option(
        "trusted-proxies",
        STRING,
        "",
        checks.networks,
        group=LIMITS,
        variable="DERP_TRUSTED_PROXIES",
        placeholder="LIST",
        usage="Networks of reverse proxies in front of the relay, such as 10.0.0.0/8, with commas "
        "between them: the limits for one network do not count there, nor for 127.0.0.1 and ::1; "
        "and /debug/ is closed to who comes from there.",
    )
