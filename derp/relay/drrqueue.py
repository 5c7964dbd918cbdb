"""What waits for a link to another relay, fairly by sender (deficit round robin).

A client's send queue (derp.relay.sendqueue) may drop from its head: it holds packets for one
client, and a flood of them hurts no other. A link carries the packets of all clients. So here
each sender is a flow with lanes of its own: the link takes from them in turn, as many bytes from
each, and excess is dropped from the sender that has most queued. In the memory bound for all peers
together (derp.relay.queuememory), a link is as long as its longest flow: many senders of a little
have no long queue. Disco packets go first, as for clients, but only for a part of what is sent,
since any packet may look like one.

Invariants: only whole frames are dropped or sent; each drop calls `on_drop`; packets of one sender
and kind keep their order; all bytes that are held are accounted for.
"""

from typing import Any, Final

from derp.relay.queuememory import Holder, MemoryBudget
from derp.relay.sendqueue import Entry, Lane, OnDrop, SendQueue

LINK_BYTES: Final = 4 << 20
"""Most bytes that are held for a link: a tenth of a second of 320 Mbit/s."""
LINK_DISCO_BYTES: Final = 256 << 10
DISCO_SHARE: Final = 4
"""One in so many bytes is for disco packets before all others."""
QUANTUM: Final = 4 << 10
"""Bytes that a sender's deficit grows by in each round."""
FLOW_COST: Final = 1000
"""Bytes that a flow counts for besides its trains."""


class _Flow(Lane):
    """One sender's lane, and its deficit."""

    __slots__ = ("deficit", "source")

    def __init__(
        self, source: bytes, limit: int, on_drop: OnDrop, budget: MemoryBudget[Any]
    ) -> None:
        super().__init__(limit, on_drop, budget)
        self.source = source
        # Bytes; negative after a frame that was larger than the rest.
        self.deficit = 0


class FlowLanes(Holder):
    """One lane for each sender that has packets queued, bounded together."""

    __slots__ = ("_flow_memory", "_lanes", "_limit", "_on_drop")

    def __init__(self, limit: int, on_drop: OnDrop, budget: MemoryBudget[Any]) -> None:
        super().__init__(budget)
        # In round-robin order.
        self._lanes: dict[bytes, _Flow] = {}
        self._limit = limit
        self._on_drop = on_drop
        # The memory of the lanes, to find the sender that has most queued.
        self._flow_memory: MemoryBudget[_Flow] = MemoryBudget()

    def put(self, entry: Entry) -> None:
        """Append a train to its sender's lane, then drop the excess."""
        source = entry.source
        lane = self._lanes.get(source)
        if lane is None:
            lane = _Flow(source, self._limit, self._on_drop, self._flow_memory)
            self._lanes[source] = lane
        lane.put(entry)
        self._settle()
        while self.held > self._limit and self._flow_memory.held:
            self.release(self.held - self._limit)
        if self.budget.held > self.budget.limit:
            self.budget.enforce()

    def take(self, limit: int, now: float) -> list[Entry]:
        """Take about `limit` bytes of fresh packets, round robin; at least a frame, if any."""
        taken: list[Entry] = []
        size = 0
        while self._lanes and size < limit:
            source = next(iter(self._lanes))
            lane = self._lanes.pop(source)
            lane.expire(now)
            lane.deficit += QUANTUM
            while lane.entries and lane.deficit > 0:
                entry = lane.take_frames(lane.deficit)
                lane.deficit -= len(entry.data)
                size += len(entry.data)
                taken.append(entry)
            if lane.entries:
                self._lanes[source] = lane
        self._settle()
        return taken

    def release(self, at_least: int) -> None:
        """Drop frames of the sender that has most queued; see Holder."""
        if (lane := self._flow_memory.largest()) is not None:
            lane.release(at_least)
            if not lane.entries:
                del self._lanes[lane.source]
        self._settle()

    def expire(self, now: float, most: int) -> int:
        """Drop at most `most` trains that have waited too long; return how many."""
        dropped = 0
        for lane in list(self._lanes.values()):
            dropped += lane.expire(now, most - dropped)
            if not lane.entries:
                del self._lanes[lane.source]
        self._settle()
        return dropped

    def clear(self, on_drop: OnDrop) -> None:
        """Drop everything."""
        for lane in self._lanes.values():
            lane.clear(on_drop)
        self._lanes.clear()
        self._settle()

    def _settle(self) -> None:
        """Account for the bytes held by now."""
        change = self._flow_memory.held + FLOW_COST * len(self._lanes) - self.held
        self.budget.held += change
        self.held += change
        largest = self._flow_memory.largest()
        size = 0 if largest is None else largest.held
        if not self.least <= size < self.below:
            self.budget.rank(self, size)

    def __bool__(self) -> bool:
        return bool(self._lanes)


class DRRQueue(SendQueue):
    """Everything that waits for one link. `on_drop` is called for drops from a head."""

    __slots__ = ("_disco_flows", "_flows")

    def __init__(self, on_drop: OnDrop, budget: MemoryBudget[Any] | None = None) -> None:
        budget = MemoryBudget() if budget is None else budget
        super().__init__(on_drop, budget)
        self._flows = FlowLanes(LINK_BYTES, on_drop, budget)
        self._disco_flows = FlowLanes(LINK_DISCO_BYTES, on_drop, budget)

    def put(self, train: bytes, packets: int, source: bytes, now: float, *, disco: bool) -> None:
        """Queue a train of `packets` frames from `source`."""
        lanes = self._disco_flows if disco else self._flows
        lanes.put(Entry(train, packets, source, now, disco=disco))

    def take(self, limit: int, now: float) -> tuple[list[bytes | memoryview], list[Entry]]:
        """Take about `limit` bytes of fresh frames to send next; at least a frame, if any.

        Returns the pieces in order, and the (whole) entries among them for the metrics.
        """
        pieces, entries = super().take(limit, now)
        size = sum(map(len, pieces))
        first = limit // DISCO_SHARE if self._flows else limit
        for lanes, share in (
            (self._disco_flows, first),
            (self._flows, limit),
            (self._disco_flows, limit),
        ):
            found = lanes.take(min(share, limit - size), now)
            size += sum(len(entry.data) for entry in found)
            pieces += [entry.data for entry in found]
            entries += found
        return pieces, entries

    def expire(self, now: float, most: int) -> int:
        """Drop at most `most` trains that have waited too long; return how many."""
        dropped = self._disco_flows.expire(now, most)
        return dropped + self._flows.expire(now, most - dropped)

    def clear(self, on_drop: OnDrop) -> None:
        """Drop everything, calling `on_drop` for packets."""
        super().clear(on_drop)
        self._flows.clear(on_drop)
        self._disco_flows.clear(on_drop)

    def __bool__(self) -> bool:
        return super().__bool__() or bool(self._flows or self._disco_flows)
