"""The control law, held against RFC 8289's pseudo-code, which judges packet by packet."""

from collections import deque
from math import sqrt

import pytest
from hypothesis import event, example, given
from hypothesis import strategies as st

from derp.relay.codel import INTERVAL, MAX_PACKET, TARGET
from derp.relay.flowqueue import ENTRY_COST, Entry, Flow
from derp.relay.queuememory import MemoryBudget
from derp.wire.frames import HEADER, HEADER_LENGTH, PACKET_OVERHEAD
from tests.support.frames import recv_packet

SOURCE = bytes(range(32))
MARK = 4
"""Bytes by which a packet begins that number it."""


class Oracle:
    """RFC 8289, section 5, for packets of (number, size, time of arrival)."""

    def __init__(self) -> None:
        self.queue: deque[tuple[int, int, float]] = deque()
        self.dropped: list[int] = []
        self.first_above_time = 0.0
        self.drop_next = 0.0
        self.count = 0
        self.lastcount = 0
        self.dropping = False

    def dodequeue(self, now: float) -> tuple[tuple[int, int, float] | None, bool]:
        if not self.queue:
            self.first_above_time = 0.0
            return None, False
        packet = self.queue.popleft()
        ok_to_drop = False
        if now - packet[2] < TARGET or sum(size for _, size, _ in self.queue) <= MAX_PACKET:
            self.first_above_time = 0.0
        elif self.first_above_time == 0:
            self.first_above_time = now + INTERVAL
        elif now >= self.first_above_time:
            ok_to_drop = True
        return packet, ok_to_drop

    def dequeue(self, now: float) -> tuple[int, int, float] | None:
        packet, ok_to_drop = self.dodequeue(now)
        if self.dropping:
            if not ok_to_drop:
                self.dropping = False
            while now >= self.drop_next and self.dropping:
                assert packet is not None
                self.dropped.append(packet[0])
                self.count += 1
                packet, ok_to_drop = self.dodequeue(now)
                if not ok_to_drop:
                    self.dropping = False
                else:
                    self.drop_next += INTERVAL / sqrt(self.count)
        elif ok_to_drop:
            assert packet is not None
            self.dropped.append(packet[0])
            packet, _ = self.dodequeue(now)
            self.dropping = True
            delta = self.count - self.lastcount
            self.count = 1
            if delta > 1 and now - self.drop_next < 16 * INTERVAL:
                self.count = delta
            self.drop_next = now + INTERVAL / sqrt(self.count)
            self.lastcount = self.count
        return packet

    def take(self, limit: int, now: float) -> list[int]:
        taken, size = [], 0
        while size < limit and (packet := self.dequeue(now)) is not None:
            taken.append(packet[0])
            size += packet[1]
        return taken


class Ours:
    """One flow, and the numbers of the packets that left it or were dropped."""

    def __init__(self) -> None:
        self.flow = Flow(SOURCE, self.on_drop, MemoryBudget())
        self.waiting: deque[int] = deque()
        self.dropped: list[int] = []

    def on_drop(self, disco: bool, packets: int, payload: int) -> None:
        assert not disco
        assert payload >= packets * MARK
        self.dropped += [self.waiting.popleft() for _ in range(packets)]

    def put(self, numbers: list[int], sizes: list[int], now: float) -> None:
        self.waiting.extend(numbers)
        train = b"".join(
            recv_packet(SOURCE, number.to_bytes(MARK) + bytes(size - PACKET_OVERHEAD - MARK))
            for number, size in zip(numbers, sizes, strict=True)
        )
        self.flow.entries.append(Entry(train, len(numbers), SOURCE, now, disco=False))
        self.flow.size += len(train)
        self.flow.add(len(train) + ENTRY_COST)

    def take(self, limit: int, now: float) -> list[int]:
        entries: list[Entry] = []
        size = self.flow.take(limit, now, entries)
        assert size == sum(entry.size for entry in entries)
        taken = [number for entry in entries for number in numbers_in(entry)]
        assert taken == sorted(taken)
        for number in taken:
            self.waiting.remove(number)
        return taken


