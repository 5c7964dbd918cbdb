"""What is held for all peers: the sums, who pays, and that all stays within the bound."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from derp.relay.flowqueue import ENTRY_COST, FLOW_COST, KEEP, MAX_WAIT, Entry, Flow, FlowQueue
from derp.relay.queuememory import (
    MIN_WRITE,
    UNIT,
    UNLIMITED,
    Holder,
    MemoryBudget,
    QueueMemory,
    least_of,
    rank_of,
)
from derp.relay.sendqueue import LINK, SendQueue
from derp.session.sender import BUSY_COST, MAX_SEND
from derp.wire.frames import HEADER, HEADER_LENGTH, KEY_LENGTH, FrameType
from tests.support.examples import examples

sizes = st.integers(0, 1 << 40) | st.integers(0, 3 * UNIT)


@given(sizes, sizes)
def test_ranks_are_in_the_order_of_sizes_and_a_quarter_wide(one: int, other: int) -> None:
    assert (rank_of(one) <= rank_of(other)) or one > other
    rank = rank_of(one)
    assert least_of(rank) <= one < least_of(rank + 1)
    assert (rank == 0) is (one == 0)
    assert least_of(rank + 1) - least_of(rank) <= max(UNIT, least_of(rank) / 4)


class Releaser(Holder):
    """Lets go of what it is told to, in lumps; remembers how much others had when it was told."""

    def __init__(
        self, budget: MemoryBudget[Any], everybody: "list[Releaser]", lump: int = 1
    ) -> None:
        super().__init__(budget)
        self.everybody = everybody
        self.lump = lump
        self.paid = 0

    def release(self, at_least: int) -> None:
        assert self.held > 0
        largest = max(payer.held for payer in self.everybody)
        assert largest <= max(self.held * 1.25, self.held + UNIT)
        paid = min(-(-at_least // self.lump) * self.lump, self.held)
        self.paid += paid
        self.add(-paid)


@given(
    st.integers(0, 1 << 20),
    st.lists(st.tuples(st.integers(0, 7), st.integers(-(1 << 18), 1 << 18)), max_size=60),
    st.integers(1, 200_000),
)
def test_the_longest_pays_until_all_is_within_the_limit(
    limit: int, changes: list[tuple[int, int]], lump: int
) -> None:
    budget: MemoryBudget[Releaser] = MemoryBudget(limit)
    everybody: list[Releaser] = []
    everybody += [Releaser(budget, everybody, lump) for _ in range(8)]
    added = 0
    for number, change in changes:
        payer = everybody[number]
        before = payer.held
        payer.add(max(change, -payer.held))
        added += max(change, -before)
        budget.enforce()
        assert budget.held == sum(payer.held for payer in everybody) <= limit
        assert budget.held + sum(payer.paid for payer in everybody) == added
    for payer in everybody:
        payer.add(-payer.held)
    assert budget.largest() is None


def test_one_who_does_not_pay_is_counted_all_the_same() -> None:
    budget: MemoryBudget[Holder] = MemoryBudget(1000)
    relay = Holder(budget, releasable=False)
    client = Releaser(budget, [])
    client.everybody.append(client)
    relay.add(900)
    client.add(500)
    budget.enforce()
    assert (relay.held, client.held, budget.held) == (900, 100, 1000)
    relay.add(900)
    budget.enforce()
    assert (relay.held, client.held, budget.held) == (1800, 0, 1800)


def test_what_is_committed_takes_room_from_what_is_queued() -> None:
    memory = QueueMemory(1 << 20)
    queue, sender = Releaser(memory.queued, []), Releaser(memory.committed, [])
    queue.everybody.append(queue)
    sender.everybody.append(sender)
    queue.add(1 << 20)
    memory.commit(sender, 1 << 19)
    assert (queue.held, sender.held, memory.held) == (1 << 19, 1 << 19, 1 << 20)
    # Three quarters is the most.
    memory.commit(sender, 1 << 20)
    assert (queue.held, sender.held) == (1 << 18, 3 << 18)
    memory.commit(sender, 0)
    queue.add(3 << 18)
    memory.queued.enforce()
    assert memory.held == queue.held == 1 << 20


def test_the_more_is_committed_the_smaller_are_the_pieces() -> None:
    memory = QueueMemory(64 << 20)
    sender = Releaser(memory.committed, [])
    sender.everybody.append(sender)
    pieces = []
    for size in range(0, 48 << 20, 1 << 20):
        memory.commit(sender, size)
        pieces.append(memory.write_size)
    assert pieces == sorted(pieces, reverse=True)
    assert pieces[-1] == MIN_WRITE


def test_thousands_of_slow_peers_have_room_for_a_piece_each() -> None:
    memory = QueueMemory(64 << 20)
    assert memory.write_size >= MAX_SEND
    peers = [Releaser(memory.committed, []) for _ in range(3500)]
    for peer in peers:
        memory.commit(peer, BUSY_COST + min(memory.write_size, MAX_SEND))
    assert not any(peer.paid for peer in peers)
    assert memory.write_size == MIN_WRITE


# --- with real queues ---


def train_of(kind: FrameType, source: bytes, lengths: list[int]) -> bytes:
    key = source + (bytes(KEY_LENGTH) if kind == FrameType.FORWARD_PACKET else b"")
    return b"".join(
        HEADER.pack(kind, len(key) + length) + key + bytes(length) for length in lengths
    )


def flows_of(box: SendQueue) -> list[Flow]:
    return [
        flow
        for queue in (box._disco, box._packets)
        for flow in (*queue._new.values(), *queue._old.values())
    ]


def truth(box: SendQueue) -> int:
    """Bytes of memory that packets take in a send queue, counted anew."""
    flows = flows_of(box)
    trains = sum(len(entry.data) + ENTRY_COST for flow in flows for entry in flow.entries)
    return trains + FLOW_COST * len(flows)


class Queues(RuleBasedStateMachine):
    """Clients' queues and links' under one small bound; packets are counted in and out."""

    LIMIT = 1 << 20

    @initialize()
    def begin(self) -> None:
        self.memory = QueueMemory(self.LIMIT)
        self.dropped = self.taken = self.put_in = 0
        self.dropped_bytes = self.taken_bytes = self.put_bytes = 0
        self.now = 0.0
        queued = self.memory.queued
        self.boxes = [SendQueue(self.on_drop, queued) for _ in range(4)]
        self.boxes += [SendQueue(self.on_drop, queued, LINK) for _ in range(2)]
        self.senders = [Releaser(self.memory.committed, []) for _ in self.boxes]
        for sender in self.senders:
            sender.everybody.extend(self.senders)

    def on_drop(self, disco: bool, packets: int, payload: int) -> None:
        assert packets > 0
        self.dropped += packets
        self.dropped_bytes += payload

    @rule(
        number=st.integers(0, 5),
        source=st.integers(0, 3),
        lengths=st.lists(st.integers(0, 3000) | st.just(1400), min_size=1, max_size=60)
        | st.lists(st.integers(60_000, 65_536), min_size=1, max_size=2),
        times=st.integers(1, 8),
        disco=st.booleans(),
    )
    def put(self, number: int, source: int, lengths: list[int], times: int, disco: bool) -> None:
        box, key = self.boxes[number], bytes((source,)) * KEY_LENGTH
        is_link = box._packets._shared
        train = train_of(
            FrameType.FORWARD_PACKET if is_link else FrameType.RECV_PACKET, key, lengths
        )
        for _ in range(times):
            box.put(train, len(lengths), key, self.now, disco=disco)
            self.put_in += len(lengths)
            self.put_bytes += sum(lengths) + is_link * KEY_LENGTH * len(lengths)

    @rule(number=st.integers(0, 5), limit=st.integers(1, 300_000))
    def take(self, number: int, limit: int) -> None:
        pieces, entries = self.boxes[number].take(limit, self.now)
        assert sum(map(len, pieces)) == sum(len(e.data) - e.offset for e in entries)
        self.taken += sum(entry.packets for entry in entries)
        self.taken_bytes += sum(entry.payload for entry in entries)

    @rule(number=st.integers(0, 5), size=st.integers(0, 600_000))
    def commit(self, number: int, size: int) -> None:
        self.memory.commit(self.senders[number], size)

    @rule(seconds=st.floats(0, 2 * MAX_WAIT))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(number=st.integers(0, 5), most=st.integers(0, 30))
    def expire(self, number: int, most: int) -> None:
        box = self.boxes[number]
        before = truth(box)
        dropped = box.expire(self.now, most)
        assert dropped <= most
        assert (truth(box) < before) is (dropped > 0)
        if dropped < most:
            long = [flow for flow in flows_of(box) if flow.held > KEEP]
            assert all(flow.head_wait(self.now) <= MAX_WAIT for flow in long)

    @rule(number=st.integers(0, 5))
    def clear(self, number: int) -> None:
        self.boxes[number].clear(self.on_drop)
        assert not self.boxes[number]
        assert truth(self.boxes[number]) == 0

    @invariant()
    def it_is_within_the_bound(self) -> None:
        memory = self.memory
        assert memory.queued.held == sum(map(truth, self.boxes))
        assert memory.committed.held == sum(sender.held for sender in self.senders)
        assert memory.held <= self.LIMIT
        assert memory.committed.held <= self.LIMIT * 3 // 4

    @invariant()
    def no_packet_is_lost(self) -> None:
        waiting = [e for box in self.boxes for flow in flows_of(box) for e in flow.entries]
        held = sum(entry.packets for entry in waiting)
        held_bytes = sum(entry.payload for entry in waiting)
        assert self.taken + self.dropped + held == self.put_in
        assert self.taken_bytes + self.dropped_bytes + held_bytes == self.put_bytes

    @invariant()
    def little_is_held_for_frames_that_are_gone(self) -> None:
        for box in self.boxes:
            for flow in flows_of(box):
                assert all(2 * entry.offset <= len(entry.data) for entry in flow.entries)

    def teardown(self) -> None:
        if hasattr(self, "boxes"):
            for box in self.boxes:
                box.clear(self.on_drop)
            assert self.memory.queued.held == 0
            assert self.memory.queued.largest() is None
            assert self.taken + self.dropped == self.put_in


TestQueues = pytest.mark.slow(Queues.TestCase)
TestQueues.settings = settings(max_examples=examples(60), stateful_step_count=40, deadline=None)


def flooded(
    count: int, memory: QueueMemory, each: int = 1 << 20
) -> tuple[list[SendQueue], list[int]]:
    """Fill queues one after another; return them, and how many packets each has dropped."""
    drops = [0] * count

    def counting(number: int) -> Any:
        def on_drop(disco: bool, packets: int, payload: int) -> None:
            drops[number] += packets

        return on_drop

    boxes = [SendQueue(counting(number), memory.queued) for number in range(count)]
    train = train_of(FrameType.RECV_PACKET, bytes(KEY_LENGTH), [1400])
    for box in boxes:
        for _ in range(each // (len(train) + ENTRY_COST)):
            box.put(train, 1, bytes(KEY_LENGTH), 0.0, disco=False)
    return boxes, drops


def test_many_full_queues_hold_no_more_than_the_bound() -> None:
    memory = QueueMemory(4 << 20)
    boxes, drops = flooded(64, memory)
    assert memory.held <= 4 << 20
    assert memory.held == sum(map(truth, boxes))
    # All have about the same by now, whoever came first.
    lengths = [truth(box) for box in boxes]
    assert max(lengths) <= max(min(lengths), UNIT) * 1.25 + 2 * UNIT
    assert all(drops)


def test_a_link_is_as_long_as_its_longest_lane() -> None:
    """Each of its senders is like a client's queue: the many do not pay for the few."""
    memory = QueueMemory(4 << 20)
    lost: list[bool] = []
    box = SendQueue(lambda disco, packets, payload: lost.append(disco), memory.queued, LINK)
    for number in range(100):
        source = number.to_bytes(KEY_LENGTH)
        train = train_of(FrameType.FORWARD_PACKET, source, [1000] * 5)
        box.put(train, 5, source, 0.0, disco=False)
    assert box._packets.held > 500_000
    flooded(64, memory)
    assert not lost
    # One that floods the link itself is the one that pays.
    source = bytes((1,)) * KEY_LENGTH
    train = train_of(FrameType.FORWARD_PACKET, source, [1000])
    for _ in range(1000):
        box.put(train, 1, source, 0.0, disco=False)
    assert len(lost) > 900
    assert sum(len(flow.entries) == 1 for flow in flows_of(box)) == 100
    assert memory.held <= 4 << 20


