"""One link to another relay: who is there is heard on it, packets for them are forwarded on it.

How it works: `forward` is called by the reader of a local client, on the packet path, and writes
through or queues as for a client (derp.session.sender). What comes in is next to nothing, and is
read by the poller like what calm clients send. The keys that the other relay says it has are told
to the hub, and taken back when it says so, or when the link ends, however that comes about.

What must never happen here: an await in `forward`, since the run lies in the shared read buffer,
or an exception from it; a key that outlives the link in the hub.
"""

from typing import Final

import trio

from derp.errors import ConnectionEnd, PeerVanished, ProtocolViolation
from derp.metrics import DropReason
from derp.net.transport import Transport
from derp.relay.drrqueue import DRRQueue
from derp.relay.sendqueue import Entry, SendQueue
from derp.session.sender import Sender
from derp.session.state import PRIVILEGED_WRITE_TIMEOUT, RelayState
from derp.wire.forwarding import forward_frames
from derp.wire.frames import (
    HEADER_LENGTH,
    KEY_LENGTH,
    PACKET_OVERHEAD,
    PING_LENGTH,
    FrameType,
    pong,
)
from derp.wire.linkframes import LinkFrames

QUIET: Final = 120.0
"""Seconds without a byte after which the other relay counts as gone (Go: Client.Recv); it sends a
keep-alive at least every 65 s."""
READ: Final = 32 << 10
"""Bytes read at a time, so that a relay which tells of many clients leaves others their turn."""
MAX_PONGS: Final = 64
"""Pongs sent for one read; pings beyond are ignored."""
MAX_CLIENTS: Final = 1 << 20
"""Keys that one relay may tell of: more than any relay has, and bounded."""
TOLD_AT_ONCE: Final = 100
"""Clients told that somebody has gone with a link, at least, before others have their turn."""

_PEER_PRESENT: Final = int(FrameType.PEER_PRESENT)
_PEER_GONE: Final = int(FrameType.PEER_GONE)
_PING: Final = int(FrameType.PING)
_RESTARTING: Final = int(FrameType.RESTARTING)


def forget_frames(error: BaseException) -> None:
    """Cut off where an exception was raised, and its causes were.

    Those frames hold the link that keeps the exception: a cycle, and all that the link has, until
    the garbage collector looks.
    """
    error.__traceback__ = error.__cause__ = error.__context__ = None


