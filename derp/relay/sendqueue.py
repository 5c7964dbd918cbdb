"""What waits for a peer (a client, or another relay) that does not take its packets at once.

The Go derper queues 32 packets a client and drops the oldest of them; long bursts are lost. Here a
lane is bounded by bytes and by the age of its oldest entry: a fast receiver loses nothing, a slow
one gets fresh packets instead of a long queue of stale ones. Whole frames are dropped, from the
head. The lanes have strict priority: control, presence (for watchers), disco, all others.

A send queue exists only while something waits. Its packet lanes count in the memory of all queues
(derp.relay.queuememory), where the longest lane releases first.

Invariants: only whole frames are dropped; each drop of packets calls `on_drop`; packets of one
sender and kind keep their order; all bytes that are held are accounted for.
"""

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from derp.relay.presencequeue import PresenceQueue
from derp.relay.queuememory import Holder, MemoryBudget
from derp.wire.frames import HEADER, HEADER_LENGTH, PACKET_OVERHEAD

LANE_BYTES: Final = 1 << 20
"""Most bytes in the lane for other packets, with ENTRY_COST for each entry."""
DISCO_LANE_BYTES: Final = 64 << 10
"""Most bytes in the disco lane, counted in the same way."""
ENTRY_COST: Final = 150
"""Bytes that an entry counts for besides its frames."""
CONTROL_BYTES: Final = 64 << 10
"""Most bytes of control frames."""
CONTROL_COST: Final = 50
"""Bytes that a control frame counts for besides its own."""
MAX_WAIT: Final = 0.1
"""Seconds after which a packet is too old to be worth sending."""

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
    def payload(self) -> int:
        """Bytes of the packets that are left, without headers and keys."""
        return len(self.data) - self.offset - self.packets * PACKET_OVERHEAD

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


