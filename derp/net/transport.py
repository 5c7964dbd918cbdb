"""The interface of a byte stream to one peer: TLS, plain TCP or websocket.

Reading is split in two, so that one buffer serves every connection: `wait_readable` waits and holds
no buffer; `read_into` then copies into a buffer that the caller owns until its next await. Writing
never waits: `write` buffers what the socket did not take. A caller that then finds `buffered`
non-zero makes a task await `flush`.
"""

from typing import Protocol

from derp.net.address import Endpoint
from derp.net.poller import Poller, Step


class Transport(Protocol):
    """A byte stream to one peer. Only one task reads it, and at most one awaits `flush`."""

    remote: Endpoint
    tls_version: str | None
    """As `ssl` names it ("TLSv1.3"); None without TLS."""

    @property
    def local(self) -> Endpoint:
        """The address at which the connection arrived. Raises PeerVanished."""

    async def wait_readable(self) -> None:
        """Wait until `read_into` may have data. Always a checkpoint."""

    async def wait_turn(self) -> None:
        """Let other tasks run first, before work that strangers cause. Always a checkpoint."""

    def read_into(self, view: memoryview) -> int:
        """Copy what has arrived into `view`; return the bytes copied, -1 at the end of the stream.

        0 means that nothing whole has arrived (half a TLS record): wait again. Raises PeerVanished,
        TLSFailed or HTTPFailed.
        """

    @property
    def more(self) -> bool:
        """Whether there may be more to read without waiting; other tasks should run first."""

    async def read_through(self, poller: Poller, step: Step) -> None:
        """Wait for data and call `step`, again and again, until it returns True.

        `step` calls `read_into` once, acts on what it got, and never waits. It returns True if the
        task itself has to go on: to wait for something else, or since the stream has ended. The
        poller calls it where it can. `read_through` may return after any step, so call it in a
        loop; it is a checkpoint unless it raises. Raises what `step` raises, and PeerVanished.
        """

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send `data`, keeping a copy of what the socket does not take. Raises PeerVanished.

        The caller may reuse the buffer of `data` at once.
        """

    @property
    def buffered(self) -> int:
        """Bytes (as on the wire, encrypted) that `write` has kept for the socket to take."""

    @property
    def held(self) -> int:
        """Bytes held in either direction: buffered, or received and not read."""

    @property
    def bytes_written(self) -> int:
        """Bytes that the socket has taken so far: they grow in number as long as the peer reads."""

    def tcp_info(self) -> bytes:
        """Return the kernel's `struct tcp_info` of the connection; empty where it is not Linux's.

        Raises OSError.
        """

    def end_received(self) -> bool:
        """Return whether the peer's stream ended before the connection was over; see `streamend`.

        Nothing may be read after that. Raises OSError.
        """

    async def flush(self) -> None:
        """Wait until nothing is buffered. Raises PeerVanished."""

    def abort(self) -> None:
        """Close at once; every task that waits on the transport gets PeerVanished."""

    def close(self) -> None:
        """Send the protocol's closing message if the socket takes it at once, then close."""


async def receive(transport: Transport, scratch: memoryview) -> bytes:
    """Wait for bytes; return a copy of what fits `scratch`, empty at the end of the stream.

    For handshakes, not for packets. Raises PeerVanished or TLSFailed.
    """
    received = 0
    while not received:
        await transport.wait_readable()
        received = transport.read_into(scratch)
    return bytes(scratch[:received]) if received > 0 else b""
