"""The connection task: from an accepted socket to its end.

    socket ► accept limit ► pending ► PROXY header? ► TLS ► h11 front end ► Handoff ► websocket?
                                                                                  ► DERP client

The error that ends a connection is counted once, and logged at most once, here and nowhere else; a
stop's cancellation is neither counted nor logged. Refusals (errors before login) are coalesced, so
that a scanner can't fill a disk; a few for each address have their own lines, so that it can be
banned. Only some logins and ends of clients are logged, since clients cause them at will. Until its
login a connection is pending, and may be closed to make room for others (`derp.relay.pending`).
Behind the operator's proxies, all of that is about the client's address (`derp.service.proxies`).
"""

import contextlib
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, Protocol

import attrs
import trio

from derp import log
from derp.errors import (
    ConnectionEnd,
    HTTPFailed,
    InternalFault,
    LoginRefused,
    NoRoom,
    NotAdmitted,
    ProxyHeaderFailed,
    ProxyNotListed,
    TLSFailed,
    TooManyConnections,
    TooManyPending,
)
from derp.http.knownheads import KnownHeads
from derp.http.message import Answer, Later, Overloaded, Request
from derp.http.server import serve as serve_http
from derp.log import Coalescer, Tries
from derp.net.address import Endpoint
from derp.net.tcp import TCPTransport
from derp.net.tls import TLSTransport
from derp.net.tlsengine import TLSEngine
from derp.net.transport import Transport
from derp.relay.networks import network_of
from derp.relay.pending import Pending
from derp.relay.tokenbucket import TokenBucket
from derp.service.handshakes import Handshakes, proxy_headers
from derp.service.proxies import WITH_HEADER, ClientAddresses, Proxies
from derp.session import serve
from derp.session.state import RelayState
from derp.wire.clienthello import is_tls

CROWDED: Final = frozenset({TooManyConnections, TooManyPending, NoRoom})
"""Errors for lack of room: one log line for each error and network in a Coalescer's window."""
CROWDED_LINES: Final = 16
"""Such lines in a window, before all further errors and networks share one."""

TRY_LINES: Final = 0.5
"""Log lines a second about first refusals of addresses; as many more about later ones."""
TRY_LINES_BURST: Final = 30
"""Log lines in a burst about first refusals; as many more about later ones."""

logger = log.get("connection")


