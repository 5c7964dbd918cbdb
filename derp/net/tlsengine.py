"""What the TLS connections of a process share: a context, two BIOs and a buffer."""

import ssl
from collections.abc import Awaitable, Callable

from derp.net.address import Endpoint
from derp.net.tcp import RECEIVE_SIZE
from derp.wire.clienthello import ClientHello, HelloReader, is_whole
from derp.wire.records import MAX_RECORD

Piece = bytes | bytearray | memoryview
Hold = Callable[[int], object]
"""Called with the number of bytes kept for a peer; raises to end the peer's connection."""
Choose = Callable[[ClientHello, Endpoint], ssl.SSLContext]
"""Returns the context that answers a ClientHello received at a local address."""


class TLSEngine:
    """The context of new connections, and the buffers through which all of them go.

    The server's ends and the client's ends need one each, as their contexts differ.

    `context` serves every connection, unless `choose` is set: then that returns each one's. It has
    an answer for every ClientHello, for UNREADABLE too, which OpenSSL may yet be able to read. Both
    may be replaced at any time; a connection takes its context once its ClientHello is whole.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context
        self.choose: Choose | None = None
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        # Ciphertext: a full read fits into `space`, and what is left of the read before it lies
        # right before that.
        self.buffer = bytearray(MAX_RECORD + RECEIVE_SIZE)
        self.ciphertext = memoryview(self.buffer)
        self.space = self.ciphertext[MAX_RECORD:]

    async def receive_hello(
        self, receive: Callable[[], Awaitable[Piece]], local: Endpoint, hold: Hold
    ) -> tuple[ssl.SSLContext, Piece]:
        """Receive a whole ClientHello; return the context that answers it, and the bytes received.

        These, and those that `receive` returns, are valid until the next await.
        """
        ciphertext = await receive()
        if self.choose is None and is_whole(ciphertext):
            return self.context, ciphertext
        reader = HelloReader()
        while (hello := reader.feed(ciphertext)) is None:
            # The fragments are kept twice.
            hold(2 * len(reader.flight))
            ciphertext = await receive()
        hold(2 * len(reader.flight))
        context = self.context if self.choose is None else self.choose(hello, local)
        return context, reader.flight
