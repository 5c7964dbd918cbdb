"""TLS as a Transport: OpenSSL between memory buffers, many records at a time.

Why not trio.SSLStream: it moves one TLS record per call, and a relay's load is thousands of small
records. Here a read takes everything that the socket holds, up to RECEIVE_SIZE, and decrypts all of
it into the caller's buffer; a write encrypts a whole train of packets and sends it at once.

How it works, with the invariants:

- All connections share one pair of MemoryBIOs and one buffer for ciphertext, in a TLSEngine, so
  that an idle connection is an SSL object and nothing else. Every method below runs from its first
  use of a BIO to its last without an await, and leaves both BIOs empty, also at an end and after an
  error: what OpenSSL has not consumed is taken out again, and its output (alerts, key updates) is
  sent. Never put an await between a use of `engine.incoming` or `engine.outgoing` and the end of
  the method, and never call their `write_eof`, which would end every connection. Data received
  lies in the shared buffer until the next await; then other connections may overwrite it.
- After the handshake OpenSSL is fed whole records only; a partial one is kept here. So the number
  of records fed is known: FIRST_FEED_RECORDS at first and then no more than FEED_RECORDS at a time,
  since a KeyUpdate costs as much as ten records of data. If one of them is empty (without data),
  the rest waits until other connections have run. RecordBudget bounds the empty ones, in proportion
  to the data.
- A connection has no SSL object before its ClientHello has come. If the ClientHello is in pieces,
  or the context depends on it (`TLSEngine.choose`), a HelloReader keeps it until it is whole; then
  OpenSSL is fed all of it.
"""

import contextlib
import socket
import ssl
from collections.abc import Callable
from functools import partial
from typing import Final, cast

from derp.errors import PeerVanished, ProxyNotListed, TLSFailed
from derp.net.address import Endpoint
from derp.net.budgets import FREE_EMPTY_RECORDS, ReadBudget, RecordBudget
from derp.net.tcp import RECEIVE_SIZE, TCPTransport
from derp.net.tlsengine import Hold, Piece, TLSEngine
from derp.wire.clienthello import is_server_hello
from derp.wire.proxyprotocol import begins_with_header
from derp.wire.records import MAX_RECORD, whole_records

FEED_SIZE: Final = 64 << 10
FEED_RECORDS: Final = 64
"""Most bytes and most records of ciphertext that OpenSSL is fed at a time."""
FIRST_FEED_RECORDS: Final = FREE_EMPTY_RECORDS + 1
"""Bound on the records that OpenSSL is fed first in each read: enough to show that all of a
stranger's records are empty, and no more work than that."""
FEEDS_PER_TURN: Final = 16
"""How often OpenSSL is fed before other connections run."""

MAX_BUFFERED: Final = 1 << 20
"""Bytes that may be buffered for a peer that makes OpenSSL answer and does not read."""
_WRONG_NAME: Final = "the client asked for another server name, or for none"

ReadInto = Callable[[int, memoryview], int]
"""SSLObject.read: reads at most so many bytes into a buffer; returns how many."""
HANDSHAKE_READ: Final = 16 << 10
"""Most bytes read at a time during the handshake: what follows it is kept."""
HELLO_MEMORY: Final = 192 << 10
"""Bytes that OpenSSL may allocate at once for a ClientHello that it reads itself: one after a
HelloRetryRequest, or an unreadable one. No less than a HelloReader may take."""


