"""TLS as a Transport: OpenSSL between memory buffers, many records at a time.

Why not trio.SSLStream: it moves one TLS record a call, and a relay's load is thousands of small
records. Here a read takes everything that the socket holds, up to RECEIVE_SIZE, and decrypts all
of it into the caller's buffer; a write encrypts a whole run of packets and sends it at once.

How it works, and what must never happen here:
- All connections share one pair of MemoryBIOs and one buffer for ciphertext, kept in a TLSEngine.
  That is what keeps an idle connection small: each has an SSL object and nothing else. It is
  sound because every method below runs from its first touch of a BIO to its last without an
  await, and leaves both BIOs empty. `_drained` sees to the incoming one: OpenSSL itself takes up
  a half-received record, and what it has not looked at yet is carried over in `_carry`.
  Never put an await between a use of `engine.incoming` or `engine.outgoing` and the end of its
  method, and never call their `write_eof`, which would end every connection. What is received
  lies in the one buffer until the next await, when any other connection may overwrite it.
- Ciphertext goes to OpenSSL in pieces of FEED_SIZE, so that the shared BIO stays small.
- What OpenSSL wants to say (alerts, key updates) is sent after each operation, errors included.
- A connection has no SSL object before its ClientHello has come. Where that is not in one piece, or
  the context depends on what the client asks for (`TLSEngine.choose`), the bytes are kept by a
  HelloReader until then; afterwards OpenSSL is given all of them.

Measured with `nox -s micro -- --piece tls --fast`: 4 to 5 µs to read one record of 1400 bytes, 150
for 90 of them; 3 µs to write one packet, 47 for a run of 128 KiB.
"""

import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Final

from derp.errors import PeerVanished, TLSFailed
from derp.net.tcp import RECEIVE_SIZE, TCPTransport
from derp.net.transport import Endpoint
from derp.wire.clienthello import ClientHello, HelloReader, is_server_hello, is_whole

FEED_SIZE: Final = 64 << 10
"""Most bytes of ciphertext that OpenSSL is given at a time."""

MAX_UNSENT: Final = 1 << 20
"""Bytes that may wait for a peer that makes OpenSSL answer, and does not listen."""
MAX_BARREN: Final = 64 << 10
"""Bytes of records in a row that may come without any data in them."""
_ANOTHER_NAME: Final = "the client asked for another server name, or for none"

Piece = bytes | bytearray | memoryview
ReadInto = Callable[[int, memoryview], int]
HANDSHAKE_READ: Final = 16 << 10
"""Most bytes read at a time before the handshake is over: what comes behind it waits here."""
HELLO_MEMORY: Final = 192 << 10
"""What OpenSSL may take for a ClientHello that it waits for, whatever has come of it: for one after
a HelloRetryRequest, or one that can't be read. No less than a HelloReader may take."""

Hold = Callable[[int], object]
"""Is told how many bytes are kept for a peer; raises what ends its connection."""
Choose = Callable[[ClientHello, Endpoint], ssl.SSLContext]
"""From what a client asks for, and the local address it asks at, to the context that answers it."""


