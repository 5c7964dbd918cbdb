"""A websocket as a Transport: DERP inside binary messages, whose boundaries mean nothing.

How it works: trio-websocket answers the opening handshake and nothing more: its reader would cost
more per packet than all else in the relay, and a task and a nursery per client. After that, frames
are parsed and built by `derp.wire.websocket` on the Transport below, without waiting: the
payloads of all frames in one read become one train of DERP frames. Between two reads only a frame
that has not come as a whole is kept, unless a client sends tiny frames by the thousand, or payload
is longer than the caller's view: then other tasks run in between, and the rest waits.

Invariants: no await in `read_into` or `write`, since all clients share the caller's buffer; nothing
is written after a Close frame; at most one pong is kept, since a peer may ping and never read.
"""

import contextlib
from typing import Final

import trio
import trio_websocket

from derp.errors import ConnectionEnd, HTTPFailed, PeerVanished
from derp.net.address import Endpoint
from derp.net.poller import Poller, Step
from derp.net.transport import Transport
from derp.wire.websocket import NORMAL_CLOSE, Ending, FrameParser, messages

SUBPROTOCOL: Final = "derp"
HANDSHAKE_TIMEOUT: Final = 10
"""Seconds."""


class WebSocketTransport:
    """A Transport over an accepted websocket; it owns the Transport below.

    `leftover`: bytes received after the request.
    """

    __slots__ = (
        "_below",
        "_closed",
        "_ending",
        "_leftover",
        "_parser",
        "_payload",
        "_pong",
        "remote",
        "tls_version",
    )

    def __init__(self, below: Transport, leftover: bytes) -> None:
        self.remote: Endpoint = below.remote
        self.tls_version = below.tls_version
        self._below = below
        # Bytes of frames that were read and not parsed.
        self._leftover = memoryview(leftover)
        self._parser = FrameParser()
        # Payload that did not fit into the view.
        self._payload = memoryview(b"")
        # The end of the stream, if it follows the data returned last.
        self._ending: Ending | None = None
        # The pong that waits until nothing is buffered; a newer one replaces it.
        self._pong = b""
        # Whether nothing may be written any more: a Close frame was sent, if there was room.
        self._closed = False

    @property
    def local(self) -> Endpoint:
        """The address at which the connection arrived; see Transport."""
        return self._below.local

    async def wait_readable(self) -> None:
        """Wait until `read_into` may have data; see Transport."""
        if self._has_more:
            await self._below.wait_turn()
            return
        await self._below.wait_readable()

    async def wait_turn(self) -> None:
        """Let others run first; see Transport."""
        await self._below.wait_turn()

    @property
    def _has_more(self) -> bool:
        return bool(self._leftover or self._payload) or self._ending is not None

    @property
    def more(self) -> bool:
        """Whether there may be more to read without waiting; see Transport."""
        return self._has_more or self._below.more

    async def read_through(self, poller: Poller, step: Step) -> None:
        """Call `step` until it returns True; see Transport."""
        if self._has_more:
            await trio.lowlevel.checkpoint()
            step()
            return
        await self._below.read_through(poller, step)

    def read_into(self, view: memoryview) -> int:
        """Copy the payload of what has arrived into `view`; see Transport.

        Raises HTTPFailed if the peer breaks a rule of RFC 6455.
        """
        if not self._payload and self._ending is None:
            frames = self._leftover
            if not frames:
                received = self._below.read_into(view)
                if received <= 0:
                    if received and self._parser.kept:
                        raise PeerVanished("the connection was closed in the middle of a message")
                    return received
                frames = view[:received]
            payload, consumed, pong, self._ending = self._parser.receive(frames)
            self._payload = memoryview(payload)
            # A copy, since `view` is the caller's.
            self._leftover = memoryview(bytes(frames[consumed:]))
            if pong:
                self._answer(pong)
        if self._ending is not None and not self._payload:
            # Only now, so that answers to the data before the end are sent before a Close frame.
            return self._end(self._ending)
        count = min(len(self._payload), len(view))
        view[:count] = self._payload[:count]
        self._payload = self._payload[count:]
        return count

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send `data` as messages; see Transport."""
        if self._closed:
            raise PeerVanished("the websocket was closed")
        self._below.write(messages(data))

    @property
    def buffered(self) -> int:
        """Bytes that the socket has yet to take; see Transport."""
        return self._below.buffered

    @property
    def held(self) -> int:
        """Bytes held in either direction; see Transport."""
        kept = len(self._leftover) + len(self._payload) + self._parser.kept
        return kept + self._below.held

    @property
    def bytes_written(self) -> int:
        """Bytes that the socket has taken; see Transport."""
        return self._below.bytes_written

    def tcp_info(self) -> bytes:
        """Return the kernel's struct of the connection below; see Transport."""
        return self._below.tcp_info()

    def end_received(self) -> bool:
        """Return whether the stream of the connection below ended; see Transport."""
        return self._below.end_received()

    async def flush(self) -> None:
        """Wait until nothing is buffered; see Transport."""
        await self._below.flush()
        while self._pong and not self._closed:
            pong, self._pong = self._pong, b""
            self._below.write(pong)
            await self._below.flush()

    def abort(self) -> None:
        """Close the connection below at once; see Transport."""
        self._below.abort()

    def close(self) -> None:
        """Send a Close frame if the socket takes it at once, then close.

        The peer's own Close frame is not waited for.
        """
        self._send_close(NORMAL_CLOSE)
        self._below.close()

    def _answer(self, pong: bytes) -> None:
        """Send a pong, at once or after what is buffered."""
        if self._below.buffered:
            self._pong = pong
        else:
            # If the peer has gone, a later read raises PeerVanished, after the data before that.
            with contextlib.suppress(PeerVanished):
                self._below.write(pong)

    def _end(self, ending: Ending) -> int:
        self._send_close(ending.close)
        if ending.complaint:
            raise HTTPFailed(f"the websocket client {ending.complaint}")
        return -1

    def _send_close(self, frame: bytes) -> None:
        if self._closed:
            return
        self._closed = True
        if not self._below.buffered:
            with contextlib.suppress(ConnectionEnd):
                self._below.write(frame)


