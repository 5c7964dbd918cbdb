"""The sending half of a *peer*: a client (derp.session.client) or a link (derp.mesh.link).

How it works: a frame for an idle peer is written through at once, by the task that has the frame;
that saves a task switch and a copy. A peer is busy once its socket doesn't take all bytes: then it
has a send queue, and a task that sends what is queued, a piece at a time, until nothing is left.

The memory of all busy peers together is bounded (derp.relay.queuememory): the send queue accounts
for packets, this file for what can't be dropped. Above the bound, the untrusted peer that holds
most is disconnected.

Invariants: no await in `send_control`, since its callers have a train in the shared read buffer; no
frame is written after half of another; no exception leaves the send task and so ends the relay.
"""

from functools import partial
from typing import Final

import attrs
import trio

from derp import log
from derp.errors import ConnectionEnd, InternalFault, QueueMemoryFull
from derp.metrics import DropReason, Metrics
from derp.net.poller import Poller
from derp.net.transport import Transport
from derp.relay.flowqueue import Entry
from derp.relay.queuememory import Holder, QueueMemory
from derp.relay.sendqueue import SendQueue
from derp.wire.keys import short_key

PRIVILEGED_WRITE_TIMEOUT: Final = 30.0
"""Seconds for which a trusted peer may take no byte (Go: privilegedWriteTimeout)."""
MIN_SEND: Final = 8 << 10
MAX_SEND: Final = 256 << 10
"""Bytes that the send task encrypts at a time, and can't drop afterwards: half as many when the
socket doesn't take all of them, twice as many when it does."""
MAX_PONGS: Final = 64
"""Pings answered per read; the rest are ignored, as the Go derper does with too frequent ones."""
BUSY_COST: Final = 6 << 10
"""Bytes of a busy peer's task and empty send queue."""

logger = log.get("client")


@attrs.define(eq=False)
class SendTasks:
    """The send tasks, one for each busy peer, and what they share."""

    nursery: trio.Nursery
    poller: Poller
    memory: QueueMemory
    metrics: Metrics
    write_timeout: float
    """Seconds, for clients; see Sender."""
    sending: "dict[Sender, None]" = attrs.field(init=False, factory=dict)
    """The busy peers."""
    _idle: trio.Event = attrs.field(init=False, factory=trio.Event)

    def start(self, sender: "Sender", send_queue: SendQueue) -> None:
        """Start the send task of a peer that has become busy."""
        self.sending[sender] = None
        self.poller.busy_tasks += 1
        self.nursery.start_soon(sender.send_queued, send_queue)

    def ended(self, sender: "Sender") -> None:
        """Note that a peer's send task has ended."""
        del self.sending[sender]
        self.poller.busy_tasks -= 1
        if not self.sending:
            self._idle.set()

    async def all_sent(self) -> None:
        """Wait until no peer is busy."""
        while self.sending:
            self._idle = trio.Event()
            await self._idle.wait()


