"""A plain TCP connection as a Transport; the TLS one is built on it.

How it works: the socket is the standard library's, non-blocking; Trio only waits for it. A read
that didn't fill the buffer has emptied the socket, so the task waits; one that did fill it is
followed by a checkpoint instead, or a peer that never stops sending would starve other tasks. A
write goes straight to the socket; `flush` sends the rest once the socket is writable again.
"""

import socket
from collections.abc import Awaitable, Callable

import trio

from derp.errors import PeerVanished
from derp.net import streamend, system
from derp.net.address import Endpoint, endpoint
from derp.net.oserrors import reason
from derp.net.poller import Poller, Registration, Step
from derp.net.prelogin import PreLoginScheduler

RECEIVE_SIZE = 128 << 10
"""Most bytes read at a time: bounds the time of one peer's step."""


class TCPTransport:
    """A Transport over a connected, non-blocking TCP socket, which it owns."""

    __slots__ = (
        "_buffered",
        "_local",
        "_registration",
        "_socket",
        "_waiting",
        "bytes_written",
        "more",
        "remote",
        "scheduler",
    )

    tls_version: str | None = None

    def __init__(
        self, sock: socket.socket, remote: Endpoint, local: Endpoint | None = None
    ) -> None:
        self.remote = remote
        self._local = local
        self._socket = sock
        # Tasks that wait for the socket, though not those that the poller wakes.
        self._waiting = 0
        self._buffered: bytes | memoryview = b""
        # Whether the last read filled its buffer, so that there may be more data.
        self.more = False
        self.scheduler: PreLoginScheduler | None = None
        """Schedules this connection before login; None from its first `read_through` on."""
        self._registration: Registration | None = None
        self.bytes_written = 0

    @property
    def local(self) -> Endpoint:
        """The address at which the connection arrived. Raises PeerVanished."""
        if self._local is None:
            try:
                self._local = endpoint(self._socket.getsockname())
            except OSError as error:
                raise PeerVanished(reason(error)) from error
        return self._local

    async def wait_readable(self) -> None:
        """Wait until `read_into` may have data. Always a checkpoint."""
        if self.more:
            await self.wait_turn()
        elif self.scheduler is None:
            await self._wait(trio.lowlevel.wait_readable)
        else:
            await self._wait(self.scheduler.wait_readable)

    async def peek(self) -> bytes:
        """Wait for the first byte, and leave it; return nothing at the end. Raises PeerVanished."""
        while True:
            await self.wait_readable()
            try:
                return self._socket.recv(1, socket.MSG_PEEK)
            except (BlockingIOError, InterruptedError):
                continue
            except OSError as error:
                raise PeerVanished(reason(error)) from error

    async def wait_turn(self) -> None:
        """Let others run first; see Transport."""
        if self.scheduler is None:
            await trio.lowlevel.checkpoint()
        else:
            await self.scheduler.wait_turn()

    async def read_through(self, poller: Poller, step: Step) -> None:
        """Call `step` until it returns True, or once; see Transport."""
        if self.more:
            await trio.lowlevel.checkpoint()
            step()
            return
        if self.scheduler is not None:
            self.scheduler.forget(self._open_fd())
            self.scheduler = None
        if not await poller.register(self._open_fd(), step, self._on_registration):
            await self._wait(trio.lowlevel.wait_readable)
            step()

    def _on_registration(self, registration: Registration | None) -> None:
        self._registration = registration

    def read_into(self, view: memoryview) -> int:
        """Copy what has arrived into `view`; see Transport."""
        size = min(len(view), RECEIVE_SIZE)
        received = self._receive(view[:size])
        self.more = received == size
        return received

    def _receive(self, view: memoryview) -> int:
        """Read from the socket; return the bytes read, 0 for none yet, -1 for the end."""
        try:
            return self._socket.recv_into(view) or -1
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            raise PeerVanished(reason(error)) from error

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send `data`, keeping a copy of what the socket does not take; see Transport."""
        if self._buffered:
            self._buffered = bytes(self._buffered) + bytes(data)
            return
        sent = self._send(data)
        if sent < len(data):
            self._buffered = bytes(memoryview(data)[sent:])

    def _send(self, data: bytes | bytearray | memoryview) -> int:
        try:
            sent = self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            raise PeerVanished(reason(error)) from error
        self.bytes_written += sent
        return sent

    @property
    def buffered(self) -> int:
        """Bytes that the socket has yet to take; see Transport."""
        return len(self._buffered)

    @property
    def held(self) -> int:
        """Bytes held in either direction; see Transport."""
        return len(self._buffered)

    async def flush(self) -> None:
        """Wait until nothing is buffered; see Transport."""
        while self._buffered:
            await self._wait(trio.lowlevel.wait_writable)
            if sent := self._send(self._buffered):
                self._buffered = memoryview(self._buffered)[sent:]
        self._buffered = b""

    def _open_fd(self) -> int:
        # Trio must not see closed sockets: each one's descriptor is -1, and two tasks that wait for
        # one descriptor are an error.
        if (fd := self._socket.fileno()) == -1:
            raise PeerVanished("the connection was closed")
        return fd

    async def _wait(self, wait: Callable[[int], Awaitable[None]]) -> None:
        fd = self._open_fd()
        self._waiting += 1
        try:
            await wait(fd)
        except (trio.ClosedResourceError, OSError) as error:
            raise PeerVanished("the connection was closed") from error
        finally:
            self._waiting -= 1

    def end_output(self) -> None:
        """Tell the peer that nothing more is sent; it may go on sending. Raises PeerVanished."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise PeerVanished(reason(error)) from error

    def abort(self) -> None:
        """Close at once; see Transport."""
        if self._socket.fileno() != -1:
            if self._registration is not None:
                self._registration.end(PeerVanished("the connection was closed"))
            if self.scheduler is not None:
                self.scheduler.forget(self._socket.fileno())
            if self._waiting:
                trio.lowlevel.notify_closing(self._socket)
            self._socket.close()

    def close(self) -> None:
        """Close; what the kernel has buffered is still sent."""
        self.abort()

    def tcp_info(self) -> bytes:
        """Return the kernel's struct; see Transport."""
        if not system.IS_LINUX:
            return b""  # others have another struct, or none
        return self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)

    def end_received(self) -> bool:
        """Ask the kernel whether the peer's stream ended; see Transport."""
        return streamend.has_ended(self._socket)
