"""What carries bytes to and from one peer: TLS, plain TCP or websocket, behind one shape.

Reading is split in two, so that one scratch buffer serves every connection: `wait_readable`
waits and holds no buffer; `read_into` then copies into a buffer that the caller owns until its
next await. Writing never waits: `write` hands over bytes at once and keeps what the socket did
not take; whoever finds `buffered` non-zero afterwards sees to it that some task awaits `flush`.
"""

from typing import Protocol

from derp.net.address import Endpoint
from derp.net.poller import Poller, Step


class Transport(Protocol):
    """A byte stream to one peer. Only one task reads it, and at most one awaits `flush`."""

    remote: Endpoint
    local: Endpoint
    tls_version: str | None
    """As `ssl` names it ("TLSv1.3"); None without TLS."""

    async def wait_readable(self) -> None:
        """Wait until `read_into` may have something to give. Always a checkpoint."""

    async def wait_turn(self) -> None:
        """Let others go first: for work that a stranger can cause without waiting. A checkpoint."""

    def read_into(self, view: memoryview) -> int:
        """Copy what has arrived into `view` and return how many bytes; -1 at the end of stream.

        0 means that nothing whole has arrived yet (half a TLS record): wait again.
        Raises PeerVanished or TLSFailed.
        """

    @property
    def more(self) -> bool:
        """Whether there may be more to read at once, and others should have their turn before."""

    async def read_through(self, poller: Poller, step: Step) -> None:
        """Call `step` whenever there may be something to read, until it returns True, or less.

        One step may be all of it, so whoever reads calls this until there is nothing more to
        read. A checkpoint, unless it raises. The poller takes the steps where it can. Raises
        what `step` raises, and PeerVanished.
        """

    async def coalesce_reads(self) -> None:
        """Wait GATHER seconds, though there may be something to read, for more of it."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send `data`, keeping what the socket does not take. Raises PeerVanished.

        `data` is not kept: the caller may reuse its buffer at once.
        """

    @property
    def buffered(self) -> int:
        """Bytes (as on the wire, encrypted) that `write` has kept."""

    @property
    def held(self) -> int:
        """Bytes that are kept in either direction: unsent, or come and not read."""

    @property
    def bytes_written(self) -> int:
        """Bytes that have been taken from us so far; it grows as long as the peer reads."""

    async def flush(self) -> None:
        """Wait until nothing is unsent. Raises PeerVanished."""

    def abort(self) -> None:
        """Close at once; every task waiting on the transport wakes with PeerVanished."""

    def close(self) -> None:
        """Say goodbye as the protocol has it, as far as that needs no waiting, then close."""


async def receive(transport: Transport, scratch: memoryview) -> bytes:
    """Wait for bytes and return a copy of what has come, as far as `scratch` holds it.

    Empty at the end of the stream. For what is said before the packets come. Raises PeerVanished
    or TLSFailed.
    """
    received = 0
    while not received:
        await transport.wait_readable()
        received = transport.read_into(scratch)
    return bytes(scratch[:received]) if received > 0 else b""
