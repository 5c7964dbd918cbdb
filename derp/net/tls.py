"""TLS as a Transport: OpenSSL between memory buffers, many records at a time.

Why not trio.SSLStream: it moves one TLS record a call, and a relay's load is thousands of small
records. Here a read takes everything that the socket holds, up to RECEIVE_SIZE, and decrypts all
of it into the caller's buffer; a write encrypts a whole run of packets and sends it at once.

How it works, and what must never happen here:
- All connections share one pair of MemoryBIOs and one buffer for ciphertext, kept in a TLSEngine.
  That is what keeps an idle connection small: each has an SSL object and nothing else. It is
  sound because every method below runs from its first touch of a BIO to its last without an
  await, and leaves both BIOs empty: what OpenSSL has not looked at is taken out again, and what
  it wants to say (alerts, key updates) is sent, at an end and after an error, too.
  Never put an await between a use of `engine.incoming` or `engine.outgoing` and the end of its
  method, and never call their `write_eof`, which would end every connection. What is received
  lies in the one buffer until the next await, when any other connection may overwrite it.
- After the handshake OpenSSL is given whole records only; the beginning of another is held here.
  So it is known how many it takes up: no more than FEED_RECORDS at a time, since a record that
  changes the keys costs as much as ten of data. Where one of them has no data, the rest waits until
  others have had their turn. Of such records there may be some, and more for as much data as comes
  with them (RecordBudget).
- A connection has no SSL object before its ClientHello has come. Where that is not in one piece, or
  the context depends on what the client asks for (`TLSEngine.choose`), the bytes are kept by a
  HelloReader until then; afterwards OpenSSL is given all of them.
"""

import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Final, cast

from derp.errors import PeerVanished, TLSFailed
from derp.net.address import Endpoint
from derp.net.budgets import ReadBudget, RecordBudget
from derp.net.tcp import RECEIVE_SIZE, TCPTransport
from derp.wire.clienthello import ClientHello, HelloReader, is_server_hello, is_whole
from derp.wire.records import MAX_RECORD, whole_records

FEED_SIZE: Final = 64 << 10
"""Most bytes of ciphertext that OpenSSL is given at a time, ..."""
FEED_RECORDS: Final = 64
"""... and most records."""
FEEDS_A_TURN: Final = 16
"""How often it is given some before others have their turn."""

MAX_BUFFERED: Final = 1 << 20
"""Bytes that may wait for a peer that makes OpenSSL answer, and does not listen."""
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
        # Ciphertext, of which a full read fits into `space`, and what is held from before it into
        # what lies before that.
        self.buffer = bytearray(MAX_RECORD + RECEIVE_SIZE)
        self.ciphertext = memoryview(self.buffer)
        self.space = self.ciphertext[MAX_RECORD:]


