"""A logged-in client: routes its packets, delivers others' packets and presence to it.

Invariants: no await in `route` or `deliver`, since the train lies in the shared read buffer; they
raise nothing in the sending client's task when the receiving one fails.
"""

import struct
from collections.abc import Collection, Mapping
from typing import ClassVar, Final, Protocol

import trio

from derp.accounts.counts import ZERO, Counts
from derp.errors import ConnectionEnd, WatcherTooSlow
from derp.metrics import DropReason
from derp.net import tcpinfo
from derp.net.transport import Transport
from derp.relay.flowqueue import Entry
from derp.relay.groups import NO_GROUP
from derp.relay.hub import Hub
from derp.relay.presencequeue import PresenceQueue
from derp.relay.tokenbucket import TokenBucket
from derp.session.sender import Sender, SendTasks
from derp.wire.frames import PeerGoneReason, PresentFlags, peer_gone, peer_present
from derp.wire.trains import Train

# Peer-gone answers to packets for an absent client (Go: peerGoneLim).
_PEER_GONE_RATE: Final = 1.0
_PEER_GONE_BURST: Final = 3
UPDATE_SLACK: Final = 4096
"""A watcher is disconnected when more changes wait for it than this plus two for each client: on a
new connection it is told only of the clients connected then."""


class Forwarder(Protocol):
    """A link to another relay, or to another worker of this one."""

    @property
    def groups(self) -> Mapping[bytes, bytes]:
        """The tag of the group of each key connected there, as far as it is told."""

    def forward(
        self, train: Train, packets: int, payload: int, destination: bytes, disco: bool
    ) -> None:
        """Send or queue a train of `packets` RecvPacket frames for `destination`.

        `payload` is the number of bytes that are not frame headers or keys. The train may lie in
        the shared read buffer. Never raises.
        """


class WorkerForwarder(Forwarder, Protocol):
    """A link to another worker of this relay."""

    @property
    def frames(self) -> Mapping[bytes, bytes]:
        """The PeerPresent frame of each key connected to that worker."""

    def send_control(self, frame: bytes, *, must: bool = False) -> bool:
        """Send or queue a frame other than a packet; return whether it was sent or queued."""