class _HandshakeStream(trio.abc.Stream):
    """The stream that trio-websocket gets: it receives the request and then nothing more."""

    def __init__(self, transport: Transport, request: bytes) -> None:
        self.transport = transport
        self.failure: ConnectionEnd | None = None
        """Why the answer could not be sent."""
        self._request = request

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return the rest of the request, then wait for ever."""
        if not self._request:
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        size = max_bytes or len(self._request)
        data, self._request = self._request[:size], self._request[size:]
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        try:
            self.transport.write(data)
            await self.transport.flush()
        except ConnectionEnd as error:
            self.failure = error
            raise trio.BrokenResourceError from error

    async def wait_send_all_might_not_block(self) -> None:
        await self.transport.flush()

    async def aclose(self) -> None:
        self.transport.close()
        await trio.lowlevel.checkpoint()


async def accept(transport: Transport, request: bytes, leftover: bytes) -> WebSocketTransport:
    """Answer the websocket handshake whose HTTP request was read already.

    `request` is the request's head, `leftover` the bytes received after it. Any origin is accepted.
    Nothing is compressed: WireGuard's packets can't be. Raises HTTPFailed for an invalid handshake,
    or one not done within HANDSHAKE_TIMEOUT.
    """
    stream = _HandshakeStream(transport, request)
    # Raised after the nursery, which would wrap it in an exception group.
    failure: ConnectionEnd | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                with trio.move_on_after(HANDSHAKE_TIMEOUT) as deadline:
                    await _open_handshake(nursery, stream)
                if deadline.cancelled_caught:
                    failure = HTTPFailed(f"no websocket handshake within {HANDSHAKE_TIMEOUT} s")
            except ConnectionEnd as error:
                failure = error
            # trio-websocket's own task waits for more of the stream, and has nothing to undo.
            nursery.cancel_scope.cancel()
    except* UnicodeError:
        # From trio-websocket's task, for a header that is not ASCII.
        failure = failure or HTTPFailed("the peer breaks the websocket protocol")
    if failure is not None:
        raise failure
    return WebSocketTransport(transport, leftover)


async def _open_handshake(nursery: trio.Nursery, stream: _HandshakeStream) -> None:
    try:
        proposal = await trio_websocket.wrap_server_stream(nursery, stream)
        if SUBPROTOCOL not in proposal.proposed_subprotocols:
            await proposal.reject(400)
            raise HTTPFailed(f"websocket without the subprotocol {SUBPROTOCOL}")
        await proposal.accept(subprotocol=SUBPROTOCOL)
    except (trio_websocket.ConnectionClosed, trio.BrokenResourceError) as error:
        raise stream.failure or PeerVanished("closed during the websocket handshake") from error