class TLSTransport(TCPTransport):
    """The server's end of a TLS connection over a connected, non-blocking socket.

    `handshake` comes first; afterwards it is a Transport.
    """

    __slots__ = (
        "_budget",
        "_ended",
        "_engine",
        "_failure",
        "_more_to_decrypt",
        "_pending_ciphertext",
        "_read",
        "_ssl",
        "tls_version",
    )

    def __init__(
        self, sock: socket.socket, remote: Endpoint, local: Endpoint, engine: TLSEngine
    ) -> None:
        super().__init__(sock, remote, local)
        self.tls_version: str | None = None
        self._engine = engine
        # Made by `handshake`, and used only after that.
        self._ssl: ssl.SSLObject
        self._read: ReadInto
        # Ciphertext that OpenSSL was not given yet, and whether there is something to decrypt
        # without more of it.
        self._pending_ciphertext = b""
        self._more_to_decrypt = False
        # None as long as each record has data.
        self._budget: RecordBudget | None = None
        # Whether nothing more is read, and what was wrong, if anything.
        self._ended = False
        self._failure: TLSFailed | None = None

    async def handshake(self, hold: Hold = lambda _: None) -> None:
        """Agree on TLS. The caller sets the deadline.

        `hold` is told what is kept until the handshake is over. Raises TLSFailed or PeerVanished,
        and what `hold` raises.
        """
        budget = ReadBudget()
        ciphertext = await self._start(hold, budget)
        waits_for_hello = True
        while (said := self._handshake_step(ciphertext)) is not None:
            del ciphertext  # a whole ClientHello may be long
            if waits_for_hello and (waits_for_hello := not is_server_hello(said)):
                hold(HELLO_MEMORY)
            await self.flush()
            ciphertext = await self._receive_ciphertext(budget)
        self.tls_version = self._ssl.version()
        await self.flush()

    async def _start(self, hold: Hold, budget: ReadBudget) -> Piece:
        """Make the SSL object; return what to give it first, to be used before the next await."""
        engine = self._engine
        ciphertext: Piece = await self._receive_ciphertext(budget)
        context = engine.context
        if engine.choose is not None or not is_whole(ciphertext):
            context, ciphertext = await self._choose(ciphertext, hold, budget)
        self._ssl = context.wrap_bio(engine.incoming, engine.outgoing, server_side=True)
        return ciphertext

    async def _receive_ciphertext(self, budget: ReadBudget) -> memoryview:
        """Wait for ciphertext; return what has come, to be used before the next await."""
        ciphertext = self._engine.space[:HANDSHAKE_READ]
        while True:
            await self.wait_readable()
            received = self._receive(ciphertext)
            if received < 0:
                raise PeerVanished("the connection was closed during the TLS handshake")
            if not budget.spend(received):
                raise TLSFailed("the handshake comes in too many pieces")
            if received:
                return ciphertext[:received]

    async def _choose(
        self, ciphertext: Piece, hold: Hold, budget: ReadBudget
    ) -> tuple[ssl.SSLContext, Piece]:
        """Read a whole ClientHello; return the context for it and all that was read."""
        engine = self._engine
        reader = HelloReader()
        while (hello := reader.feed(ciphertext)) is None:
            # The fragments are there twice.
            hold(2 * len(reader.flight))
            ciphertext = await self._receive_ciphertext(budget)
        hold(2 * len(reader.flight))
        choose = engine.choose
        context = engine.context if choose is None else choose(hello, self.local)
        return context, reader.flight

    def _handshake_step(self, ciphertext: Piece) -> bytes | None:
        """Take a step of the handshake; return what was said, or None if it was the last one."""
        self._engine.incoming.write(ciphertext)
        try:
            self._ssl.do_handshake()
        except ssl.SSLWantReadError:
            return self._flush_bio()
        except ssl.SSLError as error:
            raise self._fail(error) from error
        # What came behind the handshake is the peer's first request.
        self._pending_ciphertext = self._drain_incoming()
        self._more_to_decrypt = self.more = bool(self._pending_ciphertext)
        # What is below it costs a call less for each record.
        self._read = cast("ReadInto", getattr(self._ssl, "_sslobj", self._ssl).read)
        self._flush_bio()
        return None

    def read_into(self, view: memoryview) -> int:
        """Decrypt what has arrived into `view`; see Transport."""
        if self._more_to_decrypt:
            return self._decrypt_held(view)
        engine = self._engine
        space = engine.space
        if len(view) < RECEIVE_SIZE:
            space = space[: len(view)]
        received = self._receive(space)
        self.more = received == len(space)
        if received <= 0:
            return received
        start = MAX_RECORD
        if held := self._pending_ciphertext:
            start -= len(held)
            engine.ciphertext[start:MAX_RECORD] = held
        return self._decrypt(start, MAX_RECORD + received, view, 0)

    def _decrypt_held(self, view: memoryview) -> int:
        """Go on where the last read had to stop."""
        if self._ended:
            return self._end(0, self._failure)
        self.more = False
        end = len(self._pending_ciphertext)
        self._engine.ciphertext[:end] = self._pending_ciphertext
        # There may not have been space for all of a record.
        total = self._read(len(view), view) if self._ssl.pending() else 0
        return self._decrypt(0, end, view, total)

    def _decrypt(  # noqa: C901, PLR0912 -- one loop, few calls: this is the hot path
        self, offset: int, end: int, view: memoryview, total: int
    ) -> int:
        """Decrypt the records in `ciphertext[place:end]` into `view[total:]`; return the new total.

        Returns -1 at an end with nothing before it. What is not a whole record yet is held until
        the rest of it has come; so is what there is no space for, and what is more than one turn
        may have.
        """
        engine = self._engine
        ciphertext, incoming, read = engine.ciphertext, engine.incoming, self._read
        space = len(view)
        feeds = FEEDS_A_TURN
        records = empty = 0
        while total < space:
            start = offset
            feed_end = end if end - start <= FEED_SIZE else start + FEED_SIZE
            offset, records = whole_records(engine.buffer, start, feed_end, FEED_RECORDS)
            if not records:
                break
            feeds -= 1
            incoming.write(ciphertext[start:offset])
            try:
                while True:
                    if not (count := read(space - total, view[total:] if total else view)):
                        # close_notify.
                        return self._end(total)
                    total += count
                    records -= 1
                    # Where there is space left, all of a record has been read. Without this look,
                    # each read would end in a costly SSLWantReadError.
                    if not records or total == space:
                        break
            except ssl.SSLWantReadError:
                # So many had no data in them.
                empty = records
                records = feeds = 0
            except ssl.SSLError as error:
                return self._end(total, self._fail(error))
            if offset == end or not feeds:
                break
        if total == space or offset < end:
            fed = offset
            offset -= len(self._drain_incoming())
            empty += records - whole_records(engine.buffer, offset, fed, records)[1]
            self._pending_ciphertext = bytes(ciphertext[offset:end])
            if total == space or not feeds:
                self._more_to_decrypt = self.more = True
            else:
                self._more_to_decrypt = False
        elif self._pending_ciphertext or self._more_to_decrypt:
            self._pending_ciphertext, self._more_to_decrypt = b"", False
        if empty or self._budget is not None:
            budget = self._budget or RecordBudget()
            if not budget.spend(total, empty):
                return self._end(total, TLSFailed("the peer sends records without data"))
            self._budget = None if budget.unneeded else budget
        if engine.outgoing.pending:
            self._flush_bio()
            if len(self._buffered) > MAX_BUFFERED:
                raise TLSFailed("the peer asks for answers and does not read them")
        return total

    def _end(self, total: int, failure: TLSFailed | None = None) -> int:
        """Read nothing more: each later call finds the same end again, a failure or close_notify.

        Returns how much data there was before it, -1 for none. Raises the failure where none was.
        """
        self._drain_incoming()
        with contextlib.suppress(PeerVanished):
            self._flush_bio()
        self._ended = self._more_to_decrypt = self.more = True
        self._failure = failure
        if failure is not None and not total:
            raise failure
        return total or -1

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send `data`; see Transport."""
        try:
            self._ssl.write(data)
        except ssl.SSLError as error:
            raise self._fail(error) from error
        self._flush_bio()

    @property
    def held(self) -> int:
        """Bytes that are kept, in either direction."""
        return len(self._buffered) + len(self._pending_ciphertext)

    def close(self) -> None:
        """Send close_notify if the socket takes it at once, then close."""
        if self.tls_version is not None and not self._buffered:
            # The peer's own close_notify is not waited for.
            with contextlib.suppress(ssl.SSLError):
                self._ssl.unwrap()
            self._drain_incoming()
            with contextlib.suppress(PeerVanished):
                self._flush_bio()
        self.abort()

    def _drain_incoming(self) -> bytes:
        """Empty the shared incoming BIO; return what OpenSSL had not taken."""
        incoming = self._engine.incoming
        return incoming.read() if incoming.pending else b""

    def _flush_bio(self) -> bytes:
        """Send what OpenSSL has to say, behind what is still unsent; return it."""
        ciphertext = self._engine.outgoing.read()
        if self._buffered:
            self._buffered = bytes(self._buffered) + ciphertext
        elif ciphertext:
            sent = self._send(ciphertext)
            if sent < len(ciphertext):
                self._buffered = memoryview(ciphertext)[sent:]
        return ciphertext

    def _fail(self, error: ssl.SSLError) -> TLSFailed:
        """Leave the shared BIOs empty, tell the peer, and return what to raise."""
        self._drain_incoming()
        # Where the peer has left before it could be told, the reason is still the TLS error.
        with contextlib.suppress(PeerVanished):
            self._flush_bio()
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

    async def _start(self, _hold: Hold, _budget: ReadBudget) -> Piece:
        """Make the SSL object, which speaks first."""
        engine = self._engine
        self._ssl = engine.context.wrap_bio(
            engine.incoming, engine.outgoing, server_hostname=self._hostname
        )
        return b""
