"""The connection task: from an accepted socket to its end.

    socket ► accept limit ► TLS ► h11 front end ► Handoff ► websocket? ► DERP client

Each connection has one task, and that task is the only place where its end becomes one log line
and one count. Refusals (whatever ends a connection before login) are coalesced, so that a scanner
can't fill a disk.
"""

import ipaddress
import socket
from collections.abc import Callable
from typing import Any, Final

import attrs
import trio

from derp import client, log
from derp.errors import ConnectionEnd, InternalFault, PeerVanished, TLSFailed
from derp.http.message import Answer, Request
from derp.http.server import serve as serve_http
from derp.log import Coalescer
from derp.net import websocket
from derp.net.listener import endpoint
from derp.net.tcp import TCPTransport
from derp.net.tls import TLSEngine, TLSTransport
from derp.net.transport import Endpoint, Transport
from derp.relay.ratelimit import TokenBucket
from derp.server import Server

TLS_TIMEOUT: Final = 30.0
"""Seconds for the TLS handshake (Go: ReadTimeout of cmd/derper's http.Server)."""

logger = log.get("connection")


@attrs.define(eq=False)
class Door:
    """What connections accepted on one port have in common."""

    server: Server
    nursery: trio.Nursery
    """Owns the connection tasks."""
    route: Callable[[Request], Answer]
    engine: TLSEngine | None
    """None where the port speaks plain HTTP."""
    limit: TokenBucket | None
    """New connections a second; None where they are not limited."""
    refusals: Coalescer

    def admit(self, sock: socket.socket, remote: Endpoint) -> None:
        """Start the task of a new connection, or close it where there are too many of them."""
        metrics = self.server.metrics
        if self.limit is not None and not self.limit.allow(trio.current_time()):
            metrics.tls_rejected_connections += 1
            sock.close()
            return
        if self.engine is not None:
            metrics.tls_accepted_connections += 1
        self.server.poller.add_urgent(sock.fileno())
        self.nursery.start_soon(self._connection, sock, remote)

    async def _connection(self, sock: socket.socket, remote: Endpoint) -> None:
        fields: dict[str, Any] = {"remote": str(remote)}
        end: ConnectionEnd | None = None
        try:
            await self._serve(sock, remote, fields)
        except ConnectionEnd as error:
            # Tracebacks hold this frame, its own and its cause's: a cycle would keep all of the
            # connection until the garbage collector looks.
            end = error.with_traceback(None)
            end.__cause__ = end.__context__ = None
        except Exception as error:
            # A mistake of ours must end this connection only, and loudly, but not without end.
            end = InternalFault(repr(error))
            if self._is_worth_a_line("bug", remote):
                logger.exception("a connection was ended by a bug", **fields)
        finally:
            self._forget(sock)
            sock.close()
        self._report(end, remote, fields)

    def _forget(self, sock: socket.socket) -> None:
        if (fd := sock.fileno()) >= 0:
            self.server.poller.drop_urgent(fd)

    def _report(self, end: ConnectionEnd | None, remote: Endpoint, fields: dict[str, Any]) -> None:
        self.server.metrics.ended(end)
        if "client" in fields:
            reason = "closed" if end is None else f"{end.reason}: {end}"
            logger.info("left", **fields, reason=reason)
        elif end is not None and self._is_worth_a_line(end.reason, remote):
            logger.info("refused", **fields, reason=f"{end.reason}: {end}")

    def _is_worth_a_line(self, what: str, remote: Endpoint) -> bool:
        return self.refusals.admit(what, trio.current_time(), _network(remote.host))

    async def _serve(self, sock: socket.socket, remote: Endpoint, fields: dict[str, Any]) -> None:
        try:
            local = endpoint(sock.getsockname())
        except OSError as error:
            raise PeerVanished("the connection was reset at once") from error
        transport: Transport
        if self.engine is None:
            transport = TCPTransport(sock, remote, local)
        else:
            transport = tls = TLSTransport(sock, remote, local, self.engine)
        try:
            if self.engine is not None:
                with trio.move_on_after(TLS_TIMEOUT) as deadline:
                    await tls.handshake()
                if deadline.cancelled_caught:
                    raise TLSFailed(f"no TLS handshake within {TLS_TIMEOUT:.0f} s")
            await self._speak(transport, fields)
        finally:
            self._forget(sock)
            transport.close()

    async def _speak(self, transport: Transport, fields: dict[str, Any]) -> None:
        server = self.server
        metrics, version = server.metrics, transport.tls_version

        def route(request: Request) -> Answer:
            metrics.tls_request(version)
            with metrics.tls_active_while(version):
                return self.route(request)

        inside: Transport
        handoff = await serve_http(transport, route, server.view)
        if handoff is None:
            return
        with metrics.tls_active_while(version):
            inside, leftover = transport, handoff.leftover
            if handoff.websocket:
                inside = await websocket.accept(transport, handoff.head, leftover)
                leftover = b""
                metrics.websocket_accepts += 1
            not_ideal = bool(handoff.ideal_node)
            life = client.serve(server, inside, leftover, fields, not_ideal=not_ideal)
            # That life is long: keep nothing of the request for it.
            del route, handoff, leftover
            try:
                await life
            finally:
                if inside is not transport:
                    inside.close()


def _network(host: str) -> str:
    """Name the network that an address most likely shares with its owner's others."""
    bits = 64 if ":" in host else 24
    return str(ipaddress.ip_network(f"{host}/{bits}", strict=False))