class Lane(Holder):
    """A lane of packets: trains in the order of their arrival; `held` is their memory."""

    __slots__ = ("_limit", "_on_drop", "entries")

    def __init__(self, limit: int, on_drop: OnDrop, budget: MemoryBudget[Any]) -> None:
        super().__init__(budget)
        self.entries: deque[Entry] = deque()
        self._limit = limit
        self._on_drop = on_drop

    def put(self, entry: Entry) -> None:
        """Append a train, then drop the excess and what is too old from the head."""
        entries, limit, budget = self.entries, self._limit, self.budget
        entries.append(entry)
        size = len(entry.data) + ENTRY_COST
        budget.held += size
        self.held += size
        if entry.since - entries[0].since > MAX_WAIT:
            self.expire(entry.since)
        # Dropped frames do not count.
        while self.held > limit and (excess := self.held - entries[0].offset - limit) > 0:
            self.drop_head(excess)
        # Only now, so that a full lane does not change its rank twice.
        if self.held >= self.below:
            budget.rank(self, self.held)
        if budget.held > budget.limit:
            budget.enforce()

    def release(self, at_least: int) -> None:
        """Drop frames from the head until `at_least` bytes are free; see Holder."""
        enough = self.held - at_least
        while self.entries and (excess := self.held - enough) > 0:
            head = self.entries[0]
            # Nothing is freed before half of a train has gone.
            self.drop_head(max(excess, len(head.data) // 2 + 1 - head.offset))

    def drop_head(self, at_least: int) -> None:
        """Drop frames of the oldest train, until `at_least` bytes or the whole train are gone."""
        head = self.entries[0]
        packets, size = self._cut(head, at_least)
        self._on_drop(head.disco, packets, size - packets * PACKET_OVERHEAD)

    def take_frames(self, at_least: int) -> Entry:
        """Take frames of the oldest train, until they are `at_least` bytes or the whole train."""
        head = self.entries[0]
        data, start = head.data, head.offset
        packets, size = self._cut(head, at_least)
        piece = data[start : start + size]
        return Entry(piece, packets, head.source, head.since, disco=head.disco)

    def _cut(self, head: Entry, at_least: int) -> tuple[int, int]:
        data = head.data
        packets, size = head.drop_frames(at_least)
        if not head.packets:
            self.entries.popleft()
            self.add(-len(data) - ENTRY_COST)
        elif head.data is not data:
            self.add(len(head.data) - len(data))
        return packets, size

    def expire(self, now: float, most: int | None = None) -> int:
        """Drop at most `most` trains that have waited longer than MAX_WAIT; return how many."""
        dropped = 0
        while dropped != most and self.entries and now - self.entries[0].since > MAX_WAIT:
            self._drop_entry(self._on_drop)
            dropped += 1
        return dropped

    def clear(self, on_drop: OnDrop) -> None:
        """Drop all trains, calling `on_drop` for each."""
        while self.entries:
            self._drop_entry(on_drop)

    def _drop_entry(self, on_drop: OnDrop) -> None:
        entry = self.entries.popleft()
        self.add(-len(entry.data) - ENTRY_COST)
        on_drop(entry.disco, entry.packets, entry.payload)


class SendQueue:
    """Everything that waits for one peer. `on_drop` is called for packets dropped from a head.

    The packets count in `budget`. For control frames the caller keeps account.
    """

    __slots__ = ("_control", "_control_size", "_disco", "_packets", "presence")

    def __init__(self, on_drop: OnDrop, budget: MemoryBudget[Any] | None = None) -> None:
        budget = MemoryBudget() if budget is None else budget
        self._control: deque[bytes] = deque()
        self._control_size = 0
        self._disco = Lane(DISCO_LANE_BYTES, on_drop, budget)
        self._packets = Lane(LANE_BYTES, on_drop, budget)
        self.presence: PresenceQueue | None = None
        """What a watcher is still to be told; set and bounded by the caller: never dropped."""

    def put_control(self, frame: bytes, *, must: bool = False) -> bool:
        """Queue a control frame; return False where too many wait, unless it `must` be queued."""
        if not must and self._control_size + len(frame) > CONTROL_BYTES:
            return False
        self._control.append(frame)
        self._control_size += len(frame)
        return True

    @property
    def control_held(self) -> int:
        """Bytes of memory that the control frames take."""
        return self._control_size + CONTROL_COST * len(self._control)

    def drop_control(self) -> None:
        """Drop the control frames: the connection is over."""
        self._control.clear()
        self._control_size = 0

    def put(self, train: bytes, packets: int, source: bytes, now: float, *, disco: bool) -> None:
        """Queue a train of `packets` RecvPacket frames from `source`."""
        lane = self._disco if disco else self._packets
        lane.put(Entry(train, packets, source, now, disco=disco))

    def take(self, limit: int, now: float) -> tuple[list[bytes | memoryview], list[Entry]]:
        """Take about `limit` bytes of fresh frames to send next; at least a frame, if any.

        Returns the pieces in order, and for the metrics the entries that some of them came from.
        """
        pieces: list[bytes | memoryview] = []
        entries: list[Entry] = []
        size = 0
        while self._control and size < limit:
            pieces.append(self._control.popleft())
            size += len(pieces[-1])
        self._control_size -= size
        if self.presence and size < limit:
            frames = self.presence.take(limit - size)
            pieces += frames
            size += sum(map(len, frames))
        for lane in (self._disco, self._packets):
            lane.expire(now)
            freed = 0
            while lane.entries and size < limit:
                entry = lane.entries.popleft()
                piece = memoryview(entry.data)[entry.offset :] if entry.offset else entry.data
                freed += len(entry.data) + ENTRY_COST
                size += len(piece)
                pieces.append(piece)
                entries.append(entry)
            if freed:
                lane.add(-freed)
        return pieces, entries

    def expire(self, now: float, most: int) -> int:
        """Drop at most `most` trains that have waited too long; return how many."""
        dropped = self._disco.expire(now, most)
        return dropped + self._packets.expire(now, most - dropped)

    def clear(self, on_drop: OnDrop) -> None:
        """Drop everything, calling `on_drop` for packets."""
        self.drop_control()
        self.presence = None
        self._disco.clear(on_drop)
        self._packets.clear(on_drop)

    def __bool__(self) -> bool:
        return bool(self._control or self.presence or self._disco.entries or self._packets.entries)