class TLSTransport(TCPTransport):
    """The server's end of a TLS connection; it is a Transport after `handshake`."""

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
        self, sock: socket.socket, remote: Endpoint, local: Endpoint | None, engine: TLSEngine
    ) -> None:
        super().__init__(sock, remote, local)
        self.tls_version: str | None = None
        self._engine = engine
        # Made by `handshake`, and used only after that.
        self._ssl: ssl.SSLObject
        self._read: ReadInto
        # Ciphertext not yet fed to OpenSSL, and whether the next read leaves the socket alone.
        self._pending_ciphertext = b""
        self._more_to_decrypt = False
        # None while no record was empty.
        self._budget: RecordBudget | None = None
        # Whether reading has ended, and the failure that ended it, if any.
        self._ended = False
        self._failure: TLSFailed | None = None

    async def handshake(self, hold: Hold = lambda _: None) -> None:
        """Do the TLS handshake; the caller sets the deadline.

        `hold` is called with the bytes kept so far (see Hold). Raises TLSFailed, ProxyNotListed,
        PeerVanished, and what `hold` raises.
        """
        budget = ReadBudget()
        ciphertext = await self._start(hold, budget)
        waits_for_hello = True
        while (output := self._handshake_step(ciphertext)) is not None:
            del ciphertext  # a whole ClientHello may be long
            if waits_for_hello and (waits_for_hello := not is_server_hello(output)):
                hold(HELLO_MEMORY)
            await self.flush()
            ciphertext = await self._receive_ciphertext(budget)
        self.tls_version = self._ssl.version()
        await self.flush()

    async def _start(self, hold: Hold, budget: ReadBudget) -> Piece:
        """Make the SSL object; return its first ciphertext, valid until the next await."""
        engine = self._engine
        receive = partial(self._receive_ciphertext, budget)
        hello, ciphertext = await engine.receive_hello(receive, hold)
        if begins_with_header(ciphertext):
            raise ProxyNotListed
        context = engine.context if engine.choose is None else engine.choose(hello, self.local)
        self._ssl = context.wrap_bio(engine.incoming, engine.outgoing, server_side=True)
        return ciphertext

    async def _receive_ciphertext(self, budget: ReadBudget) -> memoryview:
        """Wait for ciphertext; return it, valid until the next await."""
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

    def _handshake_step(self, ciphertext: Piece) -> bytes | None:
        """Feed the handshake; send and return OpenSSL's output; return None once it is complete."""
        self._engine.incoming.write(ciphertext)
        try:
            self._ssl.do_handshake()
        except ssl.SSLWantReadError:
            return self._flush_bio()
        except ssl.SSLError as error:
            raise self._fail(error) from error
        # What follows the handshake is the peer's first request.
        self._pending_ciphertext = self._drain_incoming()
        self._more_to_decrypt = self.more = bool(self._pending_ciphertext)
        # `SSLObject.read` costs one more call per record; no public way avoids that.
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
        """Decrypt what the last read left."""
        if self._ended:
            return self._end(0, self._failure)
        self.more = False
        end = len(self._pending_ciphertext)
        self._engine.ciphertext[:end] = self._pending_ciphertext
        # OpenSSL has the rest of a record for which there was no space.
        total = self._read(len(view), view) if self._ssl.pending() else 0
        return self._decrypt(0, end, view, total)

    def _decrypt(  # noqa: C901, PLR0912 -- one loop, few calls: this is the hot path
        self, offset: int, end: int, view: memoryview, total: int
    ) -> int:
        """Decrypt `ciphertext[offset:end]` into `view[total:]`; return the new total.

        Returns -1 at the end of the stream, if no data comes before it. Keeps a partial record, and
        what exceeds the space or FEEDS_PER_TURN.
        """
        engine = self._engine
        ciphertext, incoming, read = engine.ciphertext, engine.incoming, self._read
        space = len(view)
        feeds = FEEDS_PER_TURN
        most = FIRST_FEED_RECORDS
        records = empty = 0
        while total < space:
            start = offset
            feed_end = end if end - start <= FEED_SIZE else start + FEED_SIZE
            offset, records = whole_records(engine.buffer, start, feed_end, most)
            if not records:
                break
            feeds -= 1
            most = FEED_RECORDS
            incoming.write(ciphertext[start:offset])
            try:
                while True:
                    if not (count := read(space - total, view[total:] if total else view)):
                        # close_notify.
                        return self._end(total)
                    total += count
                    records -= 1
                    # While there is space, each read takes a whole record. Without this check, the
                    # last read would end in a costly SSLWantReadError.
                    if not records or total == space:
                        break
            except ssl.SSLWantReadError:
                # The records left to count were empty.
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
        """End reading, by a failure or close_notify; each later read ends the same way.

        Returns `total`, the bytes of data before the end; if 0, raises the failure or returns -1.
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
        """Bytes held in either direction; see Transport."""
        return len(self._buffered) + len(self._pending_ciphertext)

    def end_output(self) -> None:
        """Send close_notify if the socket takes it at once, and nothing more."""
        self._send_close_notify()
        super().end_output()

    def close(self) -> None:
        """Send close_notify if the socket takes it at once, then close."""
        self._send_close_notify()
        self.abort()

    def _send_close_notify(self) -> None:
        if self.tls_version is not None and not self._buffered:
            # The peer's own close_notify is not waited for.
            with contextlib.suppress(ssl.SSLError):
                self._ssl.unwrap()
            self._drain_incoming()
            with contextlib.suppress(PeerVanished):
                self._flush_bio()

    def _drain_incoming(self) -> bytes:
        """Empty the shared incoming BIO; return what OpenSSL had not consumed."""
        incoming = self._engine.incoming
        return incoming.read() if incoming.pending else b""

    def _flush_bio(self) -> bytes:
        """Send OpenSSL's output, after what is buffered; return the output."""
        ciphertext = self._engine.outgoing.read()
        if self._buffered:
            self._buffered = bytes(self._buffered) + ciphertext
        elif ciphertext:
            sent = self._send(ciphertext)
            if sent < len(ciphertext):
                self._buffered = memoryview(ciphertext)[sent:]
        return ciphertext

    def _fail(self, error: ssl.SSLError) -> TLSFailed:
        """Empty the shared BIOs, send the alert, and return the exception to raise."""
        self._drain_incoming()
        # The TLS error is the reason even if the peer has left before the alert.
        with contextlib.suppress(PeerVanished):
            self._flush_bio()
        if error.reason == "CALLBACK_FAILED":
            # The context's callback refuses the server name; a WaitingContext says why.
            return TLSFailed(getattr(self._ssl.context, "refusal", _WRONG_NAME))
        reason = (error.reason or str(error)).lower().replace("_", " ")
        if isinstance(error, ssl.SSLCertVerificationError):
            reason = f"{reason}: {error.verify_message}"
        return TLSFailed(reason)
