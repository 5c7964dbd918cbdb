"""The part of the configuration about proxies in front of the relay. Its flags are additions."""

import attrs

from derp.config import checks
from derp.config.field import option
from derp.config.goflags import STRING
from derp.relay.networks import PeerNetwork


@attrs.frozen(kw_only=True)
class Proxies:
    """The networks of the operator's proxies, by how these say which client they speak for."""

    trusted: tuple[PeerNetwork, ...] = option(
        "trusted-proxies",
        STRING,
        checks.proxy_list,
        variable="DERP_TRUSTED_PROXIES",
        placeholder="LIST",
        usage="Networks of reverse proxies that serve HTTPS in front of the relay, such as "
        "127.0.0.1/32,10.0.0.5/32, or unix for those that come by a unix socket: the client of a "
        "request from there is the right-most address in its Forwarded, X-Forwarded-For or "
        "X-Real-IP that is none of theirs. A proxy has to set one of these. All that can connect "
        "from there is believed, so list no clients' addresses. /debug/ is closed to requests from "
        "there.",
    )
    """Those that say it in the headers of each request (derp.http.forwarded)."""
    with_header: tuple[PeerNetwork, ...] = option(
        "proxy-protocol-from",
        STRING,
        checks.proxy_list,
        variable="DERP_PROXY_PROTOCOL_FROM",
        placeholder="LIST",
        usage="Networks of proxies, or unix for those that come by a unix socket, that send the "
        "PROXY protocol, version 1 or 2, first in each connection, before TLS, and version 2 in "
        "each STUN datagram. What comes from there without it is refused, as is the PROXY protocol "
        "from elsewhere. All that can connect from there is believed, so list no clients' "
        "addresses. /debug/ is closed to requests from there.",
    )
    """Those that say it in a PROXY header (derp.wire.proxyprotocol)."""

    @property
    def all(self) -> tuple[PeerNetwork, ...]:
        """The networks of either kind."""
        return (*self.trusted, *self.with_header)
