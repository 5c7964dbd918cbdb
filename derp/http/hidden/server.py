"""One connection to a hidden relay, from its first byte to its end, or to a client's request.

The times are nginx's defaults: `header` seconds for the TLS handshake and for each head, and then
no answer but the end; `idle` seconds between two requests; `send` seconds for each write; after an
answer that ends the connection, the rest of what the peer sends is read for `linger` seconds, or
until nothing has come for `pause` seconds, so that the answer is not lost.

nginx takes any number of pieces for a head. Here a ReadBudget ends a connection that sends it in
very many, as strangers would use that to take time from clients.
"""

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import attrs
import trio

from derp.errors import (
    ConnectionEnd,
    HTTPFailed,
    NoRoom,
    PeerVanished,
    TooManyConnections,
    TooManyPending,
)
from derp.http.hidden import answers
from derp.http.hidden.bodies import Body
from derp.http.hidden.grammar import HTTP_11, Fault
from derp.http.hidden.heads import Head, HeadReader
from derp.http.knownheads import KnownHeads
from derp.http.message import BadRequest, Request, parse_request
from derp.http.server import http_date
from derp.net.budgets import ReadBudget
from derp.net.transport import Transport
from derp.relay.pending import Pending

READ_SIZE: Final = 16 << 10
MAX_BODY: Final = 1 << 20
"""Bytes that nginx lets a request's Content-Length announce."""


@attrs.frozen
class Times:
    """Seconds."""

    header: float = 60.0
    idle: float = 75.0
    send: float = 60.0
    linger: float = 30.0
    pause: float = 5.0


NGINX: Final = Times()


class EndableTransport(Transport, Protocol):
    """A Transport whose output can be ended."""

    def end_output(self) -> None:
        """Tell the peer that nothing more is sent; it may go on sending. Raises PeerVanished."""


IsClient = Callable[[Request], bool]
"""Returns whether a request is one that a Tailscale client would make."""
Count = Callable[[Sequence[tuple[bytes, bytes]]], None]
"""Counts a request that no client makes, by its head's fields, for who has sent it.

Raises TooManyConnections, TooManyPending and NoRoom: the answer is that of nginx's limit_req.
"""


async def serve(
    transport: EndableTransport,
    is_client: IsClient,
    scratch: memoryview,
    *,
    count: Count = lambda _: None,
    pending: Pending | None = None,
    known: KnownHeads | None = None,
    to_https: bool = False,
) -> bytes | None:
    """Answer as nginx does until a client's request comes; return it, with all that came after it.

    Returns None at the end; the caller closes the transport. `to_https` is for plain HTTP on a
    port with TLS. `known` are heads of clients; `scratch` is shared. Raises HTTPFailed if the peer
    breaks a rule, and what the transport, `count` and `pending` raise.
    """
    connection = _Connection(transport, is_client, count, scratch, pending)
    return await connection.run(known, to_https=to_https)


