import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derp.relay.drrqueue import (
    DISCO_SHARE,
    FLOW_COST,
    LINK_BYTES,
    LINK_DISCO_BYTES,
    QUANTUM,
    DRRQueue,
)
from derp.relay.sendqueue import ENTRY_COST, MAX_WAIT
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


def drained(box: DRRQueue, limit: int = 64 << 10, now: float = 0.0) -> list[tuple[bytes, bytes]]:
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
    box = DRRQueue(drops)
    put: dict[tuple[bytes, bool], list[bytes]] = {}
    sent: dict[tuple[bytes, bool], list[bytes]] = {}
    now, number = 0.0, 0

    def take(limit: int) -> None:
        pieces, entries = box.take(limit, now)
        assert b"".join(pieces) == b"".join(entry.data for entry in entries)
        for entry in entries:
            for source, payload in payloads(entry.data):
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
    for disco, limit in ((False, LINK_BYTES), (True, LINK_DISCO_BYTES)):
        drops = Drops()
        box = DRRQueue(drops)
        chance = random.Random(1)
        for _ in range(20_000):
            source = bytes((chance.randrange(50),)) * KEY_LENGTH
            box.put(forwarded(source, bytes(1400)), 1, source, 0.0, disco=disco)
        left = len(drained(box))
        assert left + drops.packets[disco] == 20_000
        cost = 1400 + PACKET_OVERHEAD + KEY_LENGTH + ENTRY_COST
        assert limit - 2 * cost < left * cost + 50 * FLOW_COST <= limit


@pytest.mark.slow
def test_who_floods_loses_and_others_do_not():
    for flood in ([bytes(1400)] * 60, [bytes(100)] * 400, [bytes(60_000)]):
        drops = Drops()
        box = DRRQueue(drops)
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
    box = DRRQueue(Drops())
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
    box = DRRQueue(Drops())
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
    alone = DRRQueue(Drops())
    for _ in range(1000):
        alone.put(forwarded(FLOODER, bytes(100)), 1, FLOODER, 0.0, disco=True)
    pieces, _ = alone.take(limit, 0.0)
    assert sum(map(len, pieces)) >= limit


def test_what_is_old_is_dropped():
    drops = Drops()
    box = DRRQueue(drops)
    box.put(forwarded(HONEST, b"old", b"older"), 2, HONEST, 0.0, disco=False)
    box.put(forwarded(HONEST, b"disco"), 1, HONEST, 0.0, disco=True)
    box.put(forwarded(FLOODER, b"fresh"), 1, FLOODER, MAX_WAIT, disco=False)
    assert drained(box, now=MAX_WAIT * 1.5) == [(FLOODER, b"fresh")]
    assert drops.packets == {False: 2, True: 1}
    box.put(forwarded(HONEST, b"x"), 1, HONEST, 1.0, disco=False)
    assert box.take(1 << 20, 2.0) == ([], [])
    assert not box


def test_control_goes_first():
    box = DRRQueue(Drops())
    box.put(forwarded(HONEST, b"x"), 1, HONEST, 0.0, disco=True)
    assert box.put_control(b"control")
    pieces, entries = box.take(1 << 20, 0.0)
    assert pieces[0] == b"control"
    assert len(pieces) == 2
    assert len(entries) == 1


def test_clear():
    drops = Drops()
    box = DRRQueue(Drops())
    box.put(forwarded(HONEST, b"x", b"y"), 2, HONEST, 0.0, disco=True)
    box.put(forwarded(FLOODER, b"z"), 1, FLOODER, 0.0, disco=False)
    box.put_control(b"control")
    assert box
    box.clear(drops)
    assert not box
    assert drops.packets == {False: 1, True: 2}
    assert box.take(1 << 20, 0.0) == ([], [])


def test_whose_lane_is_the_longest_may_change():
    box = DRRQueue(Drops())
    one, many = forwarded(HONEST, bytes(1400)), forwarded(FLOODER, bytes(1400))
    for _ in range(2500):
        box.put(one, 1, HONEST, 0.0, disco=False)
    # Half as many more are too much, and the first has most of it; then the second goes on.
    for _ in range(6000):
        box.put(many, 1, FLOODER, 0.0, disco=False)
    left = drained(box)
    share = LINK_BYTES / (len(one) + ENTRY_COST) / 2
    assert abs(sum(source == HONEST for source, _ in left) - share) < 3
    assert abs(sum(source == FLOODER for source, _ in left) - share) < 3


def test_whose_lane_was_the_longest_once_and_is_short_now_does_not_hide_who_floods():
    drops = Drops()
    box = DRRQueue(drops)
    once, other = b"O" * KEY_LENGTH, b"X" * KEY_LENGTH
    for source in (*[once] * 2000, other, *[once] * 1000):
        box.put(forwarded(source, bytes(1400)), 1, source, 0.0, disco=False)
    few = 3000 + 1 - drops.packets[False]
    while few > 10:
        few -= sum(entry.packets for entry in box.take(1, 0.0)[1])
    drops.packets[False] = 0
    flood = forwarded(FLOODER, bytes(1400))
    for _ in range(LINK_BYTES // (len(flood) + ENTRY_COST) - few - 3):
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


def test_what_is_too_old_goes_though_nobody_takes_anything():
    drops = Drops()
    box = DRRQueue(drops)
    sources = [bytes((number,)) * KEY_LENGTH for number in range(10)]
    for source in sources:
        for disco in (True, False):
            box.put(forwarded(source, b"old", b"old"), 2, source, 0.0, disco=disco)
    box.put(forwarded(HONEST, b"new"), 1, HONEST, MAX_WAIT, disco=False)
    assert box.expire(MAX_WAIT, 100) == 0
    # No more at a time than asked for.
    assert [box.expire(1.5 * MAX_WAIT, 7) for _ in range(4)] == [7, 7, 6, 0]
    assert drops.packets == {False: 20, True: 20}
    assert drained(box, now=1.5 * MAX_WAIT) == [(HONEST, b"new")]
