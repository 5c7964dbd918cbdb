import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derp.relay.codel import INTERVAL, TARGET
from derp.relay.flowqueue import ENTRY_COST, FLOW_COST, MAX_WAIT, QUANTUM
from derp.relay.queuememory import MemoryBudget
from derp.relay.sendqueue import CLIENT, DISCO_SHARE, LINK, SendQueue
from derp.wire.frames import HEADER, HEADER_LENGTH, KEY_LENGTH, PACKET_OVERHEAD, FrameType

DESTINATION = bytes(KEY_LENGTH)
FLOODER, HONEST = b"F" * KEY_LENGTH, b"H" * KEY_LENGTH


def forwarded(source: bytes, *payloads: bytes) -> bytes:
    """ForwardPacket frames."""
    return b"".join(
        HEADER.pack(FrameType.FORWARD_PACKET, 2 * KEY_LENGTH + len(payload))
        + source
        + DESTINATION
        + payload
        for payload in payloads
    )


def payloads(data: bytes) -> list[tuple[bytes, bytes]]:
    """(source, packet) of each whole frame; fails for half a frame."""
    found = []
    while data:
        kind, length = HEADER.unpack_from(data)
        assert kind == FrameType.FORWARD_PACKET
        frame, data = data[: HEADER_LENGTH + length], data[HEADER_LENGTH + length :]
        assert len(frame) == HEADER_LENGTH + length
        found.append((frame[HEADER_LENGTH:][:KEY_LENGTH], frame[HEADER_LENGTH + 2 * KEY_LENGTH :]))
    return found


class Drops:
    def __init__(self) -> None:
        self.packets = {False: 0, True: 0}
        self.payload = 0

    def __call__(self, disco: bool, packets: int, payload: int) -> None:
        self.packets[disco] += packets
        # An Entry takes the keys of a RecvPacket frame off, of which there is one only.
        self.payload += payload - packets * KEY_LENGTH


def drained(box: SendQueue, limit: int = 64 << 10, now: float = 0.0) -> list[tuple[bytes, bytes]]:
    sent = []
    while True:
        pieces, entries = box.take(limit, now)
        if not pieces:
            assert not box
            return sent
        data = b"".join(pieces)
        sent += payloads(data)
        assert sum(entry.packets for entry in entries) == len(payloads(data))


sources = st.sampled_from([bytes((number,)) * KEY_LENGTH for number in range(5)])
steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("put"),
            sources,
            st.lists(st.integers(0, 3000), min_size=1, max_size=8),
            st.booleans(),
        ),
        st.tuples(st.just("take"), st.integers(1, 100_000)),
        st.tuples(st.just("wait"), st.floats(0, MAX_WAIT)),
    ),
    max_size=60,
)


@given(steps)
def test_nothing_is_lost_that_is_not_counted(steps):
    drops = Drops()
    box = SendQueue(drops, limits=LINK)
    put: dict[tuple[bytes, bool], list[bytes]] = {}
    sent: dict[tuple[bytes, bool], list[bytes]] = {}
    now, number = 0.0, 0

    def take(limit: int) -> None:
        pieces, entries = box.take(limit, now)
        assert b"".join(pieces) == b"".join(entry.data[entry.offset :] for entry in entries)
        for entry in entries:
            for source, payload in payloads(entry.data[entry.offset :]):
                assert source == entry.source
                sent.setdefault((source, entry.disco), []).append(payload)

    for step in steps:
        if step[0] == "put":
            _, source, sizes, disco = step
            packets = []
            for size in sizes:
                number += 1
                packets.append(number.to_bytes(4) + bytes(size))
            put.setdefault((source, disco), []).extend(packets)
            box.put(forwarded(source, *packets), len(packets), source, now, disco=disco)
        elif step[0] == "take":
            take(step[1])
        else:
            now += step[1]
    while box:
        take(1 << 20)
    everything = [payload for packets in put.values() for payload in packets]
    arrived = [payload for packets in sent.values() for payload in packets]
    assert len(arrived) + sum(drops.packets.values()) == len(everything)
    assert sum(map(len, arrived)) + drops.payload == sum(map(len, everything))
    for way, packets in sent.items():
        expected = iter(put[way])
        assert all(payload in expected for payload in packets)  # in order, none twice


@pytest.mark.slow
def test_it_is_bounded():
    for disco, limit in ((False, LINK.packets), (True, LINK.disco)):
        drops = Drops()
        box = SendQueue(drops, limits=LINK)
        chance = random.Random(1)
        for _ in range(20_000):
            source = bytes((chance.randrange(50),)) * KEY_LENGTH
            box.put(forwarded(source, bytes(1400)), 1, source, 0.0, disco=disco)
        left = len(drained(box))
        assert left + drops.packets[disco] == 20_000
        cost = 1400 + PACKET_OVERHEAD + KEY_LENGTH + ENTRY_COST
        assert limit - 2 * cost < left * cost + 50 * FLOW_COST <= limit