def try_lines(processes: int = 1) -> Tries:
    """Make one process's share of the bound on log lines about refused addresses."""
    rate, burst = TRY_LINES / processes, max(3, TRY_LINES_BURST // processes)
    return Tries(TokenBucket(rate, burst, 0.0).allow, TokenBucket(rate, burst, 0.0).allow)


class Hide(Protocol):
    """A function that serves a connection to a relay that hides (derp.http.hidden)."""

    async def __call__(
        self,
        transport: TCPTransport,
        addresses: ClientAddresses,
        /,
        *,
        pending: Pending,
        to_https: bool = False,
    ) -> bytes | None:
        """Return a client's request and what follows it; None at the connection's end.

        `to_https`: it is plain HTTP on a port with TLS. Raises ConnectionEnd.
        """


@attrs.define(eq=False)
class Acceptor:
    """The acceptor of one port's connections."""

    state: RelayState
    nursery: trio.Nursery
    """Owns the connection tasks."""
    route: Callable[[Request], Answer]
    engine: TLSEngine | None
    """None for plain HTTP."""
    limit: TokenBucket | None
    """Limits new connections; None for no limit."""
    refusals: Coalescer
    crowded: Coalescer = attrs.field(factory=lambda: Coalescer(limit=1, most=CROWDED_LINES))
    tries: Tries = attrs.field(factory=try_lines)
    known: KnownHeads = attrs.field(factory=KnownHeads)
    proxies: Proxies = attrs.field(factory=Proxies)
    handshakes: Handshakes = attrs.field(factory=Handshakes)
    headers: Handshakes = attrs.field(factory=proxy_headers)
    hide: Hide | None = None
    """Serves a connection until a client's request comes; None if the relay does not hide."""

    def accept(self, sock: socket.socket, remote: Endpoint, *, full: bool = False) -> bool:
        """Start a new connection's task, or close it if there are too many: a `listener.Handle`."""
        state, now = self.state, trio.current_time()
        if self.limit is not None and not self.limit.allow(now):
            state.metrics.tls_rejected_connections += 1
            sock.close()
            return False
        try:
            pending = state.pending.admit(remote.host, now, no_descriptor=full)
        except ConnectionEnd as end:
            sock.close()
            self._report(end, remote, {"remote": str(remote)})
            return False
        if full:
            # `sock` has a descriptor of the reserve: swap it for the one freed by closing another
            # connection, unless the freed one has been taken.
            with contextlib.suppress(OSError):
                reserved, sock = sock, sock.dup()
                reserved.close()
        if self.engine is not None:
            state.metrics.tls_accepted_connections += 1
        pending.abort = partial(self._abort, sock)
        self.nursery.start_soon(self._connection, sock, remote, pending)
        return True

    def is_behind(self) -> bool:
        """Return whether to take newcomers one by one: many wait to run that were taken before.

        So clients that all come back at once, as after a restart, wait in the kernel, and are
        neither refused nor evicted for want of memory. One network's pending connections alone
        are less than that, and an attacker's that do nothing wait for nothing: neither keeps
        others in the kernel's queue.
        """
        return self.state.prelogin.is_behind and self.state.pending.is_nearly_full

    async def _connection(self, sock: socket.socket, remote: Endpoint, pending: Pending) -> None:
        addresses = self.proxies.addresses(remote)
        fields, end = addresses.fields, None
        try:
            await self._serve(sock, addresses, fields, pending)
        except ConnectionEnd as error:
            end = error.without_traceback()
            if pending.end is not None:  # closed from outside, as to make room
                end = pending.end.without_traceback()
        except Exception as error:
            # A bug must end this connection only, and must be logged, within a bound.
            end = InternalFault(repr(error))
            if self._should_log("bug", addresses.client):
                logger.exception("a connection was ended by a bug", **fields)
        finally:
            self.handshakes.done(pending)
            self.headers.done(pending)
            pending.done()
            self._forget(sock)
            sock.close()
        if isinstance(end, ProxyNotListed):
            if addresses.proxy == WITH_HEADER:
                end = ProxyHeaderFailed("a second PROXY header follows the first")
            else:
                self.proxies.notices.unlisted(addresses.client.host, "a PROXY header", WITH_HEADER)
        self._report(end, addresses.client, fields)

    def _abort(self, sock: socket.socket) -> None:
        """Close a pending connection's socket, and wake its task if it waits for the socket."""
        self._forget(sock)
        trio.lowlevel.notify_closing(sock)
        sock.close()

    def _forget(self, sock: socket.socket) -> None:
        """Have the scheduler forget a socket that is still open, as before there is a transport."""
        if (fd := sock.fileno()) >= 0:
            self.state.prelogin.forget(fd)

    def _report(self, end: ConnectionEnd | None, remote: Endpoint, fields: dict[str, Any]) -> None:
        self.state.metrics.ended(end)
        if "client" in fields:
            reason = "closed" if end is None else f"{end.reason}: {end}"
            should_log = self.state.should_log("left", fields["client"], remote.host)
            (logger.info if should_log else logger.debug)("left", **fields, reason=reason)
        elif end is not None and type(end) in CROWDED:
            if self.crowded.should_log(
                f"{end.reason} {network_of(remote.host)}", trio.current_time()
            ):
                logger.info("refused", **fields, reason=f"{end.reason}: {end}")
        elif end is not None:
            tries, has_line = self._note_try(end, remote)
            if has_line or self._should_log(end.reason, remote):
                logger.info("refused", **fields, tries=tries, reason=f"{end.reason}: {end}")

    def _note_try(self, end: ConnectionEnd, remote: Endpoint) -> tuple[int | None, bool]:
        """Count a refusal; return its number in the address's window, and whether to log it.

        The number is None for a proxy's address, and for a refusal that the peer did not cause.
        """
        network = self.state.pending.network_of(remote.host)
        if network is None or not _is_caused_by_peer(end):
            return None, False
        return self.tries.note(remote.host, network, trio.current_time())

    def _should_log(self, reason: str, remote: Endpoint) -> bool:
        return self.refusals.should_log(reason, trio.current_time(), network_of(remote.host))

    async def _serve(
        self,
        sock: socket.socket,
        addresses: ClientAddresses,
        fields: dict[str, Any],
        pending: Pending,
    ) -> None:
        """Do the TLS handshake, if the port has TLS; then serve HTTP and DERP."""
        if self.engine is not None:
            self.handshakes.begin(pending)
        if addresses.proxy == WITH_HEADER:
            self.headers.begin(pending)
            await self.proxies.receive(addresses, sock, self.state.prelogin)
            self.headers.done(pending)
            _identify(addresses, fields, pending)
        transport: TCPTransport
        if self.engine is None:
            transport = TCPTransport(sock, addresses.header_client)
        else:
            transport = tls = TLSTransport(sock, addresses.header_client, None, self.engine)
        transport.scheduler = self.state.prelogin
        try:
            if self.engine is not None:
                if self.hide is not None and not is_tls(await transport.peek()):
                    self.handshakes.done(pending)
                    plain = TCPTransport(sock, addresses.header_client)
                    plain.scheduler = self.state.prelogin
                    await self.hide(plain, addresses, pending=pending, to_https=True)
                    return
                await tls.handshake(pending.hold)
                self.handshakes.done(pending)
            received: bytes | None = b""
            if self.hide is not None:
                received = await self.hide(transport, addresses, pending=pending)
            if received is not None:
                await self._serve_http(transport, addresses, fields, pending, received)
        finally:
            transport.close()

    async def _serve_http(
        self,
        transport: Transport,
        addresses: ClientAddresses,
        fields: dict[str, Any],
        pending: Pending,
        received: bytes,
    ) -> None:
        """Answer HTTP requests; after an upgrade, serve a DERP session."""
        state = self.state
        metrics, version = state.metrics, transport.tls_version

        def route(request: Request) -> Answer:
            metrics.tls_request(version)
            request = self.proxies.resolve(addresses, request)
            try:
                _identify(addresses, fields, pending)
            except (TooManyConnections, TooManyPending) as end:
                raise Overloaded(429, end) from end
            except NoRoom as end:
                raise Overloaded(503, end) from end
            answer = self.route(request)
            # A request that is answered at once is active for no time that a page could show.
            if not isinstance(answer, Later):
                return answer

            async def ask() -> Any:
                with metrics.tls_active_while(version):
                    return await answer.ask()

            return attrs.evolve(answer, ask=ask)

        def done() -> None:
            addresses.client = addresses.header_client
            _show(addresses, fields)

        inside: Transport
        handoff = await serve_http(
            transport,
            route,
            state.view,
            pending=pending,
            known=self.known,
            done=done,
            received=received,
        )
        del received
        if handoff is None:
            return
        transport.remote = addresses.client
        with metrics.tls_active_while(version):
            inside, leftover = transport, handoff.leftover
            if handoff.websocket:
                accept = await trio.to_thread.run_sync(_websocket_accept)
                inside = await accept(transport, handoff.head, leftover)
                leftover = b""
                metrics.websocket_accepts += 1
            not_ideal = bool(handoff.ideal_node)
            session = serve.serve(
                state,
                inside,
                leftover,
                fields,
                answer=handoff.answer,
                not_ideal=not_ideal,
                pending=pending,
            )
            # A session is long: keep nothing of the request.
            del route, done, handoff, leftover
            try:
                await session
            finally:
                if inside is not transport:
                    inside.close()


def _identify(addresses: ClientAddresses, fields: dict[str, Any], pending: Pending) -> None:
    """Count the connection of a proxy for its client, and log it as such.

    Raises TooManyConnections, TooManyPending and NoRoom.
    """
    _show(addresses, fields)
    if addresses.proxy:
        pending.identify(addresses.client.host, trio.current_time())


def _show(addresses: ClientAddresses, fields: dict[str, Any]) -> None:
    """Have the connection's log lines show its client of now."""
    if addresses.proxy:
        fields.pop("proxy", None)
        fields |= addresses.fields


def _is_caused_by_peer(end: ConnectionEnd) -> bool:
    """Return whether `end` speaks for a ban of the address.

    ProxyHeaderFailed does not: the cause is, mostly, a proxy or a list that is set wrongly.
    """
    if isinstance(end, NotAdmitted):
        return end.authoritative
    return isinstance(end, TLSFailed | HTTPFailed | LoginRefused)


def _websocket_accept() -> Callable[[Transport, bytes, bytes], Awaitable[Transport]]:
    """Return derp.net.websocket.accept. Blocks: it loads what only such clients need."""
    from derp.net.websocket import accept  # noqa: PLC0415 - as it says

    return accept
