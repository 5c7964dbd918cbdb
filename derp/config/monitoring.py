"""The part of the configuration that says where monitors are served. Its flags are additions."""

from pathlib import Path

import attrs

from derp.config import checks
from derp.config.checks import Address
from derp.config.field import ConfigError, option
from derp.config.goflags import INT, STRING
from derp.config.listening import Listening
from derp.net.address import WILDCARDS


@attrs.frozen(kw_only=True)
class Monitoring:
    """Where /metrics and /healthz are served, and in what detail."""

    address: Address | Path | None = option(
        "metrics-addr",
        STRING,
        checks.metrics_address,
        variable="DERP_METRICS_ADDR",
        placeholder="ADDRESS",
        usage="Where to serve /metrics, for Prometheus, and /healthz by plain HTTP, to whoever "
        "gets there: ip:port, :port for all interfaces, or unix:/path for a socket that only this "
        "user may open. Nowhere if not given.",
    )
    """A path is that of a unix socket."""
    per_key: int = option(
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

    def check(self, listening: Listening, *, has_http_port: bool) -> None:
        """Check that no other listener has the port. Raises ConfigError."""
        if not isinstance(self.address, Address) or not self.address.port:
            return
        others = {"-a": listening.address.port}
        if has_http_port:
            others["-http-port"] = listening.http_port
        hosts = {self.address.host, listening.address.host}
        for flag, port in others.items():
            if port == self.address.port and (len(hosts) == 1 or hosts & WILDCARDS):
                want = f"the port of {flag}; want another one"
                raise ConfigError("metrics-addr", self.address, want)
