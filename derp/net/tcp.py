"""A plain TCP connection as a Transport; the TLS one is built on it.

How it works: the socket is the standard library's, non-blocking, and Trio is asked only to wait
for it. A read that did not fill the buffer has emptied the socket, so the next thing to do is
wait; one that did fill it is followed by a checkpoint instead, or a peer that never stops sending
would keep every other task from running. A write goes straight to the socket; what that does not
take is kept, and `flush` sends it once the socket is writable again.
"""

import contextlib
import socket
from collections.abc import Awaitable, Callable

import trio

from derp.errors import PeerVanished
from derp.net.lobby import Lobby
from derp.net.poller import Loan, Poller, Step
from derp.net.transport import Endpoint
from derp.relay.coalescing import GATHER

RECEIVE_SIZE = 128 << 10
"""Most bytes asked of a socket at a time: it bounds how long one peer's turn takes."""
_ROOM = 1 << 20
"""Bytes that a socket should be able to hold of a stream of which packets gather."""


class TCPTransport:
    """A Transport over a connected, non-blocking TCP socket, which it owns."""

    __slots__ = (
        "_loan",
        "_roomy",
        "_socket",
        "_unsent",
        "lobby",
        "local",
        "more",
        "remote",
        "taken",
    )

    tls_version: str | None = None

    def __init__(self, sock: socket.socket, remote: Endpoint, local: Endpoint) -> None:
        self.remote = remote
        self.local = local
        self._socket = sock
        self._unsent: bytes | memoryview = b""
        # Whether the last read filled its buffer, so that there may be more to read at once.
        self.more = False
        self.lobby: Lobby | None = None
        """Where to wait before login, if set: left for good when the poller reads."""
        self._loan: Loan | None = None
        self._roomy = False
        self.taken = 0

    async def wait_readable(self) -> None:
        """Wait until `read_into` may have something to give. Always a checkpoint."""
        if self.more:
            await self.turn()
        elif self.lobby is None:
            await self._wait(trio.lowlevel.wait_readable)
        else:
            fd = self._open_fd()
            try:
                await self.lobby.readable(fd)
            except (trio.ClosedResourceError, OSError) as error:
                raise PeerVanished("the connection was closed") from error

    async def turn(self) -> None:
        """Let others go first; see Transport."""
        if self.lobby is None:
            await trio.lowlevel.checkpoint()
        else:
            await self.lobby.turn()

    async def read_through(self, poller: Poller, step: Step) -> None:
        """Call `step` until it returns True, or less; see Transport."""
        if self.more:
            await trio.lowlevel.checkpoint()
            step()
            return
        if self.lobby is not None:
            self.lobby.forget(self._open_fd())
            self.lobby = None
        await poller.lend(self._open_fd(), step, self._remember)

    def _remember(self, loan: Loan | None) -> None:
        self._loan = loan

    async def let_gather(self) -> None:
        """Wait GATHER seconds; see Transport."""
        if not self._roomy:
            self._roomy = True
            # A low-water mark makes the kernel give the socket a buffer of twice that size, and
            # go on adapting it to the path; SO_RCVBUF would fix it. Then back to waking us for
            # every byte. Where the first call fails there is nothing to take back.
            with contextlib.suppress(OSError):
                for mark in (_ROOM // 2, 1):
                    self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, mark)
        await trio.sleep(GATHER)

    def read_into(self, view: memoryview) -> int:
        """Copy what has arrived into `view`; see Transport."""
        size = min(len(view), RECEIVE_SIZE)
        received = self._receive(view[:size])
        self.more = received == size
        return received

    def _receive(self, view: memoryview) -> int:
        """Read from the socket: bytes read, 0 for nothing there, -1 for the end."""
        try:
            return self._socket.recv_into(view) or -1
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            raise PeerVanished(_explain(error)) from error

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send `data`, keeping a copy of what the socket does not take; see Transport."""
        if self._unsent:
            self._unsent = bytes(self._unsent) + bytes(data)
            return
        sent = self._send(data)
        if sent < len(data):
            self._unsent = bytes(memoryview(data)[sent:])

    def _send(self, data: bytes | bytearray | memoryview) -> int:
        try:
            sent = self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            raise PeerVanished(_explain(error)) from error
        self.taken += sent
        return sent

    @property
    def unsent(self) -> int:
        """Bytes that `write` has kept."""
        return len(self._unsent)

    @property
    def held(self) -> int:
        """Bytes that are kept, in either direction."""
        return len(self._unsent)

    async def flush(self) -> None:
        """Wait until nothing is unsent; see Transport."""
        while self._unsent:
            await self._wait(trio.lowlevel.wait_writable)
            if sent := self._send(self._unsent):
                self._unsent = memoryview(self._unsent)[sent:]
        self._unsent = b""

    def _open_fd(self) -> int:
        # Trio must not see a closed socket: all have the descriptor -1, and two tasks that wait
        # for the same one are an error.
        if (fd := self._socket.fileno()) == -1:
            raise PeerVanished("the connection was closed")
        return fd

    async def _wait(self, wait: Callable[[socket.socket], Awaitable[None]]) -> None:
        self._open_fd()
        try:
            await wait(self._socket)
        except (trio.ClosedResourceError, OSError) as error:
            raise PeerVanished("the connection was closed") from error

    def abort(self) -> None:
        """Close at once; see Transport."""
        if self._socket.fileno() != -1:
            if self._loan is not None:
                self._loan.end(PeerVanished("the connection was closed"))
            if self.lobby is not None:
                self.lobby.forget(self._socket.fileno())
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()

    def close(self) -> None:
        """Close; what the kernel holds is still sent."""
        self.abort()

    def tcp_info(self) -> bytes:
        """Return the kernel's `struct tcp_info` of this connection (Linux). Raises OSError."""
        return self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)


def _explain(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