def test_who_takes_what_is_sent_loses_nothing_to_those_who_do_not() -> None:
    memory = QueueMemory(4 << 20)
    flooded(64, memory)
    lost: list[int] = []
    honest = SendQueue(lambda disco, packets, payload: lost.append(packets), memory.queued)
    train = train_of(FrameType.RECV_PACKET, bytes(KEY_LENGTH), [1400] * 8)
    for _ in range(500):
        honest.put(train, 8, bytes(KEY_LENGTH), 0.0, disco=False)
        honest.put(train, 8, bytes(KEY_LENGTH), 0.0, disco=False)
        assert sum(entry.packets for entry in honest.take(1 << 20, 0.0)[1]) == 16
    assert not lost


@pytest.mark.parametrize("shared", [False, True])
def test_a_long_run_pays_by_halves(shared: bool) -> None:
    """Not whole: the newest packets of a short queue are the best there is."""
    dropped: list[int] = []
    budget: MemoryBudget[Holder] = MemoryBudget(200_000)
    queue = FlowQueue(
        UNLIMITED, lambda disco, packets, payload: dropped.append(packets), budget, shared=shared
    )
    train = train_of(FrameType.RECV_PACKET, bytes(KEY_LENGTH), [963] * 128)
    assert len(train) == 128_000
    for _ in range(2):
        queue.put(Entry(train, 128, bytes(KEY_LENGTH), 0.0, disco=False))
    assert sum(dropped) == 65
    assert budget.held < 200_000


def test_frames_of_a_cut_run_are_whole() -> None:
    budget: MemoryBudget[Holder] = MemoryBudget()
    queue = FlowQueue(UNLIMITED, lambda *_: None, budget, shared=False)
    lengths = [100, 2000, 30, 700, 1400, 5]
    train = train_of(FrameType.RECV_PACKET, bytes(KEY_LENGTH), lengths)
    queue.put(Entry(train, len(lengths), bytes(KEY_LENGTH), 0.0, disco=False))
    (flow,) = queue._new.values()
    for left in range(len(lengths) - 1, 0, -1):
        flow.drop_head(1)
        (entry,) = flow.entries
        found, data = [], entry.data[entry.offset :]
        while data:
            length: int = HEADER.unpack_from(data)[1]
            found.append(length - KEY_LENGTH)
            data = data[HEADER_LENGTH + length :]
        assert found == lengths[-left:]
        assert flow.held == len(entry.data) + ENTRY_COST
        assert flow.size == entry.size
    (entry,) = queue.take(1, 0.0)
    assert entry.data[entry.offset :] == train[-HEADER_LENGTH - KEY_LENGTH - 5 :]
    assert queue.take(1, 0.0) == []
    assert budget.held == 0
