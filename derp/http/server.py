"""One connection's HTTP, from its first byte to its end or its handoff.

h11 holds the protocol's state; this file moves bytes between it and the transport, and keeps the
deadlines:

    waiting for a request     `idle` seconds from the end of the previous one
    a request, head and body  `request` seconds from its first byte (the first request: from the
                              start of the connection), else 408
    awaiting a `Later`        `later` seconds, else 503
    sending an answer         `write` seconds, for each chunk of a stream
    lingering                 `linger` seconds

A peer that breaks a rule is answered with a status code, and HTTPFailed is raised. After an answer
that was sent before the whole request was read, the server lingers, that is, reads on for a moment:
closing a socket with unread bytes sends a reset, by which the peer may lose the answer.
"""

import contextlib
import http
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import attrs
import h11
import trio

from derp import log
from derp.errors import ConnectionEnd, HTTPFailed, RPCFailed
from derp.http.knownheads import KnownHeads
from derp.http.message import (
    Answer,
    BadRequest,
    Handoff,
    Later,
    Overloaded,
    Posted,
    Reply,
    Request,
    Response,
    Stream,
    Upgrade,
)
from derp.http.requestreader import MAX_BODY, MAX_HEAD, RequestReader
from derp.net.transport import Transport
from derp.relay.pending import Pending

logger = log.get("http")

A = TypeVar("A", bound=Answer)

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
_PLAIN_TEXT = (
    ("Content-Type", "text/plain; charset=utf-8"),
    ("X-Content-Type-Options", "nosniff"),
)
_INTERNAL_ERROR = Response(500, (("Connection", "close"),))
_INTERNAL_ERROR_RAW = (
    b"HTTP/1.1 500 Internal Server Error\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
)


@attrs.frozen
class Deadlines:
    """Seconds; 30 each in the Go derper. `later` is shorter, so that a 503 can say what failed."""

    idle: float = 30.0
    request: float = 30.0
    later: float = 15.0
    write: float = 30.0
    linger: float = 1.0


DEFAULT_DEADLINES = Deadlines()


async def serve(  # noqa: PLR0913 -- a caller names all but three
    transport: Transport,
    route: Callable[[Request], Answer],
    scratch: memoryview,
    deadlines: Deadlines = DEFAULT_DEADLINES,
    pending: Pending | None = None,
    *,
    known: KnownHeads | None = None,
    done: Callable[[], None] = lambda: None,
    received: bytes = b"",
) -> Handoff | None:
    """Answer requests until the connection ends or leaves HTTP.

    `route` is called for each request; a ConnectionEnd that it raises ends the connection, as does
    the one in an Overloaded, after an answer; what else it raises is logged and answered with a
    bare 500. `done` is called once a request is answered, before the next one is looked at.
    `scratch` and `known` may be shared by all connections. `pending` counts the bytes kept;
    `received` are bytes that were read already. Returns None when the peer is done, or idle for too
    long between requests; the caller closes the transport. Raises HTTPFailed if the peer breaks a
    rule or a deadline, and what the transport and `pending` raise.
    """
    conn = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
    if received:
        conn.receive_data(received)
    reader = RequestReader(transport, conn, scratch, pending, known or KnownHeads())
    front = _FrontEnd(transport, route, scratch, deadlines, reader, done)
    try:
        return await front.run()
    except BadRequest as refusal:
        await front.refuse(refusal.status, str(refusal))
        raise
    except Overloaded as refusal:
        await front.refuse(refusal.status, str(refusal))
        raise refusal.end from None