class TLSEngine:
    """What all TLS connections share: the context of new ones, two BIOs and a buffer.

    The ends of a server and those of a client want one each, as their contexts differ.

    `context` serves everybody, unless `choose` is set: then that is asked for each connection's. It
    gets an answer for every ClientHello, for UNREADABLE too, which OpenSSL may yet be able to read.
    Both may be replaced at any time, for the connections that no context has been taken for: that
    happens as the ClientHello is whole.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context
        self.choose: Choose | None = None
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.ciphertext = memoryview(bytearray(RECEIVE_SIZE))


class TLSTransport(TCPTransport):
    """The server's end of a TLS connection over a connected, non-blocking socket.

    `handshake` comes first; afterwards it is a Transport.
    """

    __slots__ = ("_barren", "_carry", "_engine", "_failure", "_ssl", "tls_version")

    def __init__(
        self, sock: socket.socket, remote: Endpoint, local: Endpoint, engine: TLSEngine
    ) -> None:
        super().__init__(sock, remote, local)
        self.tls_version: str | None = None
        self._engine = engine
        # Made by `handshake`, and used only after that.
        self._ssl: ssl.SSLObject
        # Ciphertext that came but was not given to OpenSSL yet; None where nothing is held back.
        self._carry: bytes | None = None
        # Ciphertext that has come since there was data in it.
        self._barren = 0
        # What is wrong behind the data that was given out last.
        self._failure: TLSFailed | None = None

    async def handshake(self, hold: Hold = lambda _: None) -> None:
        """Agree on TLS. The caller sets the deadline.

        `hold` is told what is kept until the handshake is over. Raises TLSFailed or PeerVanished,
        and what `hold` raises.
        """
        ciphertext = await self._begin(hold)
        waits_for_hello = True
        while (said := self._shake(ciphertext)) is not None:
            del ciphertext  # a whole ClientHello may be long
            if waits_for_hello and (waits_for_hello := not is_server_hello(said)):
                hold(HELLO_MEMORY)
            await self.flush()
            ciphertext = await self._heard()
        self.tls_version = self._ssl.version()
        await self.flush()

    async def _begin(self, hold: Hold) -> Piece:
        """Make the SSL object; return what to give it first, to be used before the next await."""
        engine = self._engine
        ciphertext: Piece = await self._heard()
        context = engine.context
        if engine.choose is not None or not is_whole(ciphertext):
            context, ciphertext = await self._choose(ciphertext, hold)
        self._ssl = context.wrap_bio(engine.incoming, engine.outgoing, server_side=True)
        return ciphertext

    async def _heard(self) -> memoryview:
        """Wait for ciphertext; return what has come, to be used before the next await."""
        ciphertext = self._engine.ciphertext[:HANDSHAKE_READ]
        while True:
            await self.wait_readable()
            received = self._receive(ciphertext)
            if received < 0:
                raise PeerVanished("the connection was closed during the TLS handshake")
            if received:
                return ciphertext[:received]

    async def _choose(self, ciphertext: Piece, hold: Hold) -> tuple[ssl.SSLContext, Piece]:
        """Read a whole ClientHello; return the context for it and all that was read."""
        engine = self._engine
        reader = HelloReader()
        while (hello := reader.feed(ciphertext)) is None:
            # The fragments are there twice.
            hold(2 * len(reader.flight))
            ciphertext = await self._heard()
        hold(2 * len(reader.flight))
        choose = engine.choose
        context = engine.context if choose is None else choose(hello, self.local)
        return context, reader.flight

    def _shake(self, ciphertext: Piece) -> bytes | None:
        """Take a step of the handshake; return what was said, or None if it was the last one."""
        self._engine.incoming.write(ciphertext)
        try:
            self._ssl.do_handshake()
        except ssl.SSLWantReadError:
            return self._speak()
        except ssl.SSLError as error:
            raise self._failed(error) from error
        # What came behind the handshake is the peer's first request.
        self._carry = self._drained()
        self.more = True
        self._speak()
        return None

    def read_into(self, view: memoryview) -> int:
        """Decrypt what has arrived into `view`; see Transport."""
        total = 0
        if (carry := self._carry) is not None:
            if self._failure is not None:
                raise self._failure
            self._carry = None
            total = self._decrypt(carry, view, 0)
            if self._carry is not None:
                return total  # type: ignore[unreachable] # _decrypt may have set it
        ciphertext = self._engine.ciphertext
        if (room := len(view) - total) < RECEIVE_SIZE:
            ciphertext = ciphertext[:room]
        received = self._receive(ciphertext)
        self.more = received == len(ciphertext)
        if received <= 0:
            return total or received
        total = self._decrypt(ciphertext[:received], view, total)
        self._barren = 0 if total else self._barren + received
        if self._barren > MAX_BARREN:
            raise TLSFailed("the peer sends records without data")
        return total

    def _decrypt(self, ciphertext: Piece, view: memoryview, total: int) -> int:
        """Decrypt into `view[total:]`; return the new total, -1 at an end with nothing before.

        Where `view` is full, or the end was reached, `_carry` is set and there is more to read.
        """
        engine = self._engine
        incoming = engine.incoming
        read: ReadInto = self._ssl.read  # type: ignore[assignment]
        space = len(view)
        behind: Piece = b""
        while True:
            if len(ciphertext) > FEED_SIZE:
                ciphertext, behind = ciphertext[:FEED_SIZE], ciphertext[FEED_SIZE:]
            incoming.write(ciphertext)
            try:
                while total < space:
                    if not (count := read(space - total, view[total:])):
                        # close_notify. The next read finds the same end again.
                        self._drained()
                        self._carry = b""
                        self.more = True
                        return total or -1
                    total += count
                    # OpenSSL takes up one record at a time; where there is space left, all of that
                    # one has been read. Without this look, each read would end in a costly
                    # SSLWantReadError.
                    if total < space and not incoming.pending:
                        break
                else:
                    self._carry = self._drained() + bytes(behind)
                    self.more = True
                    break
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError as error:
                failure = self._failed(error)
                if not total:
                    raise failure from error
                # The data before it comes first.
                self._failure = failure
                self._carry = b""
                self.more = True
                return total
            if not behind:
                break
            ciphertext, behind = behind, b""
        if engine.outgoing.pending:
            self._speak()
            if len(self._unsent) > MAX_UNSENT:
                raise TLSFailed("the peer asks for answers and does not read them")
        return total

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send `data`; see Transport."""
        try:
            self._ssl.write(data)
        except ssl.SSLError as error:
            raise self._failed(error) from error
        self._speak()

    @property
    def held(self) -> int:
        """Bytes that are kept, in either direction."""
        return len(self._unsent) + len(self._carry or b"")

    def close(self) -> None:
        """Send close_notify if the socket takes it at once, then close."""
        if self.tls_version is not None and not self._unsent:
            # The peer's own close_notify is not waited for.
            with contextlib.suppress(ssl.SSLError):
                self._ssl.unwrap()
            self._drained()
            with contextlib.suppress(PeerVanished):
                self._speak()
        self.abort()

    def _drained(self) -> bytes:
        """Empty the shared incoming BIO; return what OpenSSL had not taken."""
        incoming = self._engine.incoming
        return incoming.read() if incoming.pending else b""

    def _speak(self) -> bytes:
        """Send what OpenSSL has to say, behind what is still unsent; return it."""
        ciphertext = self._engine.outgoing.read()
        if self._unsent:
            self._unsent = bytes(self._unsent) + ciphertext
        elif ciphertext:
            sent = self._send(ciphertext)
            if sent < len(ciphertext):
                self._unsent = memoryview(ciphertext)[sent:]
        return ciphertext

    def _failed(self, error: ssl.SSLError) -> TLSFailed:
        """Leave the shared BIOs empty, tell the peer, and return what to raise."""
        self._drained()
        # Where the peer has left before it could be told, the reason is still the TLS error.
        with contextlib.suppress(PeerVanished):
            self._speak()
        if error.reason == "CALLBACK_FAILED":
            return TLSFailed(getattr(self._ssl.context, "refusal", _ANOTHER_NAME))
        reason = (error.reason or str(error)).lower().replace("_", " ")
        if isinstance(error, ssl.SSLCertVerificationError):
            reason = f"{reason}: {error.verify_message}"
        return TLSFailed(reason)


class TLSClientTransport(TLSTransport):
    """The client's end, which verifies the server's certificate as the engine's context says.

    `hostname` is what the certificate has to be for: a name, or an IP address without brackets.
    """

    __slots__ = ("_hostname",)

    def __init__(
        self,
        sock: socket.socket,
        remote: Endpoint,
        local: Endpoint,
        engine: TLSEngine,
        hostname: str,
    ) -> None:
        super().__init__(sock, remote, local, engine)
        self._hostname = hostname

    async def _begin(self, _hold: Hold) -> Piece:
        """Make the SSL object, which speaks first."""
        engine = self._engine
        self._ssl = engine.context.wrap_bio(
            engine.incoming, engine.outgoing, server_hostname=self._hostname
        )
        return b""
