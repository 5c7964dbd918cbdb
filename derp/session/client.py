"""A logged-in client: what others hand to it, and what they are told of it.

What must never happen here: an await in `deliver`, since the run lies in the shared read buffer; an
exception that reaches the sender because its receiver has failed.
"""

from collections.abc import Collection
from typing import Final

import trio

from derp.errors import ConnectionEnd, WatcherTooSlow
from derp.net.transport import Transport
from derp.relay.presencequeue import PresenceQueue
from derp.relay.sendqueue import Entry
from derp.relay.tokenbucket import TokenBucket
from derp.session.sender import Sender
from derp.session.state import PRIVILEGED_WRITE_TIMEOUT, RelayState
from derp.wire.frames import PeerGoneReason, PresentFlags, peer_gone, peer_present
from derp.wire.linkframes import with_claim

# Peer-gone answers to packets for an absent client (Go: peerGoneLim).
_PEER_GONE_RATE: Final = 1.0
_PEER_GONE_BURST: Final = 3
UPDATES_BEHIND: Final = 4096
"""Changes that may wait for a watcher besides two for each client. Who is so far behind is ended:
it dials once more, and is told of those who are there, not of all who have been."""


class Client(Sender):
    """One logged-in client; or another worker of this relay, which is no member of the hub."""

    __slots__ = (
        "_peer_gone_bucket",
        "bucket",
        "can_mesh",
        "connected_at",
        "duplicate",
        "not_ideal",
        "preferred",
        "prober",
        "saw_src",
        "sibling",
    )

    def __init__(
        self,
        state: RelayState,
        transport: Transport,
        key: bytes,
        *,
        now: float,
        not_ideal: bool = False,
        prober: bool = False,
        can_mesh: bool = False,
    ) -> None:
        timeout = PRIVILEGED_WRITE_TIMEOUT if can_mesh else state.write_timeout
        super().__init__(state, transport, key, write_timeout=timeout, now=now, trusted=can_mesh)
        self.not_ideal = not_ideal
        self.prober = prober
        self.can_mesh = can_mesh
        """It has shown the mesh key: it is trusted, and nothing of it is limited."""
        self.sibling = False
        """It is another worker: it is told of clients of this worker only, and nothing is counted
        that a single worker would not count."""
        self.preferred = False
        self.connected_at = now
        self.bucket = None if can_mesh else state.bucket(now)
        self.duplicate = False
        self.saw_src: set[bytes] = set()
        self._peer_gone_bucket: TokenBucket | None = None

    def deliver(
        self, run: bytes | memoryview, packets: int, payload: int, source: bytes, *, disco: bool
    ) -> None:
        """Send or queue a run: `packets` RecvPacket frames from `source`.

        `payload` is the number of bytes that are not frame headers or keys.
        """
        if self.send_queue is not None:
            now = trio.current_time()
            self.send_queue.put(bytes(run), packets, source, now, disco=disco)
            return
        try:
            self.transport.write(run)
        except ConnectionEnd as error:
            self._dropped(self._write_error(), disco, packets, payload)
            self.end(error)
            return
        metrics = self.state.metrics
        metrics.packets_sent += packets
        metrics.bytes_sent += payload
        # `observe`, without the call.
        observed = metrics.buffered_write_frames
        observed.counts[packets if packets <= observed.limit else -1] += 1
        observed.sum += packets
        if metrics.average_queue_duration_ms:
            metrics.queued(0.0, packets)
        if source not in self.saw_src:
            self.state.hub.note_send_from(source, self)
        if self.transport.buffered:
            self._start_sending(len(run))

    def not_here(self, key: bytes, packets: int, now: float) -> None:
        """Answer that many disco packets for an absent client, as far as that may be done."""
        if self._peer_gone_bucket is None:
            self._peer_gone_bucket = TokenBucket(_PEER_GONE_RATE, _PEER_GONE_BURST, now)
        for _ in range(packets):
            if not self._peer_gone_bucket.allow(now):
                break
            if self.send_control(peer_gone(key, PeerGoneReason.NOT_HERE)):
                self.state.metrics.peer_gone_not_here_frames += 1

    def peer_disconnected(self, key: bytes) -> None:
        """Tell that a client whose packets were handed to this one has left.

        It is told once only, so it is never let go; `saw_src` bounds how often there is cause.
        """
        if self.send_control(peer_gone(key, PeerGoneReason.DISCONNECTED), must=True):
            self.state.metrics.peer_gone_disconnected_frames += 1

    def presence(self) -> bytes:
        """Build the frame that tells a watcher of this connection (Go: presentFlags)."""
        flags = PresentFlags(0)
        if self.prober:
            flags |= PresentFlags.PROBER
        if self.can_mesh:
            flags |= PresentFlags.MESH_PEER
        if self.not_ideal:
            flags |= PresentFlags.NOT_IDEAL
        remote = self.transport.remote
        return peer_present(self.key, remote.host, remote.port, flags or PresentFlags.REGULAR)

    def update(self, key: bytes, frame: bytes) -> None:
        """Tell a watcher that a client has come or gone: with `frame`, or what is true later."""
        if self.send_queue is None:
            self._updated(1)
            self.send_control(frame)
            return
        updates = self.queue_updates((key,))
        hub = self.state.hub
        most = 2 * (len(hub.active) + len(hub.siblings.best)) + UPDATES_BEHIND
        if len(updates) > most:
            self.end(WatcherTooSlow(f"more than {most} changes wait for it"))

    def update_all(self) -> None:
        """Tell a watcher of every client that is connected."""
        self.queue_updates(self.state.hub.keys(local=self.sibling))

    def queue_updates(self, keys: Collection[bytes]) -> PresenceQueue:
        """Queue what there is to tell of keys, each different; none of it is ever let go."""
        # An empty send queue is false, but not None: something is unsent below it.
        send_queue = self._start_sending(0) if self.send_queue is None else self.send_queue
        if send_queue.presence is None:
            send_queue.presence = PresenceQueue(self._frame_of)
        send_queue.presence.put(keys)
        return send_queue.presence

    def _frame_of(self, key: bytes) -> bytes:
        """Build the frame that tells a watcher whether a key is connected by now."""
        hub = self.state.hub
        if self.sibling:
            if (member := hub.local(key)) is not None:
                return with_claim(member.presence(), hub.claim(key))
        elif (member := hub.active.get(key)) is not None:
            return member.presence()
        elif (link := hub.siblings.best.get(key)) is not None:
            return link.frames[key]
        return peer_gone(key, PeerGoneReason.DISCONNECTED)

    def _updated(self, changes: int) -> None:
        if not self.sibling:
            self.state.metrics.mesh_updates(changes)

    def _sent(self, entries: list[Entry], now: float) -> None:
        metrics = self.state.metrics
        for entry in entries:
            metrics.packets_sent += entry.packets
            metrics.bytes_sent += entry.payload
            metrics.queued((now - entry.since) * 1000, entry.packets)
            if entry.source not in self.saw_src:
                self.state.hub.note_send_from(entry.source, self)