class Client(Sender):
    """One logged-in client."""

    __slots__ = (
        "_peer_gone_bucket",
        "accounted",
        "admitted_by",
        "bucket",
        "connected_at",
        "duplicate",
        "flags",
        "group",
        "health",
        "hub",
        "not_ideal",
        "packets_received",
        "packets_sent",
        "preferred",
        "saw_src",
        "wire_bytes",
    )

    can_mesh: ClassVar = False
    """Whether the client has shown the mesh key: then it is trusted and has no rate limit."""

    def __init__(
        self,
        tasks: SendTasks,
        hub: "ClientHub",
        transport: Transport,
        key: bytes,
        *,
        now: float,
        flags: PresentFlags = PresentFlags.REGULAR,
        bucket: TokenBucket | None = None,
    ) -> None:
        super().__init__(tasks, transport, key, now=now, trusted=self.can_mesh)
        self.hub = hub
        self.flags = flags
        self.not_ideal = PresentFlags.NOT_IDEAL in flags
        self.preferred = False
        self.connected_at = now
        self.admitted_by = ""
        """The source that admitted the client, if clients are isolated."""
        self.group = NO_GROUP
        """The tag of its group (derp.relay.groups), if clients are isolated."""
        self.bucket = bucket
        """Limits what the client sends; None for no limit."""
        self.duplicate = False
        self.saw_src: set[bytes] = set()
        self.packets_received = 0
        """Packets that the client has sent for others."""
        self.packets_sent = 0
        """Packets that were written to the client."""
        self.wire_bytes = (0, 0)
        """Bytes that TCP has acknowledged, to the client and from it, when last asked."""
        self.accounted: Counts = ZERO
        """What is in the accounts already."""
        self.health = ""
        """What the client was told is wrong, since its last ServerInfo (derp.session.health)."""
        self._peer_gone_bucket: TokenBucket | None = None

    def route(
        self,
        train: Train,
        packets: int,
        payload: int,
        source: bytes,
        destination: bytes,
        disco: bool,
        forwarded: bool,
    ) -> None:
        """Hand a train from this client to its destination, or drop it.

        The destination is here, at another worker of this relay, or at another relay; a train
        `forwarded` by a relay goes to no third one. Other parameters as for `deliver`.
        """
        hub, metrics = self.hub, self.metrics
        if forwarded:
            metrics.packets_forwarded_in += packets
        if (client := hub.active.get(destination)) is not None:
            client.deliver(train, packets, payload, source, disco)
            return
        if (worker_link := hub.other_workers.best.get(destination)) is not None:
            worker_link.forward(train, packets, payload, destination, disco)
            return
        if forwarded:
            metrics.drop(DropReason.UNKNOWN_DEST_ON_FWD, disco, packets, payload)
        elif (relay_link := hub.forwarders.best.get(destination)) is not None:
            metrics.packets_forwarded_out += packets
            relay_link.forward(train, packets, payload, destination, disco)
            return
        else:
            metrics.drop(DropReason.UNKNOWN_DEST, disco, packets, payload)
        if disco:
            self._answer_not_here(destination, packets, trio.current_time())

    def deliver(self, train: Train, packets: int, payload: int, source: bytes, disco: bool) -> None:
        """Send or queue a train: `packets` RecvPacket frames from `source`.

        `payload` is the number of bytes that are not frame headers or keys.
        """
        if self.send_queue is not None:
            now = trio.current_time()
            self.send_queue.put(bytes(train), packets, source, now, disco=disco)
            return
        try:
            self.transport.write(train)
        except ConnectionEnd as error:
            self._on_drop(self._drop_reason(), disco, packets, payload)
            self.end(error)
            return
        self.packets_sent += packets
        metrics = self.metrics
        metrics.packets_sent += packets
        metrics.bytes_sent += payload
        # Histogram.observe, inlined.
        observed = metrics.buffered_write_frames
        observed.counts[packets if packets <= observed.limit else -1] += 1
        observed.sum += packets
        if metrics.average_queue_duration_ms:
            metrics.queued(0.0, packets)
        if source not in self.saw_src:
            self.hub.note_send_from(source, self)
        if self.transport.buffered:
            self._start_sending(len(train))

    def peer_disconnected(self, key: bytes) -> None:
        """Send PeerGone for a client whose packets were delivered to this one."""
        # Sent only once, so never dropped; `saw_src` bounds how many there are.
        if self.send_control(peer_gone(key, PeerGoneReason.DISCONNECTED), must=True):
            self.metrics.peer_gone_disconnected_frames += 1

    def end(self, error: ConnectionEnd) -> None:
        """End the connection from another task; see Sender."""
        if self.ending is None:
            self.note_bytes(is_over=True)
        super().end(error)

    def note_bytes(self, *, is_over: bool = False) -> None:
        """Ask the kernel for the bytes of the connection, unless it is closed.

        `is_over`: nothing is read from it any more.
        """
        try:
            info = self.transport.tcp_info()
            sent, received = tcpinfo.sent_and_received(info)
            ended = tcpinfo.peer_ended(info)
            if ended is None:
                if not is_over:
                    return  # asked now, the kernel would not tell the reader of the reset
                ended = self.transport.end_received()
            self.wire_bytes = sent, received - ended
        except (OSError, struct.error):
            # Closed; or no TCP of Linux, which leaves what the socket has taken.
            sent, received = self.wire_bytes
            self.wire_bytes = sent or self.transport.bytes_written, received

    def present_frame(self) -> bytes:
        """Return the PeerPresent frame of this client."""
        remote = self.transport.remote
        return peer_present(self.key, remote.ip, remote.port, self.flags, self.group)

    def update(self, key: bytes, frame: bytes) -> None:
        """Send `frame`, the presence of `key`, to this watcher; if busy, queue the key instead."""
        if self.send_queue is None:
            self._count_updates(1)
            self.send_control(frame)
            return
        updates = self.queue_updates((key,))
        limit = 2 * (len(self.hub.active) + len(self.hub.other_workers.best)) + UPDATE_SLACK
        if len(updates) > limit:
            self.end(WatcherTooSlow(f"more than {limit} changes wait for it"))

    def update_all(self) -> None:
        """Tell this watcher of every client that is connected."""
        self.queue_updates(self.hub.keys(local=False))

    def queue_updates(self, keys: Collection[bytes]) -> PresenceQueue:
        """Queue the presence of distinct `keys` for this watcher; it is never dropped."""
        # An empty send queue is false, but not None: the transport still has bytes to send.
        send_queue = self._start_sending(0) if self.send_queue is None else self.send_queue
        if send_queue.presence is None:
            send_queue.presence = PresenceQueue(self._frame_of)
        send_queue.presence.put(keys)
        return send_queue.presence

    def _frame_of(self, key: bytes) -> bytes:
        """Return PeerPresent or PeerGone for a key, as it is now."""
        if (client := self.hub.active.get(key)) is not None:
            return client.present_frame()
        if (worker := self.hub.other_workers.best.get(key)) is not None:
            return worker.frames[key]
        return peer_gone(key, PeerGoneReason.DISCONNECTED)

    def _answer_not_here(self, key: bytes, packets: int, now: float) -> None:
        """Answer each disco packet for the absent client `key` by PeerGone, within a rate limit."""
        if self._peer_gone_bucket is None:
            self._peer_gone_bucket = TokenBucket(_PEER_GONE_RATE, _PEER_GONE_BURST, now)
        for _ in range(packets):
            if not self._peer_gone_bucket.allow(now):
                break
            if self.send_control(peer_gone(key, PeerGoneReason.NOT_HERE)):
                self.metrics.peer_gone_not_here_frames += 1

    def _count_updates(self, changes: int) -> None:
        self.metrics.mesh_updates(changes)

    def _count_pings(self, received: int, answered: int) -> None:
        self.metrics.got_ping += received
        self.metrics.sent_pong += answered

    def _count_sent(self, entries: list[Entry], now: float) -> None:
        metrics = self.metrics
        for entry in entries:
            self.packets_sent += entry.packets
            metrics.packets_sent += entry.packets
            metrics.bytes_sent += entry.payload
            metrics.queued((now - entry.since) * 1000, entry.packets)
            if entry.source not in self.saw_src:
                self.hub.note_send_from(entry.source, self)


ClientHub = Hub[Client, Forwarder, WorkerForwarder]
