"""One connection's HTTP, from its first byte to its end or its handoff.

Theory of operation. h11 holds the protocol's state; this file moves bytes between it and the
transport, and keeps the limits:

    waiting for a request     `idle` seconds from the end of the one before
    a request, head and body  `request` seconds from its first byte (the first request: from the
                              start of the connection), else 408
    making an answer          `later` seconds, where it has to be waited for, else 503
    taking an answer          `write` seconds, for each chunk of a stream
    a head                    16 KiB and 100 lines, else 431
    a body                    64 KiB, thrown away (no page wants one), else 413
    pieces of either          a ReadBudget, else 400

A peer that breaks a rule is told so with a status code, and HTTPFailed is raised. Before that, and
wherever an answer was given before all of the request was read, what the peer still sends is read
for a moment: closing a socket with unread bytes makes the kernel send a reset, and a reset can
take the answer away from the peer.

Each read asks for no more than completes a head of 16 KiB. So h11's limit is exact however the
bytes come in, and of a fast-starting client's frames most stay in the transport.
"""

import contextlib
import http
from collections.abc import Callable, Sequence
from email.utils import formatdate
from typing import Any

import attrs
import h11
import trio

from derp import log
from derp.errors import ConnectionEnd, ControlLost, HTTPFailed, PeerVanished
from derp.http.message import (
    Answer,
    BadRequest,
    Handoff,
    Later,
    Request,
    Response,
    Stream,
    Upgrade,
    parse_request,
)
from derp.net.budgets import ReadBudget
from derp.net.transport import Transport
from derp.relay.pending import Pending

logger = log.get("http")

MAX_HEAD = 16 * 1024
MAX_LINES = 100
MAX_BODY = 64 * 1024

_COMPLAINTS = {
    400: "not a well-formed HTTP/1.1 request",
    431: f"the request's head is larger than {MAX_HEAD // 1024} KiB",
    501: "chunked is the only transfer coding known here",
}
_PLAIN_TEXT = (
    ("Content-Type", "text/plain; charset=utf-8"),
    ("X-Content-Type-Options", "nosniff"),
)
_OUR_FAULT = Response(500, (("Connection", "close"),))
_OUR_FAULT_RAW = (
    b"HTTP/1.1 500 Internal Server Error\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
)


@attrs.frozen
class Deadlines:
    """How long each phase may take, in seconds; the Go derper has 30 s for each.

    `later` is its own: who is asked for a page in time, and can't answer, can still say why.
    """

    idle: float = 30.0
    request: float = 30.0
    later: float = 15.0
    write: float = 30.0
    linger: float = 1.0


DEFAULT_DEADLINES = Deadlines()


async def serve(
    transport: Transport,
    route: Callable[[Request], Answer],
    scratch: memoryview,
    deadlines: Deadlines = DEFAULT_DEADLINES,
    pending: Pending | None = None,
) -> Handoff | None:
    """Answer requests until the connection ends or leaves HTTP.

    `route` is asked once for each request; what it raises is logged and answered with a bare 500.
    `scratch` may be shared by all connections. `pending` is told how many bytes are kept. Returns
    None when the peer is done, or idle for too long between requests; closing is up to the caller.
    Raises HTTPFailed for a peer that is wrong or slow, and whatever the transport and `pending`
    raise.
    """
    front = _FrontEnd(transport, route, scratch, deadlines, pending)
    try:
        return await front.run()
    except BadRequest as refusal:
        await front.refuse(refusal)
        raise