class Sender(Holder):
    """The sending half of one peer; as a Holder it accounts for bytes that can't be dropped."""

    __slots__ = (
        "_sending_size",
        "ending",
        "key",
        "metrics",
        "packets_dropped",
        "progress",
        "send_queue",
        "tasks",
        "transport",
        "write_timeout",
    )

    def __init__(
        self, tasks: SendTasks, transport: Transport, key: bytes, *, now: float, trusted: bool
    ) -> None:
        super().__init__(tasks.memory.committed, releasable=not trusted)
        self.tasks = tasks
        self.metrics = tasks.metrics
        self.transport = transport
        self.key = key
        """The peer's node key, 32 bytes."""
        self.write_timeout = PRIVILEGED_WRITE_TIMEOUT if trusted else tasks.write_timeout
        """Seconds for which the peer may take no byte; 0 is for ever."""
        self.send_queue: SendQueue | None = None
        self.ending: ConnectionEnd | None = None
        """Why another task has ended this connection, if one has."""
        self.packets_dropped = 0
        """Packets for this peer that were dropped in its queue, or as its connection ended."""
        self.progress: tuple[int, float] = (0, now)
        """Bytes that the peer had taken, and when, for derp.session.timers to find stuck peers."""
        # Bytes that the send task accounts for: BUSY_COST, and what the transport has buffered.
        self._sending_size = 0

    def send_control(self, frame: bytes, *, must: bool = False) -> bool:
        """Send or queue a frame other than a packet; return whether it was sent or queued.

        `must`: queue it even where the control lane is full.
        """
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

    def send_pongs(self, pongs: list[bytes]) -> None:
        """Answer the pings of one read, MAX_PONGS at most."""
        answers = pongs[:MAX_PONGS]
        sent = self.send_control(b"".join(answers))
        self._count_pings(len(pongs), len(answers) if sent else 0)

    def end(self, error: ConnectionEnd) -> None:
        """End the connection from another task; its own task then raises `error`."""
        if self.ending is None:
            self.ending = error
            self.transport.abort()

    def discard_queue(self) -> None:
        """Drop what is queued for a peer that has left."""
        if self.send_queue is not None:
            self.send_queue.clear(partial(self._on_drop, DropReason.GONE_DISCONNECTED))
            self._account()

    def release(self, at_least: int) -> None:  # noqa: ARG002 -- it is all or nothing
        """End the connection; see Holder."""
        if self.send_queue is not None:
            self.send_queue.drop_control()
        self._sending_size = 0
        self.add(-self.held)
        self.end(QueueMemoryFull(f"{self.tasks.memory.limit} bytes are too few for all peers"))

    async def send_queued(self, send_queue: SendQueue) -> None:
        """Send until nothing is queued, or the connection has ended: the peer's send task.

        If cancelled, it keeps `send_queue` set, so that nothing is written after half a frame.
        """
        transport, memory = self.transport, self.tasks.memory
        size = MIN_SEND
        try:
            while True:
                if send_queue.presence:
                    # Changes may be many, and `flush` does not wait while the socket takes all.
                    await trio.lowlevel.checkpoint()
                await transport.flush()
                waiting = len(send_queue.presence or ())
                limit = min(size, memory.write_size)
                pieces, entries = send_queue.take(limit, trio.current_time())
                if not pieces:
                    self.send_queue = None
                    break
                if waiting:
                    self._count_updates(waiting - len(send_queue.presence or ()))
                self._send_pieces(pieces, entries)
                self._account()
                size = max(size // 2, MIN_SEND) if transport.buffered else min(size * 2, MAX_SEND)
        except ConnectionEnd as error:
            self.end(error)
        except Exception as error:
            # A bug must be logged, and end this connection only.
            logger.exception("sending was ended by a bug", client=short_key(self.key))
            self.end(InternalFault(repr(error)))
        finally:
            self._sending_size = 0
            self._account()
            self.tasks.ended(self)

    def _account(self) -> None:
        """Commit the memory of what can't be dropped."""
        control = 0 if self.send_queue is None else self.send_queue.control_held
        self.tasks.memory.commit(self, self._sending_size + control)

    def _count_sent(self, entries: list[Entry], now: float) -> None:
        """Count queued trains that have been written."""
        raise NotImplementedError

    def _count_updates(self, changes: int) -> None:
        """Count presence changes that were written together."""

    def _count_pings(self, received: int, answered: int) -> None:
        """Count the pings of one read."""

    def _on_drop(self, reason: DropReason, disco: bool, packets: int, payload: int) -> None:
        """Count dropped packets; `payload` as in Entry."""
        self.packets_dropped += packets
        self.metrics.drop(reason, disco, packets, payload)

    def _drop_reason(self) -> DropReason:
        """Return the reason for drops of packets that can't be written."""
        return DropReason.GONE_DISCONNECTED if self.ending else DropReason.WRITE_ERROR

    def _make_send_queue(self) -> SendQueue:
        """Make the queue of a peer that becomes busy."""
        return SendQueue(partial(self._on_drop, DropReason.QUEUE_HEAD), self.tasks.memory.queued)

    def _start_sending(self, written: int) -> SendQueue:
        """Make the peer busy: the transport has buffered some of the `written` bytes."""
        self.send_queue = send_queue = self._make_send_queue()
        self.progress = (self.transport.bytes_written, trio.current_time())
        self.tasks.start(self, send_queue)
        self._sending_size = BUSY_COST + max(written, self.transport.buffered)
        self._account()
        return send_queue

    def _send_pieces(self, pieces: list[bytes | memoryview], entries: list[Entry]) -> None:
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        try:
            self.transport.write(data)
        except ConnectionEnd:
            for entry in entries:
                self._on_drop(DropReason.WRITE_ERROR, entry.disco, entry.packets, entry.payload)
            raise
        # The transport keeps the whole object until its last byte is sent.
        self._sending_size = BUSY_COST + (len(data) if self.transport.buffered else 0)
        self.metrics.buffered_write_frames.observe(
            len(pieces) - len(entries) + sum(entry.packets for entry in entries)
        )
        self._count_sent(entries, trio.current_time())
