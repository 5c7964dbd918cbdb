"""Packets that wait for one peer, in a sub-queue for each sender: FQ-CoDel (RFC 8290).

The peer is a client, or another relay. Its packets leave by deficit round robin, the sub-queues of
senders that had nothing queued first: a packet of a quiet sender never waits behind the queue of a
busy one. CoDel (derp.relay.codel) shortens each sub-queue that stands; an unresponsive sender loses
all that has waited for an INTERVAL. Beyond a bound in bytes the longest sub-queue loses packets
from its head. Where the peer takes next to nothing, CoDel seldom gets to decide: what is older than
MAX_WAIT is dropped, but for the newest KEEP bytes of a sender.

RFC 8290 hashes flows to a fixed number of sub-queues; here a flow is a sender's node key, and has a
sub-queue only while something waits. A train (consecutive frames, from one read) is queued whole.

Invariants: only whole frames are dropped; each drop calls `on_drop`; packets of one sender keep
their order; all bytes that are held are accounted for.
"""

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from derp.relay.codel import INTERVAL, MAX_PACKET, TARGET, CoDel
from derp.relay.queuememory import Holder, MemoryBudget
from derp.wire.frames import HEADER, HEADER_LENGTH, PACKET_OVERHEAD

QUANTUM: Final = 4 << 10
"""Bytes by which a flow's deficit grows in each round."""
MAX_WAIT: Final = 1.0
"""Seconds after which a packet is too old to be worth its memory."""
KEEP: Final = 16 << 10
"""Bytes of memory of a flow's newest packets, which are not dropped for their age."""
ENTRY_COST: Final = 150
"""Bytes that an entry counts for besides its frames."""
FLOW_COST: Final = 1000
"""Bytes that a flow counts for besides its entries."""

OnDrop = Callable[[bool, int, int], None]
"""Called with (disco, packets, bytes of packets) for what is dropped."""


class Entry:
    """A queued train: `data[offset:]` is `packets` whole RecvPacket frames from `source`."""

    __slots__ = ("data", "disco", "offset", "packets", "since", "source")

    def __init__(
        self, data: bytes, packets: int, source: bytes, since: float, *, disco: bool
    ) -> None:
        self.data = data
        self.disco = disco
        self.offset = 0
        self.packets = packets
        self.source = source
        self.since = since

    @property
    def size(self) -> int:
        """Bytes of the frames that are left."""
        return len(self.data) - self.offset

    @property
    def payload(self) -> int:
        """Bytes of the packets that are left, without headers and keys."""
        return self.size - self.packets * PACKET_OVERHEAD

    def head_size(self) -> int:
        """Return the bytes of the first frame that is left."""
        return HEADER_LENGTH + int(HEADER.unpack_from(self.data, self.offset)[1])

    def drop_frames(self, at_least: int) -> tuple[int, int]:
        """Drop frames from the head until `at_least` bytes are gone; return (packets, bytes)."""
        start = position = self.offset
        packets = 0
        while position - start < at_least and packets < self.packets:
            position += HEADER_LENGTH + HEADER.unpack_from(self.data, position)[1]
            packets += 1
        self.packets -= packets
        if 2 * position > len(self.data):
            # In this way, little memory is kept for dropped frames, and little is copied.
            self.data = self.data[position:]
            self.offset = 0
        else:
            self.offset = position
        return packets, position - start


