"""The TLS pump: reading, writing and shaking hands over a pair of connected sockets.

The peer is an SSL object in the same process. What it encrypts lies in the socket before the
clock starts, and what it is sent is taken away after the clock has stopped. The kernel's part, a
copy into or out of a unix socket, is timed; Trio's is not: nothing here ever waits.
"""

import contextlib
import functools
import ipaddress
import random
import socket
import ssl
from collections.abc import Coroutine, Iterator
from datetime import UTC, datetime

from bench.micro.stopwatch import Stopwatch, batches
from certs.context import make_context
from certs.metacert import make_metacert
from certs.parse import make_pair
from certs.selfsigned import make_self_signed
from derp.net.address import Endpoint
from derp.net.tls import TLSTransport
from derp.net.tlsengine import TLSEngine

PACKET = 1400
RUN = 128 << 10
VERSION = "TLSv1.3"
ADDRESS = "127.0.0.1"
HERE, THERE = Endpoint(ADDRESS, 443), Endpoint(ADDRESS, 50000)


class Peer:
    """The client's end."""

    def __init__(self, sock: socket.socket) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing)
        self._socket = sock
        # A full socket is an error, instead of waiting for ever.
        sock.setblocking(False)

    def shake(self) -> None:
        """Take the next step of the handshake."""
        self._incoming.write(self.receive())
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.do_handshake()
        self._socket.sendall(self._outgoing.read())

    def send(self, data: bytes, records: int) -> int:
        """Send `data` in so many records, one after the other; return bytes of ciphertext."""
        for _ in range(records):
            self._tls.write(data)
        ciphertext = self._outgoing.read()
        self._socket.sendall(ciphertext)
        return len(ciphertext)

    def receive(self) -> bytes:
        """Take all ciphertext that has come."""
        received = b""
        with contextlib.suppress(BlockingIOError):
            while more := self._socket.recv(1 << 20):
                received += more
        return received

    def decrypt(self, ciphertext: bytes) -> bytes:
        self._incoming.write(ciphertext)
        data = b""
        with contextlib.suppress(ssl.SSLWantReadError):
            while more := self._tls.read(1 << 20):
                data += more
        return data


class Relay(TLSTransport):
    """The relay's end; the peer takes its turn whenever the handshake waits for it."""

    def __init__(self, sock: socket.socket, peer: Peer, watch: Stopwatch) -> None:
        super().__init__(sock, THERE, HERE, engine())
        self._peer = peer
        self._watch = watch

    async def wait_readable(self) -> None:
        self._watch.stop()
        self._peer.shake()
        self._watch.start()


@functools.cache
def engine() -> TLSEngine:
    """Make what the relay's TLS connections share, with the certificate that it makes itself."""
    now = datetime.now(UTC)
    certificate, key = make_self_signed(ipaddress.ip_address(ADDRESS), now)
    pair = make_pair(certificate, key, chain_from="micro", key_from="micro")
    return TLSEngine(make_context(pair, make_metacert(bytes(32), now), ADDRESS))


@contextlib.contextmanager
def connected(watch: Stopwatch) -> Iterator[tuple[Relay, Peer]]:
    """Connect two ends; `watch` times the relay's part in it."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        peer = Peer(theirs)
        watch.start()
        relay = Relay(ours, peer, watch)
        finish(relay.handshake())
        watch.stop()
        assert relay.tls_version == VERSION, f"the handshake led to {relay.tls_version}"
        yield relay, peer


def finish(coroutine: Coroutine[object, None, None]) -> None:
    """Run a coroutine that has nothing to wait for."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise AssertionError("the handshake waits for something else than the peer")


def check(relay: Relay, peer: Peer, data: bytes, records: int) -> None:
    """Check that data arrives whole, both ways."""
    peer.send(data, records)
    view = memoryview(bytearray(2 * RUN))
    got = b""
    while len(got) < len(data) * records and (count := relay.read_into(view)) > 0:
        got += view[:count]
    assert got == data * records, "something else is read than was sent"
    relay.write(data)
    assert not relay.buffered, "not everything that is written is sent"
    assert peer.decrypt(peer.receive()) == data, "something else arrives than was written"


def read(records: int, batch: int, loops: int) -> float:
    """Time reading so many records of a packet each at once."""
    watch = Stopwatch()
    data = random.Random(1).randbytes(PACKET)
    with connected(Stopwatch()) as (relay, peer):
        check(relay, peer, data, records)
        buffer = memoryview(bytearray(2 * RUN))
        for size in batches(loops, batch):
            # A read takes no more ciphertext than there is space: one portion each.
            portions = [peer.send(data, records) for _ in range(size)]
            view = buffer[: portions[0]]
            count = 0
            watch.start()
            for _ in portions:
                count += relay.read_into(view)
            watch.stop()
            assert count == size * records * PACKET, "not everything is read"
    return watch.seconds


def write(length: int, batch: int, loops: int) -> float:
    """Time writing `length` bytes to a client that is idle."""
    watch = Stopwatch()
    data = random.Random(1).randbytes(length)
    with connected(Stopwatch()) as (relay, peer):
        check(relay, peer, data, 1)
        view = memoryview(data)
        for size in batches(loops, batch):
            watch.start()
            for _ in range(size):
                relay.write(view)
            watch.stop()
            assert not relay.buffered, "not everything that is written is sent"
            assert len(peer.receive()) > size * length, "less is sent than was written"
    return watch.seconds


def handshake(loops: int) -> float:
    """Time the relay's part of a handshake, from an accepted socket on."""
    watch = Stopwatch()
    with connected(Stopwatch()) as (relay, peer):
        check(relay, peer, b"hello", 1)
    for _ in range(loops):
        with connected(watch):
            pass
    return watch.seconds


BENCHMARKS = {
    "read 1 record of 1400 bytes": functools.partial(read, 1, 32),
    "read 90 records of 1400 bytes": functools.partial(read, 90, 1),
    "write 1 packet of 1400 bytes": functools.partial(write, PACKET, 32),
    "write a train of 128 KiB": functools.partial(write, RUN, 1),
    "handshake": handshake,
}
