"""The listener of -metrics-addr: plain HTTP, with bounds and counts of its own.

It takes nothing from clients: its connections have their own memory, of which a crowd of strangers
can use all, and no more. Each gets one answer, so that the limit on new connections is one on
requests, too; and a page is made once a second at most (monitorpages.Paced).
"""

import socket
from collections.abc import Sequence
from functools import partial
from typing import Final, NoReturn

import attrs
import trio

from derp import log
from derp.errors import ConnectionEnd, InternalFault, NoRoom, PeerVanished
from derp.http.monitoring import MonitoringBackend, route
from derp.http.requestreader import MAX_HEAD
from derp.http.server import Deadlines
from derp.http.server import serve as serve_http
from derp.metrics import Metrics
from derp.net.address import Endpoint, endpoint
from derp.net.descriptors import Descriptors
from derp.net.listener import accept_forever
from derp.net.prelogin import PreLoginScheduler
from derp.net.tcp import TCPTransport
from derp.relay.networks import network_of
from derp.relay.pending import COST, Pending, PendingConnections
from derp.service.monitorpages import paced
from derp.service.summaries import summarize

MAX_CONNECTIONS: Final = 32
"""Connections at once; above it, and above half of it from one network, the oldest is closed."""
MAX_WHEN_FULL: Final = 4
"""Connections that are taken where clients have taken all descriptors but a reserve."""
MAX_RATE: Final = 20
"""New connections a second from one network, other than loopback."""
DEADLINES: Final = Deadlines(request=10.0, write=10.0)

logger = log.get("metrics")


async def serve(
    listeners: Sequence[socket.socket],
    backend: MonitoringBackend,
    metrics: Metrics,
    descriptors: Descriptors,
) -> NoReturn:
    """Serve `backend` on `listeners`, for ever; `metrics` counts how connections end."""
    async with trio.open_nursery() as nursery:
        server = MonitoringServer(
            backend=paced(backend),
            metrics=metrics,
            nursery=nursery,
            connections=PendingConnections(
                rate=MAX_RATE,
                max_pending=MAX_CONNECTIONS // 2,
                memory=MAX_CONNECTIONS * COST,
            ),
        )
        nursery.start_soon(server.scheduler.run)
        nursery.start_soon(summarize, (server.refusals,), log.ClientEvents(lambda _: False))
        for listener in listeners:
            nursery.start_soon(accept_forever, listener, server.accept, descriptors)
    raise AssertionError("its tasks do not end")


@attrs.define(eq=False, kw_only=True)
class MonitoringServer:
    """The connections to -metrics-addr."""

    backend: MonitoringBackend
    metrics: Metrics
    nursery: trio.Nursery
    """Owns the connection tasks."""
    connections: PendingConnections
    scheduler: PreLoginScheduler = attrs.field(factory=PreLoginScheduler)
    refusals: log.Coalescer = attrs.field(factory=log.Coalescer)
    _view: memoryview = attrs.field(factory=lambda: memoryview(bytearray(2 * MAX_HEAD)))

    def accept(self, sock: socket.socket, remote: Endpoint, *, full: bool = False) -> bool:
        """Start a new connection's task, or close it if there are too many: a `listener.Handle`."""
        try:
            if full and len(self.connections) >= MAX_WHEN_FULL:
                raise NoRoom("there is no descriptor left for it")
            pending = self.connections.admit(remote.host, trio.current_time())
        except ConnectionEnd as end:
            sock.close()
            self._report(end, remote)
            return False
        pending.abort = partial(self._abort, sock)
        self.nursery.start_soon(self._connection, sock, remote, pending)
        return True

    def _abort(self, sock: socket.socket) -> None:
        """Close a connection's socket, and wake its task if that waits for the socket."""
        if (fd := sock.fileno()) >= 0:
            self.scheduler.forget(fd)
        trio.lowlevel.notify_closing(sock)
        sock.close()

    async def _connection(self, sock: socket.socket, remote: Endpoint, pending: Pending) -> None:
        end: ConnectionEnd | None = None
        try:
            await self._serve(sock, remote, pending)
        except ConnectionEnd as error:
            end = (pending.end or error).without_traceback()
        except Exception as error:
            # A bug must end this connection only, and must be logged, within a bound.
            end = InternalFault(repr(error))
            if self.refusals.should_log("a bug at -metrics-addr", trio.current_time()):
                logger.exception("a connection was ended by a bug", remote=str(remote))
        finally:
            pending.done()
            sock.close()
        self._report(end, remote)

    async def _serve(self, sock: socket.socket, remote: Endpoint, pending: Pending) -> None:
        try:
            local = endpoint(sock.getsockname())
        except OSError as error:
            raise PeerVanished("the connection was reset at once") from error
        transport = TCPTransport(sock, remote, local)
        transport.scheduler = self.scheduler
        try:
            answer = partial(route, self.backend)
            await serve_http(transport, answer, self._view, DEADLINES, pending)
        finally:
            transport.close()

    def _report(self, end: ConnectionEnd | None, remote: Endpoint) -> None:
        self.metrics.monitor_ended(end)
        if end is not None:
            kind = f"{end.reason} at -metrics-addr"
            if self.refusals.should_log(kind, trio.current_time(), network_of(remote.host)):
                reason = f"{end.reason}: {end}"
                logger.info("refused at -metrics-addr", remote=str(remote), reason=reason)
