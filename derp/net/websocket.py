"""A websocket as a Transport, through trio-websocket.

A browser's client speaks DERP inside binary messages, whose borders mean nothing. The front end
has already read the HTTP request, so trio-websocket is given a stream that begins with the bytes
of that request and goes on with the connection.
"""

import contextlib
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Final

import trio
import trio_websocket
from wsproto.utilities import ProtocolError

from derp.errors import ConnectionEnd, HTTPFailed, PeerVanished
from derp.net.transport import Endpoint, Transport

SUBPROTOCOL: Final = "derp"
MAX_MESSAGE: Final = 256 << 10
"""Bytes of the longest message taken. The original closes the connection at 32 KiB."""
MAX_UNFINISHED: Final = 512 << 10
"""Bytes taken of a client that does not finish a message: fragments may be as small as nothing."""
MESSAGE_SIZE: Final = 16 << 10
"""Bytes of the longest message sent. Go's websocket client closes the connection at 32 KiB."""
_MESSAGES_AHEAD: Final = 4
# trio-websocket acts on all that it reads without letting others run, and a frame may have 6 bytes.
_RECEIVE_SIZE: Final = 4 << 10
_CLOSE_TIMEOUT: Final = 2
HANDSHAKE_TIMEOUT: Final = 10
"""Seconds."""


class ReplayStream(trio.abc.Stream):
    """A Trio stream that yields a request, then waits for `opened`, then yields all the rest.

    `behind` is what was read behind the request. The wait is needed because wsproto loses what
    it is given between a request and its answer.
    """

    def __init__(self, transport: Transport, request: bytes, behind: bytes = b"") -> None:
        self.opened = trio.Event()
        self.unfinished = 0
        """Bytes received since the last message was taken."""
        self.failure: ConnectionEnd | None = None
        """Why the stream broke."""
        self._transport = transport
        self._request = request
        self._behind = behind

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return what has arrived, b"" at the end."""
        size = max_bytes or _RECEIVE_SIZE
        if self._request:
            await trio.lowlevel.checkpoint()
            data, self._request = self._request[:size], self._request[size:]
            return data
        await self.opened.wait()
        if self._behind:
            data, self._behind = self._behind[:size], self._behind[size:]
            return data
        buffer = memoryview(bytearray(size))
        try:
            while True:
                await self._transport.wait_readable()
                if received := self._transport.read_into(buffer):
                    self.unfinished += received
                    if self.unfinished > MAX_UNFINISHED:
                        raise HTTPFailed("websocket message in too many pieces")
                    return bytes(buffer[: max(received, 0)])
        except ConnectionEnd as error:
            self.failure = error
            raise trio.BrokenResourceError from error

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send everything."""
        try:
            self._transport.write(data)
            await self._transport.flush()
        except ConnectionEnd as error:
            self.failure = self.failure or error
            raise trio.BrokenResourceError from error

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until what was written has been sent."""
        await self._transport.flush()

    async def aclose(self) -> None:
        """Close the transport below."""
        await self._transport.aclose()


class WebSocketTransport:
    """A Transport over an accepted websocket: writes are kept, and sent as messages by `flush`."""

    def __init__(self, connection: Any, stream: ReplayStream, below: Transport) -> None:
        self.remote: Endpoint = below.remote
        self.local: Endpoint = below.local
        self.tls_version = below.tls_version
        self._connection = connection
        self._stream = stream
        self._below = below
        self._received = b""
        self._ended = False
        self._unsent: deque[bytes] = deque()
        self.taken = 0

    async def wait_readable(self) -> None:
        """Wait for the next message, unless the last one was not read to its end."""
        if self._received or self._ended:
            await trio.lowlevel.checkpoint()
            return
        try:
            message = await self._connection.get_message()
        except trio_websocket.ConnectionClosed:
            if self._stream.failure is not None:
                raise self._stream.failure from None
            self._ended = True
            return
        self._stream.unfinished = 0
        if isinstance(message, str):
            raise HTTPFailed("websocket message is text, expected binary")
        self._received = message

    def read_into(self, view: memoryview) -> int:
        """Copy out what the last message holds; see Transport."""
        if self._ended:
            return -1
        size = min(len(view), len(self._received))
        view[:size] = self._received[:size]
        self._received = self._received[size:]
        return size

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep `data` for `flush`; see Transport."""
        data = bytes(data)
        for start in range(0, len(data), MESSAGE_SIZE):
            self._unsent.append(data[start : start + MESSAGE_SIZE])

    @property
    def unsent(self) -> int:
        """Bytes that `write` has kept."""
        return sum(map(len, self._unsent))

    async def flush(self) -> None:
        """Send what was kept; see Transport."""
        while self._unsent:
            try:
                await self._connection.send_message(self._unsent[0])
            except trio_websocket.ConnectionClosed as error:
                raise PeerVanished("the websocket was closed") from error
            self.taken += len(self._unsent.popleft())

    def abort(self) -> None:
        """Close the connection below at once; see Transport."""
        self._below.abort()

    async def aclose(self) -> None:
        """Send a close message, then close."""
        with trio.move_on_after(_CLOSE_TIMEOUT):
            await self._connection.aclose()
        self._below.abort()


@contextlib.asynccontextmanager
async def accept(
    transport: Transport, request: bytes, behind: bytes
) -> AsyncIterator[WebSocketTransport]:
    """Answer the websocket handshake whose HTTP request was read already.

    `request` is the request's head, `behind` what has been received after it.
    Any origin is welcome, and nothing is compressed: WireGuard's packets can't be.
    Raises HTTPFailed where it is no proper handshake, or not done within HANDSHAKE_TIMEOUT.
    """
    stream = ReplayStream(transport, request, behind)
    # A nursery would wrap what the body raises into an exception group.
    failure: ConnectionEnd | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                connection = None
                with trio.move_on_after(HANDSHAKE_TIMEOUT):
                    connection = await _shake_hands(nursery, stream)
                if connection is None:
                    raise HTTPFailed(f"no websocket handshake within {HANDSHAKE_TIMEOUT} s")
                yield WebSocketTransport(connection, stream, transport)
            except ConnectionEnd as error:
                failure = error
            finally:
                nursery.cancel_scope.cancel()
    except* (UnicodeError, ProtocolError):
        # From trio-websocket's own task: a header that wsproto can't decode, a frame out of turn.
        failure = failure or HTTPFailed("the peer breaks the websocket protocol")
    if failure is not None:
        raise failure


async def _shake_hands(nursery: trio.Nursery, stream: ReplayStream) -> Any:
    try:
        proposal = await trio_websocket.wrap_server_stream(
            nursery,
            stream,
            max_message_size=MAX_MESSAGE,
            message_queue_size=_MESSAGES_AHEAD,
            receive_buffer_size=_RECEIVE_SIZE,
        )
        if SUBPROTOCOL not in proposal.proposed_subprotocols:
            await proposal.reject(400)
            raise HTTPFailed(f"websocket without the subprotocol {SUBPROTOCOL}")
        connection = await proposal.accept(subprotocol=SUBPROTOCOL)
    except (trio_websocket.ConnectionClosed, trio.BrokenResourceError) as error:
        raise stream.failure or PeerVanished("closed during the websocket handshake") from error
    stream.opened.set()
    return connection
