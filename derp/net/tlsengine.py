"""The context, BIOs and buffer that the TLS connections of a process share."""

import ssl
from collections.abc import Awaitable, Callable

from derp.net.address import Endpoint
from derp.net.tcp import RECEIVE_SIZE
from derp.wire.clienthello import UNREADABLE, ClientHello, HelloReader, is_whole
from derp.wire.records import MAX_RECORD

Piece = bytes | bytearray | memoryview
"""Ciphertext that has come; it may lie in a shared buffer."""
Hold = Callable[[int], object]
"""Called with the number of bytes kept for a peer; raises to end the peer's connection."""
Choose = Callable[[ClientHello, Endpoint], ssl.SSLContext]
"""Returns the context that answers a ClientHello received at a local address."""


class TLSEngine:
    """The context of new connections, and the buffers of all.

    Server's ends and client's ends need an engine each, since their contexts differ. `choose`, if
    set, replaces `context` for each ClientHello, also for UNREADABLE, which OpenSSL may yet read.
    Both may be set at any time; a connection takes its context once its ClientHello is whole.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context
        self.choose: Choose | None = None
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        # A read of ciphertext goes into `space`; the connection's partial record is put before it.
        self.buffer = bytearray(MAX_RECORD + RECEIVE_SIZE)
        self.ciphertext = memoryview(self.buffer)
        self.space = self.ciphertext[MAX_RECORD:]

    async def receive_hello(
        self, receive: Callable[[], Awaitable[Piece]], hold: Hold
    ) -> tuple[ClientHello, Piece]:
        """Receive a whole ClientHello; return it, and the bytes received.

        Where `choose` is unset, a ClientHello that comes in one piece is not parsed: UNREADABLE is
        returned for it. The bytes are valid until the next await, like those of `receive`.
        """
        ciphertext = await receive()
        if self.choose is None and is_whole(ciphertext):
            return UNREADABLE, ciphertext
        reader = HelloReader()
        while (hello := reader.feed(ciphertext)) is None:
            # The reader keeps each fragment twice.
            hold(2 * len(reader.flight))
            ciphertext = await receive()
        hold(2 * len(reader.flight))
        return hello, reader.flight
