"""The sending half of a logged-in client: what others touch when they have something for it.

How it works: a packet for an idle connection is written through at once, by the task of the
client that sent it; that saves a switch of tasks, and a copy. What the socket does not take makes
the connection busy: from then on packets go to an outbox, and a task of its own sends what is
queued, a piece at a time, until nothing is left. An idle connection has neither.

What must never happen here: an await in `deliver` or `send_control`, since the run lies in the
shared read buffer; a frame written behind half of another; an exception that reaches the sender
because its receiver has failed, or leaves the sending task and so ends the whole relay.

Measured with `nox -s bench -- --only rtt --only inflight`: 55 to 75 µs there and back through two
relayings, where the Go derper takes 77 to 104; 512 packets in flight, none lost.
"""

from typing import Final

import trio

from derp import log
from derp.errors import ConnectionEnd, InternalFault
from derp.metrics import DropReason
from derp.net.transport import Transport
from derp.relay.outbox import Entry, Outbox
from derp.relay.ratelimit import TokenBucket
from derp.server import Server
from derp.wire.frames import PeerGoneReason, peer_gone
from derp.wire.keys import short

MIN_SEND: Final = 8 << 10
MAX_SEND: Final = 256 << 10
"""Bytes that the sending task encrypts at a time. What is encrypted can't be dropped any more, so
a peer that takes little at a time is given little; one that takes all is given more next time."""

# Peer-gone answers to packets for an absent client (Go: peerGoneLim).
_PEER_GONE_RATE: Final = 1.0
_PEER_GONE_BURST: Final = 3

logger = log.get("client")


class Connection:
    """One logged-in client."""

    __slots__ = (
        "_peer_gone_bucket",
        "bucket",
        "connected_at",
        "duplicate",
        "ending",
        "heard_from",
        "key",
        "not_ideal",
        "outbox",
        "preferred",
        "progress",
        "server",
        "transport",
    )

    def __init__(
        self,
        server: Server,
        transport: Transport,
        key: bytes,
        *,
        not_ideal: bool,
        now: float,
    ) -> None:
        self.server = server
        self.transport = transport
        self.key = key
        self.not_ideal = not_ideal
        self.preferred = False
        self.connected_at = now
        self.bucket = server.bucket(now)
        self.duplicate = False
        self.heard_from: set[bytes] = set()
        self.outbox: Outbox | None = None
        self.ending: ConnectionEnd | None = None
        """Set once somebody other than its own task has ended this connection."""
        self.progress: tuple[int, float] = (0, now)
        """What the peer had taken, and when: for the task that looks for stuck peers."""
        self._peer_gone_bucket: TokenBucket | None = None

    def deliver(
        self, run: memoryview, packets: int, payload: int, source: bytes, *, disco: bool
    ) -> None:
        """Send or queue a run: `packets` RecvPacket frames from `source`.

        `payload` is the number of bytes that are not frame headers or keys.
        """
        if self.outbox is not None:
            now = trio.current_time()
            self.outbox.put(bytes(run), packets, source, now, disco=disco)
            return
        try:
            self.transport.write(run)
        except ConnectionEnd as error:
            reason = DropReason.GONE_DISCONNECTED if self.ending else DropReason.WRITE_ERROR
            self.server.metrics.drop(reason, disco, packets, payload)
            self.end(error)
            return
        metrics = self.server.metrics
        metrics.packets_sent += packets
        metrics.bytes_sent += payload
        # `observe`, without the call.
        observed = metrics.buffered_write_frames
        observed.counts[packets if packets <= observed.limit else -1] += 1
        observed.sum += packets
        if metrics.average_queue_duration_ms:
            metrics.queued(0.0, packets)
        if source not in self.heard_from:
            self.server.hub.handed_over(source, self)
        if self.transport.unsent:
            self._start_sending()

    def send_control(self, frame: bytes, *, must: bool = False) -> bool:
        """Send or queue a frame that is no packet; False where it had to be let go."""
        if self.outbox is not None:
            return self.outbox.put_control(frame, must=must)
        try:
            self.transport.write(frame)
        except ConnectionEnd as error:
            self.end(error)
            return False
        if self.transport.unsent:
            self._start_sending()
        return True

    def peer_not_here(self, key: bytes, now: float) -> bool:
        """Answer a disco packet for an absent client, if that has not been done too often."""
        if self._peer_gone_bucket is None:
            self._peer_gone_bucket = TokenBucket(_PEER_GONE_RATE, _PEER_GONE_BURST, now)
        if not self._peer_gone_bucket.allow(now):
            return False
        if self.send_control(peer_gone(key, PeerGoneReason.NOT_HERE)):
            self.server.metrics.peer_gone_not_here_frames += 1
        return True

    def peer_disconnected(self, key: bytes) -> None:
        """Tell that a client whose packets were handed to this one has left.

        It is told once only, so it is never let go; `heard_from` bounds how often there is cause.
        """
        if self.send_control(peer_gone(key, PeerGoneReason.DISCONNECTED), must=True):
            self.server.metrics.peer_gone_disconnected_frames += 1

    def end(self, error: ConnectionEnd) -> None:
        """End the connection from outside its own task, which will raise `error`."""
        if self.ending is None:
            self.ending = error
            self.transport.abort()

    def discard_queue(self) -> None:
        """Drop what is queued, now that the client has left."""
        if self.outbox is not None:
            self.outbox.clear(self._drop_gone)

    def _start_sending(self) -> None:
        self.outbox = Outbox(self._drop_head)
        self.progress = (self.transport.taken, trio.current_time())
        self.server.sending[self] = None
        self.server.poller.under_way += 1
        self.server.nursery.start_soon(self._send_queued, self.outbox)

    async def _send_queued(self, outbox: Outbox) -> None:
        """Send until nothing is left, or until the connection has ended.

        Whoever cancels this leaves something unsent: the outbox then stays, so that nothing is
        ever written behind half a frame.
        """
        transport = self.transport
        size = MIN_SEND
        try:
            while True:
                await transport.flush()
                pieces, entries = outbox.take(size, trio.current_time())
                if not pieces:
                    self.outbox = None
                    break
                self._send_pieces(pieces, entries)
                size = max(size // 2, MIN_SEND) if transport.unsent else min(size * 2, MAX_SEND)
        except ConnectionEnd as error:
            self.end(error)
        except Exception as error:
            # A mistake of ours must end this connection only, and loudly.
            logger.exception("sending was ended by a bug", client=short(self.key))
            self.end(InternalFault(repr(error)))
        finally:
            self.server.sent(self)

    def _send_pieces(self, pieces: list[bytes | memoryview], entries: list[Entry]) -> None:
        metrics = self.server.metrics
        try:
            self.transport.write(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        except ConnectionEnd:
            for entry in entries:
                metrics.drop(DropReason.WRITE_ERROR, entry.disco, entry.packets, entry.payload)
            raise
        now = trio.current_time()
        metrics.buffered_write_frames.observe(
            len(pieces) - len(entries) + sum(entry.packets for entry in entries)
        )
        for entry in entries:
            metrics.packets_sent += entry.packets
            metrics.bytes_sent += entry.payload
            metrics.queued((now - entry.since) * 1000, entry.packets)
            if entry.source not in self.heard_from:
                self.server.hub.handed_over(entry.source, self)

    def _drop_head(self, disco: bool, packets: int, payload: int) -> None:
        self.server.metrics.drop(DropReason.QUEUE_HEAD, disco, packets, payload)

    def _drop_gone(self, disco: bool, packets: int, payload: int) -> None:
        self.server.metrics.drop(DropReason.GONE_DISCONNECTED, disco, packets, payload)
