"""What waits for a peer that does not take its packets at once.

The original queues 32 packets a client and drops the oldest of them; any burst is lost. Here a
lane is bounded by bytes and by how long its oldest entry has waited: a fast receiver loses
nothing, a slow one gets fresh packets instead of a long queue of stale ones. Dropping is from the
head, by whole frames. Control frames go first, then who came and went (for mesh peers), then disco
packets, then the rest.

An outbox exists only while something waits; an idle connection has none.

What must never happen here: half a frame dropped, a drop that `on_drop` does not hear of, two
packets of one sender and kind in another order than they came.

Measured with `nox -s micro -- --piece outbox --fast`: 1.5 to 2.5 µs to put a packet and to drop
another for it. With `nox -s bench -- --only slow`: behind 1 Mbit/s a packet waits for 0.4 to 0.6 s
(the Go derper: 3 to 4 s), most of that in the kernel's buffers and the link's.
"""

from collections import deque
from collections.abc import Callable
from typing import Final

from derp.relay.updates import Updates
from derp.wire.frames import HEADER, HEADER_LENGTH, PACKET_OVERHEAD

LANE_BYTES: Final = 1 << 20
"""Most bytes of frames that wait in the packet lane."""
DISCO_LANE_BYTES: Final = 64 << 10
"""Most bytes of frames that wait in the disco lane."""
ENTRY_COST: Final = 150
"""Bytes that a run's entry takes besides its frames; they count, too."""
CONTROL_BYTES: Final = 64 << 10
"""Most bytes of control frames that wait."""
MAX_WAIT: Final = 0.1
"""Seconds after which a packet is too old to be worth sending."""

OnDrop = Callable[[bool, int, int], None]
"""Called with (disco, packets, bytes of packets) for what is dropped."""


class Entry:
    """A run that waits: `data[offset:]` is `packets` whole RecvPacket frames from `source`."""

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
        self.offset = position
        self.packets -= packets
        return packets, position - start


class Lane:
    """Runs of one kind in the order in which they came."""

    __slots__ = ("_limit", "_on_drop", "entries", "size")

    def __init__(self, limit: int, on_drop: OnDrop) -> None:
        self.entries: deque[Entry] = deque()
        self.size = 0
        self._limit = limit
        self._on_drop = on_drop

    def put(self, entry: Entry) -> None:
        """Append a run, then drop from the head what is too much or, by now, too old."""
        self.entries.append(entry)
        self.size += len(entry.data) + ENTRY_COST
        self.expire(entry.since)
        while (excess := self.size - self._limit) > 0:
            self.drop_head(excess)

    def drop_head(self, at_least: int) -> None:
        """Drop frames of the oldest run, until `at_least` bytes are gone or all of it."""
        head = self.entries[0]
        packets, size = self._cut(head, at_least)
        self._on_drop(head.disco, packets, size - packets * PACKET_OVERHEAD)

    def take_frames(self, at_least: int) -> Entry:
        """Take frames of the oldest run, until they are `at_least` bytes or all of it."""
        head = self.entries[0]
        start = head.offset
        packets, size = self._cut(head, at_least)
        piece = head.data[start : start + size]
        return Entry(piece, packets, head.source, head.since, disco=head.disco)

    def _cut(self, head: Entry, at_least: int) -> tuple[int, int]:
        packets, size = head.drop_frames(at_least)
        self.size -= size
        if not head.packets:
            self.entries.popleft()
            self.size -= ENTRY_COST
        return packets, size

    def expire(self, now: float) -> None:
        """Drop what has waited longer than MAX_WAIT."""
        entries = self.entries
        while entries and now - entries[0].since > MAX_WAIT:
            self._drop_entry(entries.popleft(), self._on_drop)

    def clear(self, on_drop: OnDrop) -> None:
        """Drop everything."""
        while self.entries:
            self._drop_entry(self.entries.popleft(), on_drop)

    def _drop_entry(self, entry: Entry, on_drop: OnDrop) -> None:
        self.size -= len(entry.data) - entry.offset + ENTRY_COST
        on_drop(entry.disco, entry.packets, entry.payload)


class Outbox:
    """Everything that waits for one connection. `on_drop` hears of what is dropped from a head."""

    __slots__ = ("_control", "_control_size", "_disco", "_packets", "updates")

    def __init__(self, on_drop: OnDrop) -> None:
        self._control: deque[bytes] = deque()
        self._control_size = 0
        self._disco = Lane(DISCO_LANE_BYTES, on_drop)
        self._packets = Lane(LANE_BYTES, on_drop)
        self.updates: Updates | None = None
        """Whom a watcher is still to be told about; set by whoever has something to tell. None of
        it may be dropped: that it does not grow for ever is up to them."""

    def put_control(self, frame: bytes, *, must: bool = False) -> bool:
        """Queue a control frame; False where too many wait already and it need not be queued."""
        if not must and self._control_size + len(frame) > CONTROL_BYTES:
            return False
        self._control.append(frame)
        self._control_size += len(frame)
        return True

    def put(self, run: bytes, packets: int, source: bytes, now: float, *, disco: bool) -> None:
        """Queue a run of `packets` RecvPacket frames from `source`."""
        lane = self._disco if disco else self._packets
        lane.put(Entry(run, packets, source, now, disco=disco))

    def take(self, limit: int, now: float) -> tuple[list[bytes | memoryview], list[Entry]]:
        """Take about `limit` bytes to send next, fresh ones only; at least a frame, if any waits.

        Returns the pieces in order, and the entries (whole) among them for the accounts.
        """
        pieces: list[bytes | memoryview] = []
        entries: list[Entry] = []
        size = 0
        while self._control and size < limit:
            pieces.append(self._control.popleft())
            size += len(pieces[-1])
        self._control_size -= size
        if self.updates and size < limit:
            frames = self.updates.take(limit - size)
            pieces += frames
            size += sum(map(len, frames))
        for lane in (self._disco, self._packets):
            lane.expire(now)
            while lane.entries and size < limit:
                entry = lane.entries.popleft()
                piece = memoryview(entry.data)[entry.offset :] if entry.offset else entry.data
                lane.size -= len(piece) + ENTRY_COST
                size += len(piece)
                pieces.append(piece)
                entries.append(entry)
        return pieces, entries

    def clear(self, on_drop: OnDrop) -> None:
        """Drop everything; `on_drop` hears of the packets."""
        self._control.clear()
        self._control_size = 0
        self.updates = None
        self._disco.clear(on_drop)
        self._packets.clear(on_drop)

    def __bool__(self) -> bool:
        return bool(self._control or self.updates or self._disco.entries or self._packets.entries)