class _FrontEnd:
    def __init__(
        self,
        transport: Transport,
        route: Callable[[Request], Answer],
        scratch: memoryview,
        deadlines: Deadlines,
        pending: Pending | None,
    ) -> None:
        self._transport = transport
        self._route = route
        self._scratch = scratch
        self._deadlines = deadlines
        self._pending = pending
        self._conn = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._head: list[bytes] = []
        """What has come in since the end of the request before, up to this one's body."""
        self._budget = ReadBudget()
        """What reading this request may still cost."""
        self._method = b""
        """Of the request being answered; empty until its head has been understood."""
        self._last = False
        """No request can follow this one, whatever h11 thinks."""

    async def run(self) -> Handoff | None:
        exchange = await self._next_request(is_first=True)
        while exchange is not None:
            request, answer = exchange
            if isinstance(answer, Upgrade):
                return await self._hand_over(answer)
            if isinstance(answer, Stream):
                await self._stream(request, answer)
            else:
                if isinstance(answer, Later):
                    answer = await self._wait_for(request, answer)
                await self._write(self._render(answer))
            if self._last:
                await self._linger()
                return None
            if self._conn.our_state is not h11.DONE or self._conn.their_state is not h11.DONE:
                return None
            self._conn.start_next_cycle()
            # A peer may have sent hundreds of requests at once.
            await self._transport.wait_turn()
            exchange = await self._next_request(is_first=False)
        return None

    async def refuse(self, refusal: BadRequest) -> None:
        """Tell the peer, as far as it listens."""
        self._last = True
        answer = Response(refusal.status, _PLAIN_TEXT, f"{refusal}\n".encode())
        with contextlib.suppress(ConnectionEnd):  # the refusal itself is what to report
            await self._write(self._render(answer))
            await self._linger()

    async def _next_request(self, *, is_first: bool) -> tuple[Request, Answer] | None:
        """Read a request and choose its answer; None if the peer is done."""
        self._method = b""
        rest, _ = self._conn.trailing_data
        self._head = [rest] if rest else []
        self._budget = ReadBudget()
        deadlines = self._deadlines
        with trio.move_on_after(deadlines.request if is_first else deadlines.idle) as scope:
            if not is_first:
                if not self._head:
                    self._head += await self._receive()
                scope.deadline = trio.current_time() + deadlines.request
            request = await self._read_head()
            if request is None:
                return None
            answer = self._ask(request)
            if not isinstance(answer, Upgrade):
                await self._discard_body(request)
            return request, answer
        # Many may come to this at the same time.
        await self._transport.wait_turn()
        if self._head:
            raise BadRequest(408, f"no whole request within {deadlines.request:g} s")
        if is_first:
            raise HTTPFailed(f"no request within {deadlines.request:g} s")
        return None

    async def _read_head(self) -> Request | None:
        lines = self._count_lines(0, self._head)
        # Where nothing has come, h11 is not asked: a login is measured in microseconds.
        while not self._head or not isinstance(event := self._next_event(), h11.Request):
            data = await self._receive()
            self._head += data
            if data:
                lines = self._count_lines(lines, data)
                continue
            if self._head:
                raise PeerVanished("closed in the middle of a request's head")
            return None
        self._method = event.method
        headers = [(name.lower(), value) for name, value in event.headers.raw_items()]
        remote = self._transport.remote.host
        return parse_request(event.method, event.target, event.http_version, headers, remote)

    def _count_lines(self, lines: int, pieces: list[bytes]) -> int:
        """Add the lines in `pieces`, the last of the head, to those before; return the sum."""
        # h11 takes its time over each field, and a field may have three bytes.
        lines += sum(piece.count(b"\n") for piece in pieces)
        if lines > MAX_LINES:
            head = b"".join(self._head).partition(b"\r\n\r\n")[0]
            if head.count(b"\n") > MAX_LINES:
                raise BadRequest(431, _COMPLAINTS[431])
        return lines

    async def _discard_body(self, request: Request) -> None:
        if request.has_body and self._conn.they_are_waiting_for_100_continue:
            # No page wants a body: the final answer comes instead of the 100.
            self._last = True
            return
        # As on the wire; the next request may come right behind.
        allowed = MAX_BODY + MAX_HEAD if request.content_length <= MAX_BODY else -1
        while True:
            if allowed < 0:
                raise BadRequest(413, f"the request's body is larger than {MAX_BODY // 1024} KiB")
            event = self._next_event()
            if isinstance(event, h11.EndOfMessage):
                return
            if isinstance(event, h11.Data):
                # A chunk of one byte costs h11 as much as one of a kilobyte.
                self._spend(len(event.data))
            else:
                data = await self._receive()
                if not data:
                    raise PeerVanished("closed in the middle of a request's body")
                allowed -= len(data[0])

    def _next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        try:
            return self._conn.next_event()
        except h11.RemoteProtocolError as error:
            # h11's own words quote the peer, and depend on the pieces that the request came in.
            status = error.error_status_hint
            raise BadRequest(status, _COMPLAINTS.get(status, _COMPLAINTS[400])) from error

    async def _receive(self) -> list[bytes]:
        """Read once and let h11 have it; return it as a list of one, or of none at the end."""
        buffered, _ = self._conn.trailing_data
        view = self._scratch[: MAX_HEAD + 1 - len(buffered)]
        count = 0
        while count == 0:
            await self._transport.wait_readable()
            count = self._transport.read_into(view)
            self._spend(max(count, 0))
            if self._pending is not None:
                # What h11 has is in our own list, too.
                self._pending.hold(2 * (len(buffered) + max(count, 0)) + self._transport.held)
        if count < 0:
            return []
        data = bytes(view[:count])
        self._conn.receive_data(data)
        return [data]

    def _spend(self, received: int) -> None:
        if not self._budget.spend(received):
            raise BadRequest(400, "the request comes in too many pieces")

    def _ask(self, request: Request) -> Answer:
        try:
            return self._route(request)
        except Exception:
            logger.exception("a page failed", **_fields(request))
            return _OUR_FAULT

    async def _wait_for(self, request: Request, later: Later[Any]) -> Response:
        seconds = self._deadlines.later
        reason = f"no answer within {seconds:g} s"
        try:
            with trio.move_on_after(seconds):
                return later.show(await later.ask())
        except ControlLost as lost:
            reason = str(lost)
        except Exception:
            logger.exception("a page failed", **_fields(request))
            return _OUR_FAULT
        logger.warning("a page could not be had", reason=reason, **_fields(request))
        return Response(503, _PLAIN_TEXT, f"this page could not be had: {reason}\n".encode())

    async def _hand_over(self, upgrade: Upgrade) -> Handoff:
        if upgrade.answer:
            await self._write(upgrade.answer)
        leftover, _ = self._conn.trailing_data
        received = b"".join(self._head)
        return Handoff(
            websocket=upgrade.websocket,
            fast_start=upgrade.fast_start,
            ideal_node=upgrade.ideal_node,
            head=received[: len(received) - len(leftover)],
            leftover=leftover,
        )

    def _render(self, response: Response) -> bytes:
        headers = [*response.headers]
        if response.status != 204:
            headers.append(("Content-Length", str(len(response.body))))
        try:
            parts = [self._start(response.status, headers)]
            if response.body and self._method != b"HEAD":
                parts.append(self._conn.send(h11.Data(data=response.body)))
            parts.append(self._conn.send(h11.EndOfMessage()))
        except h11.LocalProtocolError:
            logger.exception("an answer is no HTTP", status=response.status)
            return _OUR_FAULT_RAW
        return b"".join(filter(None, parts))

    async def _stream(self, request: Request, stream: Stream) -> None:
        await self._write(self._start(200, stream.headers))
        if self._method != b"HEAD":
            async with contextlib.aclosing(stream.chunks()) as chunks:
                try:
                    async for chunk in chunks:
                        await self._write(self._conn.send(h11.Data(data=chunk)))
                except ConnectionEnd:
                    raise
                except ControlLost as lost:
                    logger.warning("a stream ended", reason=str(lost), **_fields(request))
                    return
                except Exception:
                    # Left without its end, so that the client sees that something is missing.
                    logger.exception("a stream failed", **_fields(request))
                    return
        await self._write(self._conn.send(h11.EndOfMessage()))

    def _start(self, status: int, headers: Sequence[tuple[str, str]]) -> bytes | None:
        closing = [("Connection", "close")] if self._last else []
        return self._conn.send(
            h11.Response(
                status_code=status,
                headers=[*headers, ("Date", formatdate(usegmt=True)), *closing],
                reason=http.HTTPStatus(status).phrase,
            )
        )

    async def _write(self, data: bytes | None) -> None:
        if not data:
            return
        self._transport.write(data)
        if self._transport.buffered:
            with trio.move_on_after(self._deadlines.write) as scope:
                await self._transport.flush()
            if scope.cancelled_caught:
                raise HTTPFailed(f"took no answer within {self._deadlines.write:g} s")

    async def _linger(self) -> None:
        allowed = 4 * MAX_BODY
        with trio.move_on_after(self._deadlines.linger), contextlib.suppress(ConnectionEnd):
            while allowed > 0:
                await self._transport.wait_readable()
                count = self._transport.read_into(self._scratch)
                if count < 0 or not self._budget.spend(count):
                    return
                allowed -= count


def _fields(request: Request) -> dict[str, object]:
    return {"method": request.method, "path": request.path[:200]}