def test_beyond_the_bound_the_oldest_go():
    drops = Drops()
    box = SendQueue(drops)
    fits = CLIENT.packets // 2 // 1000
    for number in range(2 * fits):
        for source in (FLOODER, HONEST):
            packet = number.to_bytes(4) + bytes(996)
            box.put(forwarded(source, packet), 1, source, 0.0, disco=False)
    sent = drained(box)
    for source in (FLOODER, HONEST):
        numbers = [int.from_bytes(packet[:4]) for sender, packet in sent if sender == source]
        assert 0 < numbers[0] < 2 * fits
        assert numbers == list(range(numbers[0], 2 * fits))


def test_a_part_of_a_train_has_waited_as_long_as_all_of_it():
    box = SendQueue(Drops())
    box.put(forwarded(HONEST, *[bytes(1000)] * 4), 4, HONEST, 1.0, disco=False)
    waits = []
    while box:
        waits += [entry.since for entry in box.take(1, 1.0 + TARGET / 2)[1]]
    assert waits == [1.0] * 4


@pytest.mark.slow
def test_who_floods_loses_and_others_do_not():
    for flood in ([bytes(1400)] * 60, [bytes(100)] * 400, [bytes(60_000)]):
        drops = Drops()
        box = SendQueue(drops, limits=LINK)
        train = forwarded(FLOODER, *flood)
        sent = []
        for number in range(2000):
            for _ in range(3):
                box.put(train, len(flood), FLOODER, 0.0, disco=False)
            box.put(forwarded(HONEST, number.to_bytes(4)), 1, HONEST, 0.0, disco=False)
            pieces, _ = box.take(16 << 10, 0.0)
            sent += payloads(b"".join(pieces))
        sent += drained(box)
        assert [payload for source, payload in sent if source == HONEST] == [
            number.to_bytes(4) for number in range(2000)
        ]
        assert drops.packets[False] > 1000


def test_senders_get_as_many_bytes_each():
    box = SendQueue(Drops(), limits=LINK)
    big, small = forwarded(FLOODER, bytes(60_000)), forwarded(HONEST, *[bytes(200)] * 10)
    for _ in range(30):
        box.put(big, 1, FLOODER, 0.0, disco=False)
    for _ in range(500):
        box.put(small, 10, HONEST, 0.0, disco=False)
    sent = {FLOODER: 0, HONEST: 0}
    for _ in range(10):
        for entry in box.take(64 << 10, 0.0)[1]:
            sent[entry.source] += len(entry.data)
    assert abs(sent[HONEST] - sent[FLOODER]) < 60_000 + 2 * QUANTUM
    assert sent[HONEST] + sent[FLOODER] >= 640 << 10


def test_disco_goes_first_and_only_in_part():
    box = SendQueue(Drops(), limits=LINK)
    for _ in range(2000):
        box.put(forwarded(FLOODER, bytes(100)), 1, FLOODER, 0.0, disco=True)
        box.put(forwarded(HONEST, bytes(1400)), 1, HONEST, 0.0, disco=False)
    limit = 64 << 10
    _, entries = box.take(limit, 0.0)
    assert entries[0].disco
    assert not entries[-1].disco
    disco = sum(len(entry.data) for entry in entries if entry.disco)
    assert limit / DISCO_SHARE <= disco < limit / DISCO_SHARE + QUANTUM + 300
    # Where there is nothing else, it gets all.
    alone = SendQueue(Drops(), limits=LINK)
    for _ in range(1000):
        alone.put(forwarded(FLOODER, bytes(100)), 1, FLOODER, 0.0, disco=True)
    pieces, _ = alone.take(limit, 0.0)
    assert sum(map(len, pieces)) >= limit


def test_control_goes_first():
    box = SendQueue(Drops(), limits=LINK)
    box.put(forwarded(HONEST, b"x"), 1, HONEST, 0.0, disco=True)
    assert box.put_control(b"control")
    pieces, entries = box.take(1 << 20, 0.0)
    assert pieces[0] == b"control"
    assert len(pieces) == 2
    assert len(entries) == 1


def test_clear():
    drops = Drops()
    box = SendQueue(Drops(), limits=LINK)
    box.put(forwarded(HONEST, b"x", b"y"), 2, HONEST, 0.0, disco=True)
    box.put(forwarded(FLOODER, b"z"), 1, FLOODER, 0.0, disco=False)
    box.put_control(b"control")
    assert box
    box.clear(drops)
    assert not box
    assert drops.packets == {False: 1, True: 2}
    assert box.take(1 << 20, 0.0) == ([], [])