class Link(Sender):
    """A connection on which this relay is logged in at another one, and watches."""

    __slots__ = ("_ended", "_frames", "_patience", "present", "restarts_in")

    def __init__(self, state: RelayState, transport: Transport, key: bytes, *, now: float) -> None:
        timeout = PRIVILEGED_WRITE_TIMEOUT
        super().__init__(state, transport, key, write_timeout=timeout, now=now, trusted=True)
        self.present: set[bytes] = set()
        """The keys that the other relay has said to be connected there, up to the end."""
        self.restarts_in: float | None = None
        """Seconds after which it wants to be dialled again, if it has said that it restarts."""
        self._frames = LinkFrames()
        self._patience = trio.CancelScope()
        self._ended = False

    def forward(
        self, run: memoryview, packets: int, payload: int, destination: bytes, *, disco: bool
    ) -> None:
        """Send or queue a run of `packets` RecvPacket frames; see derp.session.state.Forwarder."""
        frames = forward_frames(run, packets, destination)
        if self.send_queue is not None:
            source = bytes(run[HEADER_LENGTH:PACKET_OVERHEAD])
            self.send_queue.put(frames, packets, source, trio.current_time(), disco=disco)
            return
        try:
            self.transport.write(frames)
        except ConnectionEnd as error:
            self.state.metrics.drop(self._write_error(), disco, packets, payload)
            self.end(error)
            return
        if self.transport.buffered:
            self._start_sending(len(frames))

    def end(self, error: ConnectionEnd) -> None:
        """End the link from outside its own task, which will raise `error`."""
        forget_frames(error)
        super().end(error)

    async def serve(self, received: bytes) -> None:
        """Hear who comes and goes until the other relay closes the link.

        `received` is what has come already. Raises a ConnectionEnd where the link does not end in
        good order. Closing the transport is left to the caller.
        """
        poller = self.state.poller
        poller.busy_tasks += 1
        try:
            await self._hear(received)
        except PeerVanished:
            # Whoever ended the link from outside knows the reason.
            if self.ending is not None:
                raise self.ending from None
            raise
        finally:
            lost = self._forget()
            self.discard_queue()
            try:
                await self._tell(lost)
            finally:
                poller.busy_tasks -= 1

    def _forget(self) -> list[bytes]:
        """Take all keys back; return those for which there may be somebody to tell."""
        return self.state.hub.remove_link(self.present, self)

    async def _tell(self, lost: list[bytes]) -> None:
        """Tell who knew these keys that they have gone, unless all clients are leaving anyway."""
        state, told = self.state, 0
        await trio.lowlevel.checkpoint_if_cancelled()
        for key in lost:
            if state.stopping:
                break
            members = state.hub.note_peer_gone(key)
            for member in members:
                member.peer_disconnected(key)
            told += len(members)
            if told >= TOLD_AT_ONCE:
                told = 0
                await trio.lowlevel.checkpoint()

    async def _hear(self, received: bytes) -> None:
        self._act(received)
        self._patience.deadline = trio.current_time() + QUIET
        with self._patience:
            while not self._ended:
                await self.transport.read_through(self.state.poller, self._step)
        if self._patience.cancelled_caught:
            raise PeerVanished(f"nothing came for {QUIET:.0f} s")

    def _step(self) -> bool:
        """Read once and act on it; return whether `serve` has to go on itself."""
        received = self.transport.read_into(self.state.view[:READ])
        if received < 0:
            if self._frames.in_frame:
                raise PeerVanished("the connection was closed in the middle of a frame")
            self._ended = True
            return True
        if received:
            self._patience.deadline = trio.current_time() + QUIET
            self._act(self.state.view[:received])
        return self.transport.more

    def _act(self, received: bytes | memoryview) -> None:
        """Act on the frames that are whole by now. Raises ProtocolViolation."""
        pongs: list[bytes] = []
        frames = self._frames
        malformed = frames.malformed
        try:
            for kind, payload in frames.feed(received):
                if kind == _PEER_PRESENT:
                    self._add(payload)
                elif kind == _PEER_GONE:
                    # Whatever the reason: it does not have the client (Go: RunWatchConnectionLoop).
                    key = payload[:KEY_LENGTH]
                    self.present.discard(key)
                    self._remove(key)
                elif kind == _PING:
                    pongs.append(pong(payload[:PING_LENGTH]))
                elif kind == _RESTARTING:
                    self.restarts_in = int.from_bytes(payload[:4], "big") / 1000
        finally:
            self.state.metrics.unknown_frames += frames.malformed - malformed
            if pongs:
                self.send_control(b"".join(pongs[:MAX_PONGS]))

    def _add(self, payload: bytes) -> None:
        """Note that a client is there; it is told of again for each connection it has."""
        key = payload[:KEY_LENGTH]
        if self._note(key):
            self.state.hub.add_forwarder(key, self)

    def _note(self, key: bytes) -> bool:
        """Note that a key is there; return whether that is new. Raises ProtocolViolation."""
        if key in self.present:
            return False
        if len(self.present) >= MAX_CLIENTS:
            raise ProtocolViolation(f"it tells of more than {MAX_CLIENTS} clients")
        self.present.add(key)
        return True

    def _remove(self, key: bytes) -> None:
        for member in self.state.hub.remove_forwarder(key, self):
            member.peer_disconnected(key)

    def _make_outbox(self) -> SendQueue:
        return DRRQueue(self._drop_head, self.state.memory.queued)

    def _sent(self, entries: list[Entry], now: float) -> None:
        """Packets that are forwarded are counted where the hub is asked for the link."""

    def _dropped(self, reason: DropReason, disco: bool, packets: int, payload: int) -> None:
        """Count packets; a ForwardPacket frame has a key more than an Entry takes off."""
        super()._dropped(reason, disco, packets, payload - packets * KEY_LENGTH)
