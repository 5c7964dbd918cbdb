"""A Transport without a socket: two ends in one process, for tests.

    here, there = memory_pair(capacity=1000)

What one end writes the other reads, in pieces no larger than they were written. Each direction
holds at most `capacity` unread bytes; what does not fit stays `buffered` until `flush`, as a socket
with full buffers would have it. Misuse (two readers, a write on top of something unsent) fails
the test that does it.

A test that plays the client has these beside the Transport's own methods:

    await end.send(data)        write, then flush
    await end.receive()         all that has come so far, waiting for something; b"" at the end
    await end.receive_all()     everything up to the end
    end.send_eof()              no more from this side, but it still reads
    end.wake()                  makes the other end readable with nothing to read
    end.abort()                 resets: the other end gets PeerVanished
"""

from collections import deque

import trio

from derp.errors import PeerVanished
from derp.net.address import Endpoint
from derp.net.poller import Poller, Step

SERVER = Endpoint("198.51.100.1", 443)
CLIENT = Endpoint("192.0.2.7", 40000)

PATIENCE = 1000.0
"""Seconds that `receive` waits: longer than any deadline under test."""


class MemoryTransport:
    """One end. Made by `memory_pair`."""

    peer: "MemoryTransport"

    def __init__(
        self, local: Endpoint, remote: Endpoint, capacity: int, tls_version: str | None
    ) -> None:
        self.local = local
        self.remote = remote
        self.tls_version = tls_version
        self.capacity = capacity
        self.bytes_written = 0
        self.closed = False
        """Whether this end was closed, by `close` or `abort`."""
        self.was_reset = False
        """Whether one of the ends was closed by `abort`."""
        self._inbox: deque[bytes] = deque()
        self._at_end = False
        self._poked = False
        self._buffered = b""
        self._reading = False
        self._flushing = False
        self._changed = trio.Event()

    async def wait_readable(self) -> None:
        await trio.lowlevel.checkpoint()
        assert not self._reading, "two tasks read one transport"
        self._reading = True
        try:
            while not (self._inbox or self._at_end or self._poked or self._dead):
                await self._changed.wait()
        finally:
            self._reading = False
        self._poked = False
        if self.closed:
            raise PeerVanished("the connection was closed")

    def read_into(self, view: memoryview) -> int:
        if not self._inbox:
            self._check()
            return -1 if self._at_end else 0
        piece = self._inbox.popleft()
        count = min(len(view), len(piece))
        view[:count] = piece[:count]
        if count < len(piece):
            self._inbox.appendleft(piece[count:])
        self.peer._signal()
        return count

    more = False

    def tcp_info(self) -> bytes:
        raise OSError("this is no socket")

    def end_received(self) -> bool:
        raise OSError("this is no socket")

    async def wait_turn(self) -> None:
        await trio.lowlevel.checkpoint()

    async def read_through(self, poller: Poller, step: Step) -> None:
        await self.wait_readable()
        step()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self._buffered, "write while something is unsent"
        self._check()
        self._buffered = bytes(data)
        self._push()

    @property
    def buffered(self) -> int:
        return len(self._buffered)

    @property
    def held(self) -> int:
        return len(self._buffered)

    async def flush(self) -> None:
        assert not self._flushing, "two tasks flush one transport"
        await trio.lowlevel.checkpoint()
        self._flushing = True
        try:
            while self._buffered:
                self._check()
                self._push()
                if self._buffered:
                    await self._changed.wait()
        finally:
            self._flushing = False

    def abort(self) -> None:
        if self.closed:
            return
        self.closed = True
        for end in (self, self.peer):
            end.was_reset = True
            end._inbox.clear()
            end._signal()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            if self._inbox:
                # To close with unread bytes is to reset. The other end can still read what it
                # has, as on Linux; other systems throw that away.
                self.peer.was_reset = True
            self.peer._at_end = True
            self._signal()
            self.peer._signal()

    async def aclose(self) -> None:
        self.close()
        await trio.lowlevel.checkpoint()

    async def send(self, data: bytes) -> None:
        self.write(data)
        await self.flush()

    async def receive(self) -> bytes:
        """Raises trio.TooSlowError where nothing comes, PeerVanished after a reset."""
        buffer = memoryview(bytearray(1 << 16))
        count = 0
        with trio.fail_after(PATIENCE):
            while count == 0:
                await self.wait_readable()
                count = self.read_into(buffer)
        return bytes(buffer[: max(count, 0)])

    async def receive_all(self) -> bytes:
        received = b""
        while data := await self.receive():
            received += data
        return received

    def end_output(self) -> None:
        """As TCPTransport does."""
        self.send_eof()

    def send_eof(self) -> None:
        self.peer._at_end = True
        self.peer._signal()

    def wake(self) -> None:
        self.peer._poked = True
        self.peer._signal()

    @property
    def _dead(self) -> bool:
        return self.closed or self.was_reset

    def _check(self) -> None:
        if self._dead:
            raise PeerVanished("the connection was reset")

    def _push(self) -> None:
        if self.peer.closed:
            # Nobody will read it; a real peer would answer with a reset.
            self._buffered = b""
            self.was_reset = True
            return
        room = self.capacity - sum(map(len, self.peer._inbox))
        piece, self._buffered = self._buffered[:room], self._buffered[room:]
        self.bytes_written += len(piece)
        if piece:
            self.peer._inbox.append(piece)
            self.peer._signal()

    def _signal(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


def memory_pair(
    *,
    capacity: int = 1 << 20,
    client: Endpoint = CLIENT,
    server: Endpoint = SERVER,
    tls_version: str | None = "TLSv1.3",
) -> tuple[MemoryTransport, MemoryTransport]:
    """Return the client's end and the server's."""
    here = MemoryTransport(client, server, capacity, tls_version)
    there = MemoryTransport(server, client, capacity, tls_version)
    here.peer, there.peer = there, here
    return here, there