class _FrontEnd:
    def __init__(
        self,
        transport: Transport,
        route: Callable[[Request], Answer],
        scratch: memoryview,
        deadlines: Deadlines,
        reader: RequestReader,
        done: Callable[[], None],
    ) -> None:
        self._transport = transport
        self._route = route
        self._scratch = scratch
        self._deadlines = deadlines
        self._done = done
        self._conn = reader.conn
        self._reader = reader
        self._last = False
        """Whether no request may follow this one, whatever h11 says."""

    async def run(self) -> Handoff | None:
        exchange = await self._next_request(is_first=True)
        while exchange is not None:
            request, answer = exchange
            if isinstance(answer, Upgrade):
                return self._hand_off(request, answer)
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
            self._done()
            # A peer may have sent hundreds of requests at once.
            await self._transport.wait_turn()
            exchange = await self._next_request(is_first=False)
        return None

    async def refuse(self, status: int, reason: str) -> None:
        """Send a refusal, and linger."""
        self._last = True
        answer = Response(status, _PLAIN_TEXT, f"{reason}\n".encode())
        with contextlib.suppress(ConnectionEnd):  # the refusal itself is what to report
            await self._write(self._render(answer))
            await self._linger()

    async def _next_request(self, *, is_first: bool) -> tuple[Request, Reply] | None:
        """Read a request and route it; return None if the peer is done."""
        deadlines, reader = self._deadlines, self._reader
        reader.begin()
        request = reader.read_at_once() if is_first else None
        if request is not None and isinstance(answer := self._answer(request), Upgrade):
            return request, answer
        with trio.move_on_after(deadlines.request if is_first else deadlines.idle) as scope:
            if not is_first:
                if not reader.head:
                    reader.head += await reader.receive()
                scope.deadline = trio.current_time() + deadlines.request
            if request is None:
                if (request := await reader.read_head()) is None:
                    return None
                answer = self._answer(request)
            if not isinstance(answer, Upgrade):
                reader.parse_known()
                if isinstance(answer, Posted):
                    return request, await self._reply(request, answer)
                if not await reader.discard_body(request):
                    self._last = True
            return request, answer
        # Many connections may time out at once.
        await self._transport.wait_turn()
        if reader.head:
            raise BadRequest(408, f"no whole request within {deadlines.request:g} s")
        if is_first:
            raise HTTPFailed(f"no request within {deadlines.request:g} s")
        return None

    def _answer(self, request: Request) -> Answer:
        return self._guard(request, partial(self._route, request))

    def _guard(self, request: Request, answer: Callable[[], A]) -> A | Response:
        """Call `answer`; what it raises is logged, and answered with 500."""
        try:
            return answer()
        except (ConnectionEnd, Overloaded):
            raise
        except Exception:
            logger.exception("a page failed", **_fields(request))
            return _INTERNAL_ERROR

    async def _reply(self, request: Request, posted: Posted) -> Reply:
        """Read the body, and return the reply to it."""
        if self._reader.awaits_continue(request) and request.content_length <= posted.most:
            go_on = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")
            await self._write(self._conn.send(go_on))
        body = await self._reader.read_body(request, posted.most)
        return self._guard(request, partial(posted.reply, body))

    async def _wait_for(self, request: Request, later: Later[Any]) -> Response:
        seconds = self._deadlines.later
        reason = f"no answer within {seconds:g} s"
        try:
            with trio.move_on_after(seconds):
                return later.show(await later.ask())
        except RPCFailed as lost:
            reason = str(lost)
        except Exception:
            logger.exception("a page failed", **_fields(request))
            return _INTERNAL_ERROR
        logger.warning("a page is unavailable", reason=reason, **_fields(request))
        return Response(503, _PLAIN_TEXT, f"this page is unavailable: {reason}\n".encode())

    def _hand_off(self, request: Request, upgrade: Upgrade) -> Handoff:
        head, leftover = self._reader.whole_head()
        if not upgrade.websocket:
            # The head of a websocket has a key that is never the same.
            self._reader.remember(head, request)
        return Handoff(
            answer=upgrade.answer,
            websocket=upgrade.websocket,
            fast_start=upgrade.fast_start,
            ideal_node=upgrade.ideal_node,
            head=head,
            leftover=leftover,
        )

    def _render(self, response: Response) -> bytes:
        headers = [*response.headers]
        if response.status != 204:
            headers.append(("Content-Length", str(len(response.body))))
        try:
            parts = [self._start(response.status, headers)]
            if response.body and self._reader.method != b"HEAD":
                parts.append(self._conn.send(h11.Data(data=response.body)))
            parts.append(self._conn.send(h11.EndOfMessage()))
        except h11.LocalProtocolError:
            logger.exception("an answer is not valid HTTP", status=response.status)
            return _INTERNAL_ERROR_RAW
        return b"".join(filter(None, parts))

    async def _stream(self, request: Request, stream: Stream) -> None:
        await self._write(self._start(200, stream.headers))
        if self._reader.method != b"HEAD":
            async with contextlib.aclosing(stream.chunks()) as chunks:
                try:
                    async for chunk in chunks:
                        if not stream.is_allowed():
                            logger.info("a stream ended", reason="no access", **_fields(request))
                            break
                        await self._write(self._conn.send(h11.Data(data=chunk)))
                except ConnectionEnd:
                    raise
                except RPCFailed as lost:
                    logger.warning("a stream ended", reason=str(lost), **_fields(request))
                    return
                except Exception:
                    # No EndOfMessage, so that the client sees that something is missing.
                    logger.exception("a stream failed", **_fields(request))
                    return
        await self._write(self._conn.send(h11.EndOfMessage()))

    def _start(self, status: int, headers: Sequence[tuple[str, str]]) -> bytes | None:
        closing = [("Connection", "close")] if self._last else []
        return self._conn.send(
            h11.Response(
                status_code=status,
                headers=[*headers, ("Date", http_date(time.time())), *closing],
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
                if count < 0:
                    return
                self._reader.spend(count)
                allowed -= count


def _fields(request: Request) -> dict[str, object]:
    return {"method": request.method, "path": request.path[:200]}


def http_date(seconds: float) -> str:
    """Return a Unix time as an HTTP date (RFC 9110, 5.6.7).

    As email.utils.formatdate, whose module would also load parsers of email.
    """
    when = time.gmtime(seconds)
    day, month = _DAYS[when.tm_wday], _MONTHS[when.tm_mon - 1]
    return f"{day}, {when.tm_mday:02} {month} {time.strftime('%Y %H:%M:%S', when)} GMT"