class _Connection:
    def __init__(
        self,
        transport: EndableTransport,
        is_client: IsClient,
        count: Count,
        scratch: memoryview,
        pending: Pending | None,
    ) -> None:
        self._transport = transport
        self._is_client = is_client
        self._count = count
        self._scratch = scratch[:READ_SIZE]
        self._pending = pending
        self._reader = HeadReader()
        self._budget = ReadBudget()

    async def run(self, known: KnownHeads | None, *, to_https: bool) -> bytes | None:
        first = await self._read_within(NGINX.header)
        if not first:
            return None
        if known is not None and known.find(first, self._transport.remote.host) is not None:
            return first
        self._reader.feed(first)
        while True:
            try:
                head = await self._next_head()
            except Fault as fault:
                await self._refuse(fault)
                raise
            if head is None:
                return None
            if not to_https and self._is_from_client(head):
                return head.raw + self._reader.take()
            try:
                self._count(head.fields)
            except (TooManyConnections, TooManyPending, NoRoom):
                await self._answer(head, 503)
                raise
            status = 413 if head.length > MAX_BODY else 404
            if not await self._answer(head, answers.TO_HTTPS if to_https else status):
                return None
            self._budget = ReadBudget()
            if not self._reader.has_begun:
                data = await self._read_within(NGINX.idle)
                if not data:
                    return None
                self._reader.feed(data)
            # A peer may have sent hundreds of requests at once.
            await self._transport.wait_turn()

    async def _next_head(self) -> Head | None:
        """Read until a head is whole; return None if the peer has left. Raises Fault."""
        with trio.move_on_after(NGINX.header):
            while (head := self._reader.next()) is None:
                data = await self._read()
                if not data:
                    return None
                self._reader.feed(data)
            return head
        raise HTTPFailed(f"no whole request within {NGINX.header:g} s")

    def _is_from_client(self, head: Head) -> bool:
        line, remote = head.line, self._transport.remote.host
        if line.version != HTTP_11:
            return False
        with contextlib.suppress(BadRequest):
            request = parse_request(line.method, line.target, b"1.1", head.fields, remote)
            return self._is_client(request)
        return False

    async def _answer(self, head: Head, status: int) -> bool:
        """Answer, and skip the body; return whether another request may follow."""
        body = Body(head.length, chunked=head.chunked)
        self._reader.feed(body.feed(self._reader.take()))
        keeps_alive = head.keeps_alive and status == 404 and not body.is_wrong
        await self._write(
            answers.answer(
                status,
                http_date(time.time()),
                method=head.line.method,
                version=head.line.version,
                padded=head.padded,
                keeps_alive=keeps_alive,
            )
        )
        if not body.ended and not await self._skip(body):
            return False
        if not keeps_alive:
            await self._end(lingers=self._reader.has_begun)
        return keeps_alive

    async def _refuse(self, fault: Fault) -> None:
        with contextlib.suppress(ConnectionEnd):  # the fault itself is what to report
            await self._write(
                answers.answer(
                    fault.status,
                    http_date(time.time()),
                    method=fault.method,
                    version=fault.version,
                    padded=self._reader.padded,
                )
            )
            await self._end(lingers=True)

    async def _skip(self, body: Body) -> bool:
        """Read on to the end of a body; return whether it has come."""
        with trio.move_on_after(NGINX.linger):
            while not body.ended:
                data = await self._read_within(NGINX.pause)
                rest = body.feed(self._reader.take() + data)
                if not data or body.is_wrong:
                    return False
                self._reader.feed(rest)
        return body.ended

    async def _end(self, *, lingers: bool) -> None:
        """End the connection's output, and read on for a while."""
        self._transport.end_output()
        if not lingers:
            return
        with trio.move_on_after(NGINX.linger), contextlib.suppress(ConnectionEnd):
            while await self._read_within(NGINX.pause):
                pass

    async def _read_within(self, seconds: float) -> bytes:
        """Read once; return nothing if the peer has left or nothing comes."""
        with trio.move_on_after(seconds):
            return await self._read()
        return b""

    async def _read(self) -> bytes:
        """Return what comes next; nothing at the end."""
        count = 0
        while not count:
            await self._transport.wait_readable()
            count = self._transport.read_into(self._scratch)
            if not self._budget.spend(max(count, 0)):
                raise HTTPFailed("the request comes in too many pieces")
            if self._pending is not None:
                held = self._reader.held + max(count, 0)
                self._pending.hold(2 * held + self._transport.held)
        return bytes(self._scratch[:count]) if count > 0 else b""

    async def _write(self, data: bytes) -> None:
        self._transport.write(data)
        if self._transport.buffered:
            with trio.move_on_after(NGINX.send) as scope:
                await self._transport.flush()
            if scope.cancelled_caught:
                raise PeerVanished(f"took no answer within {NGINX.send:g} s")