class Flow(Holder):
    """The sub-queue of one sender: trains in the order of their arrival; `held` is their memory."""

    __slots__ = ("_codel", "_on_drop", "deficit", "entries", "size", "source")

    def __init__(self, source: bytes, on_drop: OnDrop, budget: MemoryBudget[Any]) -> None:
        super().__init__(budget)
        self.entries: deque[Entry] = deque()
        self.size = 0
        """Bytes of the frames that wait."""
        self.deficit = QUANTUM
        """Bytes that may leave in this round; negative after more did."""
        self.source = source
        self._codel: CoDel | None = None
        self._on_drop = on_drop

    def take(self, limit: int, now: float, taken: list[Entry]) -> int:
        """Move about `limit` bytes of packets to `taken`, at least a frame; return the bytes.

        What CoDel drops is not counted; 0 means that nothing is left.
        """
        entries = self.entries
        size = freed = 0
        waited = True
        while entries and size < limit:
            head = entries[0]
            waited = now - head.since >= TARGET
            if waited:
                self._shorten(now)
                if not entries:
                    break
                head = entries[0]
            data, offset = head.data, head.offset
            head_size = len(data) - offset
            if head_size > limit - size:
                packets, head_size = self._cut(head, limit - size)
                piece = data[offset : offset + head_size]
                taken.append(Entry(piece, packets, head.source, head.since, disco=head.disco))
            else:
                entries.popleft()
                self.size -= head_size
                freed += len(data) + ENTRY_COST
                taken.append(head)
            size += head_size
        if freed:
            self.add(-freed)
        if self._codel is not None and (not waited or self.size <= MAX_PACKET):
            self._codel.stop()
        return size

    def head_wait(self, now: float) -> float:
        """Return the seconds that the oldest train has waited."""
        return now - self.entries[0].since

    def head_size(self) -> int:
        """Return the bytes of the head packet's frame."""
        return self.entries[0].head_size()

    def drop_head(self, at_least: int = 1) -> None:
        """Drop frames of the oldest train until `at_least` bytes, or the whole train, are gone."""
        head = self.entries[0]
        packets, size = self._cut(head, at_least)
        self._on_drop(head.disco, packets, size - packets * PACKET_OVERHEAD)

    def release(self, at_least: int) -> None:
        """Drop frames from the head until `at_least` bytes are free; see Holder."""
        enough = self.held - at_least
        while self.entries and (excess := self.held - enough) > 0:
            head = self.entries[0]
            # Nothing is freed before half of a train has gone.
            self.drop_head(max(excess, len(head.data) // 2 + 1 - head.offset))

    def expire(self, now: float, most: int, age: float = MAX_WAIT) -> int:
        """Drop at most `most` trains older than `age` seconds, but not the newest KEEP bytes."""
        dropped = 0
        while dropped < most and self.held > KEEP and now - self.entries[0].since > age:
            self.drop_head(self.held - KEEP)
            dropped += 1
        return dropped

    def clear(self, on_drop: OnDrop) -> None:
        """Drop all trains, calling `on_drop` for each."""
        for entry in self.entries:
            on_drop(entry.disco, entry.packets, entry.payload)
        self.entries.clear()
        self.size = 0
        self.add(-self.held)

    def _shorten(self, now: float) -> None:
        if self._codel is None:
            self._codel = CoDel()
        self._codel.shorten(self, now)
        if self._codel.is_unresponsive(now):
            self.expire(now, len(self.entries), INTERVAL)

    def _cut(self, head: Entry, at_least: int) -> tuple[int, int]:
        data = head.data
        packets, size = head.drop_frames(at_least)
        self.size -= size
        if not head.packets:
            self.entries.popleft()
            self.add(-len(data) - ENTRY_COST)
        elif head.data is not data:
            self.add(len(head.data) - len(data))
        return packets, size


class FlowQueue(Holder):
    """The sub-queues of all senders that have something queued; at most `limit` bytes together."""

    __slots__ = ("_flow_memory", "_limit", "_new", "_old", "_on_drop", "_shared")

    def __init__(
        self, limit: int, on_drop: OnDrop, budget: MemoryBudget[Any], *, shared: bool
    ) -> None:
        """Hold nothing yet. `shared`: the peer is a relay, by which many clients are reached."""
        super().__init__(budget)
        # By sender, each in round-robin order (RFC 8290: new and old flows); a flow is in one.
        self._new: dict[bytes, Flow] = {}
        self._old: dict[bytes, Flow] = {}
        self._limit = limit
        self._on_drop = on_drop
        self._shared = shared
        # The memory of the flows, to find the longest.
        self._flow_memory: MemoryBudget[Flow] = MemoryBudget()

    def put(self, entry: Entry) -> None:
        """Append a train to its sender's sub-queue; beyond the bound, the longest loses."""
        source, budget, flow_memory = entry.source, self.budget, self._flow_memory
        flow = self._old.get(source) or self._new.get(source)
        if flow is None:
            flow = self._new[source] = Flow(source, self._on_drop, flow_memory)
        flow.entries.append(entry)
        size = len(entry.data)
        flow.size += size
        # `add`, without the call.
        size += ENTRY_COST
        flow_memory.held += size
        flow.held += size
        if (excess := flow_memory.held - self._room()) > 0:
            self._drop(excess, flow)
        # Only now, so that a full queue does not change the rank twice.
        if flow.held >= flow.below:
            flow_memory.rank(flow, flow.held)
        self._account()
        if budget.held > budget.limit:
            budget.enforce()

    def take(self, limit: int, now: float) -> list[Entry]:
        """Take about `limit` bytes of packets; at least a frame, if one is left."""
        new, old = self._new, self._old
        taken: list[Entry] = []
        size = 0
        while size < limit and (flows := new or old):
            source, flow = next(iter(flows.items()))
            alone = len(new) + len(old) == 1
            if alone:
                found = flow.take(limit - size, now, taken)
            elif flow.deficit > 0:
                found = flow.take(min(flow.deficit, limit - size), now, taken)
                flow.deficit -= found
            elif flow.entries:
                flow.deficit += QUANTUM
                del flows[source]
                old[source] = flow
                continue
            else:
                found = 0
            size += found
            if not found:
                del flows[source]
                if flows is new and old:
                    # Otherwise it could be new again before the others' turn (RFC 8290, 4.2).
                    old[source] = flow
        self._account()
        return taken

    def release(self, at_least: int) -> None:
        """Drop frames of the sender that has most queued; see Holder."""
        if (longest := self._flow_memory.largest()) is not None:
            longest.release(at_least)
            self._remove_if_empty(longest)
        self._account()

    def expire(self, now: float, most: int) -> int:
        """Drop at most `most` trains that have waited too long; return how many."""
        dropped = 0
        for flows in (self._new, self._old):
            for flow in flows.values():
                dropped += flow.expire(now, most - dropped)
        self._account()
        return dropped

    def flows(self) -> list[Flow]:
        """Return the sub-queues, of which some may be empty."""
        return [*self._new.values(), *self._old.values()]

    def clear(self, on_drop: OnDrop) -> None:
        """Drop everything, calling `on_drop` for each train."""
        for flows in (self._new, self._old):
            for flow in flows.values():
                flow.clear(on_drop)
            flows.clear()
        self._account()

    def _room(self) -> int:
        """Return the bytes that trains may take, besides the flows themselves."""
        return self._limit - FLOW_COST * (len(self._new) + len(self._old))

    def _drop(self, excess: int, grown: Flow) -> None:
        """Drop frames of the longest flow, again and again, until the bound is kept.

        `grown`: the flow that has grown, but is ranked by its old size. Memory that a train keeps
        for dropped frames does not count.
        """
        flow_memory = self._flow_memory
        while excess > 0:
            longest = flow_memory.largest() or grown
            if longest.held < grown.held:
                longest = grown
            excess -= longest.entries[0].offset
            if excess <= 0:
                break
            longest.drop_head(excess)
            self._remove_if_empty(longest)
            excess = flow_memory.held - self._room()

    def _remove_if_empty(self, flow: Flow) -> None:
        if not flow.entries:
            self._new.pop(flow.source, None)
            self._old.pop(flow.source, None)

    def _account(self) -> None:
        """Account for the bytes held by now.

        A client's queue is ranked by all its flows, a relay's by the longest flow alone: a little
        from each of many senders is no long queue.
        """
        flow_memory = self._flow_memory
        queued = flow_memory.held
        held = queued + FLOW_COST * (len(self._new) + len(self._old))
        self.budget.held += held - self.held
        self.held = held
        if self._shared:
            longest = flow_memory.largest()
            queued = 0 if longest is None else longest.held
        if not self.least <= queued < self.below:
            self.budget.rank(self, queued)

    def __bool__(self) -> bool:
        return bool(self._flow_memory.held)
