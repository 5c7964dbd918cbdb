"""The part of the configuration that says where monitors are served. The Go derper lacks it."""

import attrs

from derp.config import checks
from derp.config.addresses import optional_addresses
from derp.config.field import option
from derp.config.goflags import INT, STRING
from derp.net.listenaddress import ListenAddress


@attrs.frozen(kw_only=True)
class Monitoring:
    """The addresses of /metrics and /healthz, and their detail."""

    addresses: tuple[ListenAddress, ...] = option(
        "metrics-addr",
        STRING,
        optional_addresses,
        separator=",",
        variable="DERP_METRICS_ADDR",
        placeholder="ADDRESS",
        usage="Where to serve /metrics, for Prometheus, and /healthz by plain HTTP, to whoever "
        "gets there: ip:port, :port for all interfaces, or unix:/path for a socket that only this "
        "user may open; several, and other modes, as in -a. Nowhere if not given.",
    )
    max_keys: int = option(
        "metrics-per-key",
        INT,
        checks.key_count,
        default="0",
        variable="DERP_METRICS_PER_KEY",
        placeholder="N",
        want=checks.KEY_COUNT_WANT,
        usage="Node keys for which /metrics has bytes sent and received; all others are summed up "
        'under key="other". 0 for none of it.',
    )
