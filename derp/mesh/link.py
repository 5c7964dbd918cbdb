"""One link to another relay: learns which keys are connected there, and forwards packets to them.

How it works: a local client's reader calls `forward`, on the packet path, which writes through or
queues as for a client (derp.session.sender). Little is received, so the poller reads it as for idle
clients. The keys connected there are in the hub until their PeerGone, or the link's end.

Invariants: no await in `forward`, since the train lies in the shared read buffer, and no exception
from it; no key outlives the link in the hub.
"""

from functools import partial
from typing import Final

import trio

from derp.errors import ConnectionEnd, PeerVanished, ProtocolViolation
from derp.metrics import DropReason
from derp.net.transport import Transport
from derp.relay.flowqueue import Entry
from derp.relay.sendqueue import LINK, SendQueue
from derp.session.sender import Sender
from derp.session.state import RelayState
from derp.wire.forwarding import forward_frames
from derp.wire.frames import (
    HEADER_LENGTH,
    KEY_LENGTH,
    PACKET_OVERHEAD,
    PING_LENGTH,
    FrameType,
    group_in,
    pong,
)
from derp.wire.linkframes import LinkFrames
from derp.wire.trains import Train

IDLE_TIMEOUT: Final = 120.0
"""Seconds without a byte after which the other relay counts as gone (Go: Client.Recv); it sends a
keep-alive at least every 65 s."""
READ_SIZE: Final = 32 << 10
"""Bytes read at a time, so that other tasks run while a relay announces many clients."""
MAX_CLIENTS: Final = 1 << 20
"""Keys that one relay may announce: more than any has."""
CLIENTS_PER_TURN: Final = 100
"""Clients that are sent PeerGone before other tasks run; more if the last key has more."""

_PEER_PRESENT: Final = int(FrameType.PEER_PRESENT)
_PEER_GONE: Final = int(FrameType.PEER_GONE)
_PING: Final = int(FrameType.PING)
_RESTARTING: Final = int(FrameType.RESTARTING)


def drop_tracebacks(error: BaseException) -> None:
    """Drop an exception's traceback and causes.

    Their stack frames refer to the link, which refers to the exception: such a cycle would keep the
    link's memory until the garbage collector runs.
    """
    error.__traceback__ = error.__cause__ = error.__context__ = None


