"""The operator's proxies: which client a connection, or a request on it, is for.

    -proxy-protocol-from   by the PROXY header of the connection
    -trusted-proxies       by the headers of each request, as several clients may share a connection

A proxy may have another one before it: the client of a PROXY header may be in -trusted-proxies.
"""

import socket
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_network
from typing import Any, Final

import attrs
import trio

from derp import log
from derp.errors import ProxyHeaderFailed
from derp.http import forwarded
from derp.http.message import Request
from derp.net.address import Endpoint
from derp.net.prelogin import PreLoginScheduler
from derp.net.proxyheader import receive_header
from derp.relay.networks import UNIX, PeerNetwork, is_in, is_private, unmapped
from derp.wire.proxyprotocol import SIGNATURE, parse_datagram
from stun.message import StunError

TRUSTED: Final = "-trusted-proxies"
WITH_HEADER: Final = "-proxy-protocol-from"

logger = log.get("proxies")


@attrs.define(eq=False)
class ClientAddresses:
    """The addresses of one connection: its peer, and the client behind that."""

    peer: Endpoint
    """The other end of the TCP connection."""
    header_client: Endpoint
    """The client of the connection by its PROXY header; `peer` without one."""
    client: Endpoint
    """The client of the request that is served; `header_client` between two, as the next may be for
    another client, and where a request does not say."""
    proxy: str = ""
    """The flag that has the proxy; empty for none."""

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of this connection's log lines."""
        if self.client is self.peer:
            return {"remote": str(self.client)}
        return {"remote": str(self.client), "proxy": str(self.peer)}


class Notices:
    """Log lines about proxies, each of which is logged once, whatever comes."""

    def __init__(
        self,
        nursery: trio.Nursery | None = None,
        is_first: Callable[[str], Awaitable[bool]] | None = None,
    ) -> None:
        """`is_first` is asked, in `nursery`, whether no other process has logged a line."""
        self._nursery = nursery
        self._is_first = is_first
        self._logged: set[str] = set()

    def unlisted(self, host: str, evidence: str, flag: str) -> None:
        """Note that `host`, which `flag` does not have, has sent the `evidence` of a proxy.

        Whoever reaches the relay can do so, so there is one line for all public addresses, and
        another one for private ones.
        """
        network = host if host == UNIX else str(unmapped(ip_network(host)))
        self._once(
            f"{flag} {'private' if is_private(host) else 'public'}",
            "there may be a proxy that is not listed, and hides its clients",
            proxy=host,
            sends=evidence,
            cure=f"if it is yours, and itself sets that: {flag} {network}",
        )

    def unlisted_stun(self, host: str) -> None:
        """Note that a STUN datagram that says it is from `host` has a PROXY header.

        Whoever sends it chooses `host`, so the line has no flag to copy.
        """
        self._once(
            "STUN unlisted",
            "a STUN datagram with a PROXY header is not answered",
            sender=host,
            reason=f"{WITH_HEADER} does not have its address, which anybody can make up",
            cure=f"if a proxy of yours passes STUN on, list its address in {WITH_HEADER}",
        )

    def without_header(self, host: str, why: str) -> None:
        """Note that a STUN datagram of a proxy is not answered, and why."""
        self._once(
            "STUN",
            "a proxy's STUN requests are not answered",
            proxy=host,
            reason=why,
            cure="have it put a PROXY header, version 2, before each datagram, or pass UDP by it",
        )

    def _once(self, what: str, event: str, **fields: str) -> None:
        if what in self._logged:
            return
        self._logged.add(what)
        if self._nursery is not None:
            self._nursery.start_soon(self._log_if_first, what, event, fields)
        else:
            logger.warning(event, **fields)

    async def _log_if_first(self, what: str, event: str, fields: dict[str, str]) -> None:
        if self._is_first is None or await self._is_first(what):
            logger.warning(event, **fields)


@attrs.frozen
class Proxies:
    """The proxies of one relay."""

    trusted: Sequence[PeerNetwork] = ()
    with_header: Sequence[PeerNetwork] = ()
    notices: Notices = attrs.field(factory=Notices)

    def addresses(self, peer: Endpoint) -> ClientAddresses:
        """Return the addresses of a new connection."""
        addresses = ClientAddresses(peer, peer, peer)
        if self.with_header and is_in(peer.host, self.with_header):
            addresses.proxy = WITH_HEADER
        elif self.trusted and is_in(peer.host, self.trusted):
            addresses.proxy = TRUSTED
        return addresses

    async def receive(
        self, addresses: ClientAddresses, sock: socket.socket, scheduler: PreLoginScheduler
    ) -> None:
        """Receive the connection's PROXY header. Raises ProxyHeaderFailed and PeerVanished."""
        client = await receive_header(sock, scheduler)
        if client is not None:
            addresses.header_client = addresses.client = client

    def resolve(self, addresses: ClientAddresses, request: Request) -> Request:
        """Return the request as its client's, which becomes that of `addresses`.

        Raises BadRequest where its headers can't be read, or name different clients: then the
        client is that of the connection.
        """
        addresses.client = addresses.header_client
        addresses.client = self.client(addresses, request.headers)
        if not addresses.proxy:
            return request
        return request.sent_by(addresses.client.host, addresses.proxy)

    def client(
        self, addresses: ClientAddresses, headers: Sequence[tuple[bytes, bytes]]
    ) -> Endpoint:
        """Return the client of a request on a connection, by its headers.

        Raises BadRequest where these can't be read, or name different clients.
        """
        header_client = addresses.header_client
        if self.trusted and is_in(header_client.host, self.trusted):
            addresses.proxy = addresses.proxy or TRUSTED
            return forwarded.client(headers, self._is_trusted) or header_client
        self._look_for_unlisted(header_client.host, headers)
        return header_client

    def _is_trusted(self, host: str) -> bool:
        return is_in(host, self.trusted)

    def _look_for_unlisted(self, host: str, headers: Sequence[tuple[bytes, bytes]]) -> None:
        for name, _ in headers:
            if name in forwarded.HEADERS:
                self.notices.unlisted(host, forwarded.HEADERS[name], TRUSTED)
                return

    @property
    def expects_headers(self) -> bool:
        """Whether some STUN datagrams have a PROXY header; see `stun.plain.HeaderStripper`."""
        return bool(self.with_header)

    def strip(self, datagram: bytes, host: str, port: int) -> tuple[bytes, str, int]:
        """Return a STUN datagram without its header, and its client; see HeaderStripper."""
        if not (self.with_header and is_in(host, self.with_header)):
            if datagram.startswith(SIGNATURE):
                self.notices.unlisted_stun(host)
            return datagram, host, port
        try:
            size, client = parse_datagram(datagram)
        except ProxyHeaderFailed as error:
            self.notices.without_header(host, str(error))
            raise StunError(str(error)) from error
        return datagram[size:], *(client or (host, port))