def numbers_in(entry: Entry) -> list[int]:
    data, found = entry.data[entry.offset :], []
    while data:
        found.append(int.from_bytes(data[PACKET_OVERHEAD:][:MARK]))
        data = data[HEADER_LENGTH + HEADER.unpack_from(data)[1] :]
    assert len(found) == entry.packets
    return found


sizes = st.integers(PACKET_OVERHEAD + MARK, 2000)
trains = st.lists(sizes, min_size=1, max_size=20)
steps = st.lists(
    st.tuples(st.floats(0, INTERVAL), st.lists(trains, max_size=4), st.integers(1, 20_000)),
    max_size=80,
)
# Twice as much comes as leaves: the queue stands, and is shortened more and more often.
STANDING = [(0.02, [[1000] * 4], 2000)] * 200
# The same, but twice it stops, so that the rate of drops is taken up.
RESUMED = [*STANDING, *[(0.02, [], 30_000)] * 20, *STANDING, *[(0.1, [], 1000)] * 70, *STANDING]
# A train leaves and has next to nothing behind it, so that the queue does not stand any more.
ALMOST_EMPTIED = [(0.0, [[1000] * 4, [500]], 1), (0.05, [], 3000), (0.15, [[1000] * 4], 1)]


@given(steps)
@example(STANDING)
@example(RESUMED)
@example(ALMOST_EMPTIED)
def test_it_drops_what_the_pseudo_code_drops(
    steps: list[tuple[float, list[list[int]], int]],
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        # RFC 8289 leaves unresponsive senders alone.
        patch.setattr("derp.relay.codel.UNRESPONSIVE", 1e9)
        check_against_the_oracle(steps)


def check_against_the_oracle(steps: list[tuple[float, list[list[int]], int]]) -> None:
    oracle, ours = Oracle(), Ours()
    now, number = 1.0, 0
    for elapsed, arrivals, limit in steps:
        now += elapsed
        for train in arrivals:
            numbers = list(range(number, number + len(train)))
            number += len(train)
            oracle.queue.extend((n, s, now) for n, s in zip(numbers, train, strict=True))
            ours.put(numbers, train, now)
        assert ours.take(limit, now) == oracle.take(limit, now)
        assert ours.dropped == oracle.dropped
    event("drops" if oracle.dropped else "no drop")


def test_a_standing_queue_is_shortened_and_the_rate_is_taken_up_again() -> None:
    """The examples above are ones in which the law has much to say."""
    oracle = Oracle()
    now, number = 1.0, 0
    resumed = 0
    for elapsed, arrivals, limit in RESUMED:
        now += elapsed
        for train in arrivals:
            oracle.queue.extend((number + n, size, now) for n, size in enumerate(train))
            number += len(train)
        dropping = oracle.dropping
        oracle.take(limit, now)
        resumed += not dropping and oracle.dropping and oracle.count > 1
    assert len(oracle.dropped) > 100
    assert resumed


def test_who_does_not_slow_down_waits_no_longer_than_an_interval() -> None:
    """Twice as much comes as leaves, for ever; the law alone would take a quarter of a minute."""
    ours = Ours()
    waits = []
    for turn in range(1000):
        now = 1 + turn * 0.01
        ours.put(list(range(10 * turn, 10 * turn + 10)), [1000] * 10, now)
        taken = ours.take(5000, now)
        waits += [turn - number // 10 for number in taken]
    # In hundredths of a second.
    assert max(waits) > 50
    assert max(waits[-2000:]) <= 100 * INTERVAL + 1
    assert len(ours.dropped) + len(ours.waiting) == 5000


def test_a_stall_is_no_standing_queue() -> None:
    """What came in a stall of 0.3 s leaves within an INTERVAL; of a longer one little is lost."""
    for packets, most in ((240, 0), (500, 2), (1000, 8)):
        ours = Ours()
        for number in range(packets):
            ours.put([number], [1000], 1.0 + number / 1000)
        end = 1.0 + packets / 1000
        taken = [n for turn in range(100) for n in ours.take(25_000, end + turn * 0.01)]
        assert len(ours.dropped) <= most
        # The tail arrives.
        assert taken[-20:] == list(range(packets - 20, packets))