class Link(Sender):
    """A connection by which this relay is logged in at another one, and watches."""

    __slots__ = ("_ended", "_frames", "_idle_scope", "groups", "present", "restarts_in", "state")

    def __init__(self, state: RelayState, transport: Transport, key: bytes, *, now: float) -> None:
        super().__init__(state.send_tasks, transport, key, now=now, trusted=True)
        self.state = state
        self.present: set[bytes] = set()
        """The keys that are connected there; not cleared at the link's end."""
        self.groups: dict[bytes, bytes] = {}
        """The tags of their groups, if clients are isolated here and there."""
        self.restarts_in: float | None = None
        """Seconds after which to dial again, once the other relay has announced a restart."""
        self._frames = LinkFrames()
        self._idle_scope = trio.CancelScope()
        self._ended = False

    def forward(
        self, train: Train, packets: int, payload: int, destination: bytes, disco: bool
    ) -> None:
        """Send or queue a train of `packets` RecvPacket frames; see session.client.Forwarder."""
        frames = forward_frames(train, packets, destination)
        if self.send_queue is not None:
            source = bytes(train[HEADER_LENGTH:PACKET_OVERHEAD])
            self.send_queue.put(frames, packets, source, trio.current_time(), disco=disco)
            return
        try:
            self.transport.write(frames)
        except ConnectionEnd as error:
            self.metrics.drop(self._drop_reason(), disco, packets, payload)
            self.end(error)
            return
        if self.transport.buffered:
            self._start_sending(len(frames))

    def end(self, error: ConnectionEnd) -> None:
        """End the link from another task; its own task then raises `error`."""
        drop_tracebacks(error)
        super().end(error)

    async def serve(self, received: bytes) -> None:
        """Read presence, first from `received`, until the other relay closes the link.

        The caller closes the transport. Raises a ConnectionEnd for any other end.
        """
        poller = self.state.poller
        poller.busy_tasks += 1
        try:
            await self._read(received)
        except PeerVanished:
            # The task that called `end` knows the reason.
            if self.ending is not None:
                raise self.ending from None
            raise
        finally:
            lost = self._remove_all()
            self.discard_queue()
            try:
                await self._send_peer_gone(lost)
            finally:
                poller.busy_tasks -= 1

    def _remove_all(self) -> list[bytes]:
        """Remove all keys; return those whose packets local clients may have got."""
        return self.state.hub.remove_link(self.present, self)

    async def _send_peer_gone(self, lost: list[bytes]) -> None:
        """Send PeerGone to clients that got packets from these keys, unless the relay stops."""
        state, sent = self.state, 0
        await trio.lowlevel.checkpoint_if_cancelled()
        for key in lost:
            if state.stopping:
                break
            members = state.hub.note_peer_gone(key)
            for member in members:
                member.peer_disconnected(key)
            sent += len(members)
            if sent >= CLIENTS_PER_TURN:
                sent = 0
                await trio.lowlevel.checkpoint()

    async def _read(self, received: bytes) -> None:
        self._act(received)
        self._idle_scope.deadline = trio.current_time() + IDLE_TIMEOUT
        with self._idle_scope:
            while not self._ended:
                await self.transport.read_through(self.state.poller, self._step)
        if self._idle_scope.cancelled_caught:
            raise PeerVanished(f"nothing came for {IDLE_TIMEOUT:.0f} s")

    def _step(self) -> bool:
        """Read once and act on the frames; return as a `poller.Step` does."""
        received = self.transport.read_into(self.state.view[:READ_SIZE])
        if received < 0:
            if self._frames.in_frame:
                raise PeerVanished("the connection was closed in the middle of a frame")
            self._ended = True
            return True
        if received:
            self._idle_scope.deadline = trio.current_time() + IDLE_TIMEOUT
            self._act(self.state.view[:received])
        return self.transport.more

    def _act(self, received: bytes | memoryview) -> None:
        """Act on the frames that are complete now. Raises ProtocolViolation."""
        pongs: list[bytes] = []
        frames = self._frames
        malformed = frames.malformed
        try:
            for kind, payload in frames.feed(received):
                if kind == _PEER_PRESENT:
                    self._add(payload)
                elif kind == _PEER_GONE:
                    # For any reason, as in Go's RunWatchConnectionLoop.
                    key = payload[:KEY_LENGTH]
                    self.present.discard(key)
                    self.groups.pop(key, None)
                    self._remove(key)
                elif kind == _PING:
                    pongs.append(pong(payload[:PING_LENGTH]))
                elif kind == _RESTARTING:
                    self.restarts_in = int.from_bytes(payload[:4], "big") / 1000
        finally:
            self.metrics.unknown_frames += frames.malformed - malformed
            if pongs:
                self.send_pongs(pongs)

    def _add(self, payload: bytes) -> None:
        """Add the key of a PeerPresent frame: one is sent for each connection of a client."""
        key = payload[:KEY_LENGTH]
        is_new = self._add_present(key)
        self._note_group(key, payload)
        if is_new:
            self.state.hub.add_forwarder(key, self)

    def _note_group(self, key: bytes, payload: bytes) -> None:
        """Note the group in the payload of a PeerPresent frame."""
        if self.state.isolate:
            self.groups[key] = group_in(payload)

    def _add_present(self, key: bytes) -> bool:
        """Add a key to `present`; return whether it is new. Raises ProtocolViolation."""
        if key in self.present:
            return False
        if len(self.present) >= MAX_CLIENTS:
            raise ProtocolViolation(f"it announces more than {MAX_CLIENTS} clients")
        self.present.add(key)
        return True

    def _remove(self, key: bytes) -> None:
        for member in self.state.hub.remove_forwarder(key, self):
            member.peer_disconnected(key)

    def _make_send_queue(self) -> SendQueue:
        on_drop = partial(self._on_drop, DropReason.QUEUE_HEAD)
        return SendQueue(on_drop, self.tasks.memory.queued, LINK)

    def _count_sent(self, entries: list[Entry], now: float) -> None:
        """Count nothing: forwarded packets are counted in Client.route."""

    def _on_drop(self, reason: DropReason, disco: bool, packets: int, payload: int) -> None:
        """Count dropped packets; `payload` includes one key of each ForwardPacket frame."""
        super()._on_drop(reason, disco, packets, payload - packets * KEY_LENGTH)
