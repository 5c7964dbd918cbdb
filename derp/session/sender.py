"""The sending half of a peer, which others touch when they have something for it.

How it works: what comes for an idle peer is written through at once, by the task of whoever sent
it; that saves a switch of tasks, and a copy. What the socket does not take makes the peer busy:
from then on frames go to a send queue, and a task of its own sends what is queued, a piece at a
time, until nothing is left. An idle peer has neither.

All that is held for a busy peer counts among what is held for all (derp.relay.queuememory): packets
by its send queue, and here what can't be dropped. Whoever holds most of that is disconnected, where
it is too much; but not who is trusted, since of those there are few.

What must never happen here: an await in `send_control`, since those who call it have a run in the
shared read buffer; a frame written behind half of another; an exception that leaves the sending
task and so ends the whole relay.

A `Connection` is a client's; a `Link` (derp.mesh.link) leads to another relay, or worker.
"""

from typing import Final

import trio

from derp import log
from derp.errors import ConnectionEnd, InternalFault, QueueMemoryFull
from derp.metrics import DropReason
from derp.net.transport import Transport
from derp.relay.queuememory import Holder
from derp.relay.sendqueue import Entry, SendQueue
from derp.session.state import RelayState
from derp.wire.keys import short_key

MIN_SEND: Final = 8 << 10
MAX_SEND: Final = 256 << 10
"""Bytes that the sending task encrypts at a time. What is encrypted can't be dropped any more, so
a peer that takes little at a time is given little; one that takes all is given more next time."""
BUSY_COST: Final = 6 << 10
"""Bytes that the send queue and the task of a busy peer take, with nothing in them."""

logger = log.get("client")


class Sender(Holder):
    """Whoever frames can be sent to; what it holds is what can't be dropped."""

    __slots__ = (
        "_handed",
        "ending",
        "key",
        "progress",
        "send_queue",
        "state",
        "transport",
        "write_timeout",
    )

    def __init__(
        self,
        state: RelayState,
        transport: Transport,
        key: bytes,
        *,
        write_timeout: float,
        now: float,
        trusted: bool,
    ) -> None:
        super().__init__(state.memory.committed, releasable=not trusted)
        self.state = state
        self.transport = transport
        self.key = key
        """The peer's, 32 bytes."""
        self.write_timeout = write_timeout
        """Seconds for which the peer may take nothing; 0 is for ever."""
        self.send_queue: SendQueue | None = None
        self.ending: ConnectionEnd | None = None
        """Set once somebody other than its own task has ended this connection."""
        self.progress: tuple[int, float] = (0, now)
        """What the peer had taken, and when: for the task that looks for stuck peers."""
        # Bytes that sending takes now: the transport's, and those of BUSY_COST.
        self._handed = 0

    def send_control(self, frame: bytes, *, must: bool = False) -> bool:
        """Send or queue a frame that is no packet; False where it had to be let go."""
        if self.send_queue is not None:
            queued = self.send_queue.put_control(frame, must=must)
            self._account()
            return queued
        try:
            self.transport.write(frame)
        except ConnectionEnd as error:
            self.end(error)
            return False
        if self.transport.buffered:
            self._start_sending(len(frame))
        return True

    def end(self, error: ConnectionEnd) -> None:
        """End the connection from outside its own task, which will raise `error`."""
        if self.ending is None:
            self.ending = error
            self.transport.abort()

    def discard_queue(self) -> None:
        """Drop what is queued, now that the peer has left."""
        if self.send_queue is not None:
            self.send_queue.clear(self._drop_gone)
            self._account()

    def release(self, at_least: int) -> None:  # noqa: ARG002 -- it is all or nothing
        """End the connection; see Holder."""
        if self.send_queue is not None:
            self.send_queue.drop_control()
        self._handed = 0
        self.add(-self.held)
        self.end(QueueMemoryFull(f"{self.state.memory.limit} bytes are too few for all peers"))

    def _account(self) -> None:
        """Account for what is held and can't be dropped."""
        control = 0 if self.send_queue is None else self.send_queue.control_held
        self.state.memory.commit(self, self._handed + control)

    def _sent(self, entries: list[Entry], now: float) -> None:
        """Count runs that were queued and have been written."""
        raise NotImplementedError

    def _updated(self, changes: int) -> None:
        """Count changes that a watcher was told of at once."""

    def _dropped(self, reason: DropReason, disco: bool, packets: int, payload: int) -> None:
        """Count packets that were queued and will not be sent; `payload` as an Entry has it."""
        self.state.metrics.drop(reason, disco, packets, payload)

    def _write_error(self) -> DropReason:
        """Say why what can't be written is dropped."""
        return DropReason.GONE_DISCONNECTED if self.ending else DropReason.WRITE_ERROR

    def _make_outbox(self) -> SendQueue:
        """Make what frames wait in while the peer is busy."""
        return SendQueue(self._drop_head, self.state.memory.queued)

    def _start_sending(self, written: int) -> SendQueue:
        """Have a task send; the transport has kept some of the `written` bytes, or all."""
        self.send_queue = send_queue = self._make_outbox()
        self.progress = (self.transport.bytes_written, trio.current_time())
        self.state.sending[self] = None
        self.state.poller.busy_tasks += 1
        self.state.nursery.start_soon(self._send_queued, send_queue)
        self._handed = BUSY_COST + max(written, self.transport.buffered)
        self._account()
        return send_queue

    async def _send_queued(self, send_queue: SendQueue) -> None:
        """Send until nothing is left, or until the connection has ended.

        Whoever cancels this leaves something unsent: the send queue then stays, so that nothing is
        ever written behind half a frame.
        """
        transport, memory = self.transport, self.state.memory
        size = MIN_SEND
        try:
            while True:
                if send_queue.presence:
                    # They may be many, and a socket that takes all of them is never waited for.
                    await trio.lowlevel.checkpoint()
                await transport.flush()
                waiting = len(send_queue.presence or ())
                limit = min(size, memory.write_size)
                pieces, entries = send_queue.take(limit, trio.current_time())
                if not pieces:
                    self.send_queue = None
                    break
                if waiting:
                    self._updated(waiting - len(send_queue.presence or ()))
                self._send_pieces(pieces, entries)
                self._account()
                size = max(size // 2, MIN_SEND) if transport.buffered else min(size * 2, MAX_SEND)
        except ConnectionEnd as error:
            self.end(error)
        except Exception as error:
            # A mistake of ours must end this connection only, and loudly.
            logger.exception("sending was ended by a bug", client=short_key(self.key))
            self.end(InternalFault(repr(error)))
        finally:
            self._handed = 0
            self._account()
            self.state.sent(self)

    def _send_pieces(self, pieces: list[bytes | memoryview], entries: list[Entry]) -> None:
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        try:
            self.transport.write(data)
        except ConnectionEnd:
            for entry in entries:
                self._dropped(DropReason.WRITE_ERROR, entry.disco, entry.packets, entry.payload)
            raise
        # What is kept is kept whole, until its last byte is sent.
        self._handed = BUSY_COST + (len(data) if self.transport.buffered else 0)
        self.state.metrics.buffered_write_frames.observe(
            len(pieces) - len(entries) + sum(entry.packets for entry in entries)
        )
        self._sent(entries, trio.current_time())

    def _drop_head(self, disco: bool, packets: int, payload: int) -> None:
        self._dropped(DropReason.QUEUE_HEAD, disco, packets, payload)

    def _drop_gone(self, disco: bool, packets: int, payload: int) -> None:
        self._dropped(DropReason.GONE_DISCONNECTED, disco, packets, payload)
