"""The requests of one connection, read by h11 within limits.

    a head                    16 KiB and 100 lines, else 431
    a body                    64 KiB, discarded unless the page needs it, else 413
    reads                     a ReadBudget for each request, else 400

A head that is known (`knownheads`) isn't parsed again.

A read never goes beyond a head of 16 KiB. So h11's limit is exact however the bytes come in, and
most of a fast-starting client's frames stay in the transport.
"""

from typing import cast

import h11

from derp.errors import PeerVanished, ProxyNotListed
from derp.http.knownheads import KnownHeads
from derp.http.message import BadRequest, Request, parse_request
from derp.net.budgets import ReadBudget
from derp.net.transport import Transport
from derp.relay.pending import Pending
from derp.wire.proxyprotocol import begins_with_header

MAX_HEAD = 16 * 1024
MAX_LINES = 100
MAX_BODY = 64 * 1024

_COMPLAINTS = {
    400: "not a well-formed HTTP/1.1 request",
    431: f"the request's head is larger than {MAX_HEAD // 1024} KiB",
    501: "chunked is the only transfer coding supported",
}


class RequestReader:
    """A reader that feeds `conn` from `transport`; `pending` counts the bytes kept."""

    def __init__(
        self,
        transport: Transport,
        conn: h11.Connection,
        scratch: memoryview,
        pending: Pending | None,
        known: KnownHeads,
    ) -> None:
        self._transport = transport
        self.conn = conn
        self._scratch = scratch
        self._pending = pending
        self._known = known
        self.known_head = b""
        """The current head if it was known: h11 has its bytes, but has not parsed them."""
        self.head: list[bytes] = []
        """The pieces that hold the current request's head, and maybe bytes after it."""
        self.method = b""
        """The current request's method; empty until its head has been parsed."""
        self._budget = ReadBudget()

    def begin(self) -> None:
        """Begin the next request."""
        self.method = b""
        rest, _ = self.conn.trailing_data
        self.head = [rest] if rest else []
        self._budget = ReadBudget()

    def read_at_once(self) -> Request | None:
        """Return the first request if it is here and known; wait for nothing."""
        if not self.head:
            if not self._transport.more:
                return None
            self.head = self.receive_now() or []
        return self._find_known()

    def _find_known(self) -> Request | None:
        """Return the request of the first head if that is known and came in one piece."""
        if len(self.head) != 1:
            return None
        found = self._known.find(self.head[0], self._transport.remote.host)
        if found is None:
            return None
        self.known_head, request = found
        return request

    def remember(self, head: bytes, request: Request) -> None:
        """Have the head of the current request known from now on."""
        if not self.known_head:
            self._known.add(head, request)

    def parse_known(self) -> None:
        """Have h11 parse a head that was known: the connection does not leave HTTP."""
        if self.known_head:
            self.known_head = b""
            self.method = cast("h11.Request", self._next_event()).method

    def whole_head(self) -> tuple[bytes, bytes]:
        """Return the head as received, with its final empty line, and what followed it."""
        received = b"".join(self.head)
        if self.known_head:
            size = len(self.known_head)
        else:
            size = len(received) - len(self.conn.trailing_data[0])
        return received[:size], received[size:]

    async def read_head(self) -> Request | None:
        """Read a request's head; return None if the peer closed the connection before it."""
        is_first = not self.head
        lines = self._count_lines(0, self.head)
        # h11 is slow, so it's called only if something was received.
        while not self.head or not isinstance(event := self._next_event(), h11.Request):
            data = await self.receive()
            self.head += data
            if data:
                lines = self._count_lines(lines, data)
                if is_first:
                    if (request := self._find_known()) is not None:
                        return request
                    if begins_with_header(b"".join(self.head)):
                        raise ProxyNotListed
                continue
            if self.head:
                raise PeerVanished("closed in the middle of a request's head")
            return None
        self.method = event.method
        headers = [(name.lower(), value) for name, value in event.headers.raw_items()]
        remote = self._transport.remote.host
        return parse_request(event.method, event.target, event.http_version, headers, remote)

    def _count_lines(self, lines: int, pieces: list[bytes]) -> int:
        """Return `lines` plus the lines in `pieces`, the newest of the head. Raises BadRequest."""
        # Bounded, since h11 takes long for each field, even one of three bytes.
        lines += sum(piece.count(b"\n") for piece in pieces)
        if lines > MAX_LINES:
            head = b"".join(self.head).partition(b"\r\n\r\n")[0]
            if head.count(b"\n") > MAX_LINES:
                raise BadRequest(431, _COMPLAINTS[431])
        return lines

    async def discard_body(self, request: Request) -> bool:
        """Read and discard the body; return whether another request may follow."""
        if self.awaits_continue(request):
            # The final answer is sent instead of the 100.
            return False
        await self._read_body(request, MAX_BODY, None)
        return True

    def awaits_continue(self, request: Request) -> bool:
        """Return whether the peer sends the body only after a 100 (RFC 9110, 10.1.1)."""
        return request.has_body and self.conn.they_are_waiting_for_100_continue

    async def read_body(self, request: Request, most: int) -> bytes:
        """Read and return the body. Raises BadRequest if it has more than `most` bytes."""
        body = bytearray()
        await self._read_body(request, most, body)
        return bytes(body)

    async def _read_body(self, request: Request, most: int, body: bytearray | None) -> None:
        """Read the body into `body`, if that is given. Raises BadRequest."""
        # Bytes as on the wire; the next request may follow at once.
        allowed = most + MAX_HEAD if request.content_length <= most else -1
        while True:
            if allowed < 0 or (body is not None and len(body) > most):
                raise BadRequest(413, f"the request's body is larger than {most // 1024} KiB")
            event = self._next_event()
            if isinstance(event, h11.EndOfMessage):
                return
            if isinstance(event, h11.Data):
                # A chunk of one byte costs as much as one of a kilobyte.
                self.spend(len(event.data))
                if body is not None:
                    body += event.data
            else:
                data = await self.receive()
                if not data:
                    raise PeerVanished("closed in the middle of a request's body")
                allowed -= len(data[0])

    def _next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        try:
            return self.conn.next_event()
        except h11.RemoteProtocolError as error:
            # h11's own message quotes the peer, and depends on how the bytes were split.
            status = error.error_status_hint
            raise BadRequest(status, _COMPLAINTS.get(status, _COMPLAINTS[400])) from error

    async def receive(self) -> list[bytes]:
        """Read once and feed h11; return the bytes in a list, which is empty at the end."""
        data = None
        while data is None:
            await self._transport.wait_readable()
            data = self.receive_now()
        return data

    def receive_now(self) -> list[bytes] | None:
        """Do as `receive` does, but return None if nothing has come."""
        buffered, _ = self.conn.trailing_data
        view = self._scratch[: MAX_HEAD + 1 - len(buffered)]
        count = self._transport.read_into(view)
        self.spend(max(count, 0))
        if self._pending is not None:
            # Twice, since h11 has a copy of what is in `head`.
            self._pending.hold(2 * (len(buffered) + max(count, 0)) + self._transport.held)
        if count == 0:
            return None
        if count < 0:
            return []
        data = bytes(view[:count])
        self.conn.receive_data(data)
        return [data]

    def spend(self, received: int) -> None:
        """Count a read of `received` bytes. Raises BadRequest if it exceeds the budget."""
        if not self._budget.spend(received):
            raise BadRequest(400, "the request comes in too many pieces")