def test_whose_lane_is_the_longest_may_change():
    box = SendQueue(Drops(), limits=LINK)
    one, many = forwarded(HONEST, bytes(1400)), forwarded(FLOODER, bytes(1400))
    for _ in range(2500):
        box.put(one, 1, HONEST, 0.0, disco=False)
    # Half as many more are too much, and the first has most of it; then the second goes on.
    for _ in range(6000):
        box.put(many, 1, FLOODER, 0.0, disco=False)
    left = drained(box)
    share = LINK.packets / (len(one) + ENTRY_COST) / 2
    assert abs(sum(source == HONEST for source, _ in left) - share) < 3
    assert abs(sum(source == FLOODER for source, _ in left) - share) < 3


def test_whose_lane_was_the_longest_once_and_is_short_now_does_not_hide_who_floods():
    drops = Drops()
    box = SendQueue(drops, limits=LINK)
    once, other = b"O" * KEY_LENGTH, b"X" * KEY_LENGTH
    for source in (*[once] * 2000, other, *[once] * 1000):
        box.put(forwarded(source, bytes(1400)), 1, source, 0.0, disco=False)
    few = 3000 + 1 - drops.packets[False]
    while few > 10:
        few -= sum(entry.packets for entry in box.take(1, 0.0)[1])
    drops.packets[False] = 0
    flood = forwarded(FLOODER, bytes(1400))
    for _ in range(LINK.packets // (len(flood) + ENTRY_COST) - few - 3):
        box.put(flood, 1, FLOODER, 0.0, disco=False)
    assert not drops.packets[False]
    for source in (HONEST, other):
        for number in range(200):
            box.put(forwarded(source, number.to_bytes(4)), 1, source, 0.0, disco=False)
    assert drops.packets[False] > 10
    left = drained(box)
    assert sum(source == HONEST for source, _ in left) == 200
    assert sum(source == other for source, _ in left) == 200
    assert sum(source == once for source, _ in left) == few > 0


def fill(box: SendQueue, source: bytes, size: int, now: float) -> None:
    """Queue packets of 1000 bytes, the number of each in front."""
    for number in range(size // 1000):
        packet = number.to_bytes(4) + bytes(996)
        box.put(forwarded(source, packet), 1, source, now, disco=False)


def test_what_is_too_old_goes_though_nobody_takes_anything_but_not_the_newest():
    drops = Drops()
    box = SendQueue(drops, limits=LINK)
    sources = [bytes((number,)) * KEY_LENGTH for number in range(10)]
    for source in sources:
        fill(box, source, 32_000, 0.0)
    fill(box, HONEST, 32_000, MAX_WAIT)
    assert box.expire(MAX_WAIT, 1000) == 0
    # No more at a time than asked for.
    assert [box.expire(1.5 * MAX_WAIT, 100) for _ in range(3)] == [100, 90, 0]
    assert drops.packets == {False: 190, True: 0}
    # However long it takes, the newest stay, and are what a peer gets that goes on.
    assert box.expire(1e6, 1000) == 19
    sent = drained(box, now=1.5 * MAX_WAIT)
    for source in (*sources, HONEST):
        numbers = [int.from_bytes(packet[:4]) for sender, packet in sent if sender == source]
        assert numbers == list(range(19, 32))


def test_what_is_too_old_goes_from_disco_too():
    drops = Drops()
    box = SendQueue(drops)
    for number in range(32):
        packet = number.to_bytes(4) + bytes(996)
        box.put(forwarded(HONEST, packet), 1, HONEST, 0.0, disco=True)
    fill(box, HONEST, 32_000, 0.0)
    assert box.expire(1.5 * MAX_WAIT, 1000) == 38
    assert drops.packets == {False: 19, True: 19}


def test_nothing_is_held_for_a_sender_whose_packets_all_were_released():
    drops = Drops()
    budget: MemoryBudget[Any] = MemoryBudget()
    box, other = SendQueue(drops, budget), SendQueue(drops, budget)
    fill(box, FLOODER, 20_000, 0.0)
    fill(box, HONEST, 20_000, 0.0)
    fill(other, HONEST, 1000, 0.0)
    least = budget.held
    # Another queue's packet comes, and there is room for no more than a little.
    budget.limit = 3000
    fill(other, HONEST, 1000, 0.0)
    assert budget.held <= budget.limit < least
    assert not box
    drained(other)
    assert budget.held == 0


def test_a_quiet_sender_never_waits_behind_a_busy_one():
    box = SendQueue(Drops())
    for source in (FLOODER, b"G" * KEY_LENGTH):
        fill(box, source, 200_000, 0.0)
    box.take(50_000, 0.0)
    first = 0
    for number in range(50):
        packet = (HONEST, number.to_bytes(4))
        box.put(forwarded(HONEST, number.to_bytes(4)), 1, HONEST, 0.0, disco=False)
        sent = payloads(b"".join(box.take(2 * QUANTUM, 0.0)[0]))
        # At most a quantum of each other goes before it.
        assert packet in sent
        first += sent[0] == packet
    assert first


def test_a_sender_that_comes_and_goes_does_not_starve_the_others():
    """Each time its sub-queue is empty before the next packet comes (RFC 8290, section 4.2)."""
    for count in (3, 4):  # less than a quantum, and more
        box = SendQueue(Drops())
        fill(box, FLOODER, 500_000, 0.0)
        # The busy sender has had its turn as a new one.
        box.put(forwarded(HONEST, b"x"), 1, HONEST, 0.0, disco=False)
        box.take(3 * QUANTUM, 0.0)
        train = forwarded(HONEST, *[bytes(1000)] * count)
        sent = {FLOODER: 0, HONEST: 0}
        for _ in range(50):
            box.put(train, count, HONEST, 0.0, disco=False)
            for entry in box.take(QUANTUM, 0.0)[1]:
                sent[entry.source] += entry.size
        assert abs(sent[HONEST] - sent[FLOODER]) < 4 * QUANTUM


def test_bursts_of_eight_senders_leave_in_equal_parts():
    box = SendQueue(Drops())
    sources = [bytes((number,)) * KEY_LENGTH for number in range(8)]
    sent = dict.fromkeys(sources, 0)
    for turn in range(400):
        for source in sources[turn % 8 :] + sources[: turn % 8]:
            box.put(forwarded(source, *[bytes(1000)] * 30), 30, source, turn / 100, disco=False)
        for entry in box.take(60_000, turn / 100)[1]:
            sent[entry.source] += entry.packets
    assert min(sent.values()) > 0.9 * max(sent.values())


def test_a_standing_queue_is_shortened_and_others_do_not_pay():
    drops = Drops()
    box = SendQueue(drops)
    heard = []
    for turn in range(3000):
        now = turn / 100
        box.put(forwarded(FLOODER, *[bytes(1000)] * 11), 11, FLOODER, now, disco=False)
        box.put(forwarded(HONEST, turn.to_bytes(4)), 1, HONEST, now, disco=False)
        pieces, entries = box.take(10_500, now)
        heard += [packet for source, packet in payloads(b"".join(pieces)) if source == HONEST]
        waits = [now - entry.since for entry in entries if entry.source == FLOODER]
        if turn > 2000:
            assert max(waits) < INTERVAL
    assert heard == [turn.to_bytes(4) for turn in range(3000)]
    # About a tenth is too much.
    assert 2000 < drops.packets[False] < 6000


def test_a_queue_below_the_target_loses_nothing():
    drops = Drops()
    box = SendQueue(drops)
    for turn in range(3000):
        now = turn / 100
        box.put(forwarded(HONEST, *[bytes(1000)] * 10), 10, HONEST, now, disco=False)
        assert box.take(1 << 20, now + TARGET / 2)[1]
    assert drops.packets == {False: 0, True: 0}


def test_many_senders_of_a_little_are_bounded_too():
    drops = Drops()
    box = SendQueue(drops)
    for number in range(3000):
        source = number.to_bytes(KEY_LENGTH)
        box.put(forwarded(source, b"x"), 1, source, 0.0, disco=False)
    left = len(drained(box))
    assert left + drops.packets[False] == 3000
    assert left <= CLIENT.packets / FLOW_COST


def test_the_longest_of_many_queues_pays():
    """A client is as long as all its flows; a link, as its longest."""
    for limits, payer in ((CLIENT, "many senders"), (LINK, "one sender")):
        budget: MemoryBudget[Any] = MemoryBudget()
        lost = {"many senders": Drops(), "one sender": Drops()}
        many, one = (SendQueue(drops, budget, limits) for drops in lost.values())
        for number in range(100):
            fill(many, number.to_bytes(KEY_LENGTH), 3000, 0.0)
        fill(one, HONEST, 100_000, 0.0)
        assert not any(drops.payload for drops in lost.values())
        budget.limit = budget.held
        fill(one, HONEST, 1000, 0.0)
        assert [name for name, drops in lost.items() if drops.payload] == [payer]
        assert budget.held <= budget.limit
        for queue in (many, one):
            drained(queue)
        assert budget.held == 0
