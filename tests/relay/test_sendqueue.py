from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from derp.relay.flowqueue import ENTRY_COST, FLOW_COST, Entry
from derp.relay.presencequeue import PresenceQueue
from derp.relay.sendqueue import CLIENT, CONTROL_BYTES, CONTROL_COST, SendQueue
from derp.wire.frames import HEADER
from tests.support.frames import recv_packet

SOURCE = bytes(range(32))
ROOM = CLIENT.packets - FLOW_COST
DISCO_ROOM = CLIENT.disco - FLOW_COST
"""Bytes for what one sender has queued."""


class Drops(list[tuple[bool, int, int]]):
    def __call__(self, disco: bool, packets: int, payload: int) -> None:
        self.append((disco, packets, payload))


def train_of(*packets: bytes) -> bytes:
    return b"".join(recv_packet(SOURCE, packet) for packet in packets)


def take_all(box: SendQueue, now: float = 0.0) -> bytes:
    return b"".join(box.take(1 << 30, now)[0])


def packets_in(train: bytes) -> list[bytes]:
    found = []
    while train:
        _, length = HEADER.unpack_from(train)
        found.append(train[37 : 5 + length])
        train = train[5 + length :]
    return found


def test_control_comes_first_then_disco_then_the_rest() -> None:
    box = SendQueue(Drops())
    assert not box
    box.put(train_of(b"packet"), 1, SOURCE, 0.0, disco=False)
    box.put(train_of(b"disco"), 1, SOURCE, 0.0, disco=True)
    box.put_control(b"control")
    assert box
    assert take_all(box) == b"control" + train_of(b"disco") + train_of(b"packet")
    assert not box


def test_a_take_is_limited_but_never_empty_handed() -> None:
    box = SendQueue(Drops())
    first, second = train_of(b"a" * 1000), train_of(b"b" * 1000)
    box.put(first, 1, SOURCE, 0.0, disco=False)
    box.put(second, 1, SOURCE, 0.0, disco=False)
    pieces, entries = box.take(10, 0.0)
    assert (pieces, [entry.packets for entry in entries]) == ([first], [1])
    assert box.take(10, 0.0)[0] == [second]
    assert box.take(10, 0.0) == ([], [])


def test_too_many_bytes_drop_whole_frames_from_the_head() -> None:
    drops = Drops()
    box = SendQueue(drops)
    size = len(train_of(bytes(1400)))
    fits = ROOM // (size + ENTRY_COST)
    for number in range(fits + 3):
        box.put(train_of(number.to_bytes(4) + bytes(1396)), 1, SOURCE, 0.0, disco=False)
    assert drops == [(False, 1, 1400)] * 3
    left = packets_in(take_all(box))
    assert [int.from_bytes(packet[:4]) for packet in left] == list(range(3, fits + 3))


def test_a_part_of_a_run_is_dropped_by_whole_frames() -> None:
    drops = Drops()
    box = SendQueue(drops)
    frame = len(train_of(bytes(1000)))
    box.put(train_of(*([bytes(1000)] * 5)), 5, SOURCE, 0.0, disco=True)
    filler = bytes(DISCO_ROOM - 5 * frame - 37 - 2 * ENTRY_COST)
    box.put(train_of(filler), 1, SOURCE, 0.0, disco=True)
    assert drops == []
    box.put(train_of(b"x"), 1, SOURCE, 0.0, disco=True)
    assert drops == [(True, 1, 1000)]
    assert packets_in(take_all(box)) == [bytes(1000)] * 4 + [filler, b"x"]


def test_a_run_larger_than_its_lane_is_cut_down_to_it() -> None:
    drops = Drops()
    box = SendQueue(drops)
    box.put(train_of(*([bytes(30_000)] * 4)), 4, SOURCE, 0.0, disco=True)
    assert drops == [(True, 2, 60_000)]
    assert len(packets_in(take_all(box))) == 2


def test_control_frames_are_bounded_by_bytes() -> None:
    box = SendQueue(Drops())
    assert box.put_control(bytes(CONTROL_BYTES - 1))
    assert not box.put_control(b"xx")
    assert box.put_control(b"x")
    assert box.put_control(b"must", must=True)
    assert box.control_held == CONTROL_BYTES + 4 + 3 * CONTROL_COST
    assert len(take_all(box)) == CONTROL_BYTES + 4
    assert box.control_held == 0
    assert box.put_control(bytes(CONTROL_BYTES))
    box.clear(Drops())
    assert box.put_control(b"x")


def test_clearing_tells_of_every_packet() -> None:
    head, gone = Drops(), Drops()
    box = SendQueue(head)
    box.put_control(b"control")
    box.put(train_of(b"a", b"bc"), 2, SOURCE, 0.0, disco=False)
    box.put(train_of(b"d"), 1, SOURCE, 0.0, disco=True)
    box.clear(gone)
    assert sorted(gone) == [(False, 2, 3), (True, 1, 1)]
    assert head == []
    assert not box


def tell(box: SendQueue, *frames: bytes) -> None:
    """Queue updates; each key stands for its frame."""
    if box.presence is None:
        box.presence = PresenceQueue(lambda key: key)
    box.presence.put(frames)


def test_updates_come_behind_control_and_before_packets() -> None:
    box = SendQueue(Drops())
    box.put(train_of(b"packet"), 1, SOURCE, 0.0, disco=False)
    box.put(train_of(b"disco"), 1, SOURCE, 0.0, disco=True)
    tell(box, b"one", b"two")
    box.put_control(b"control")
    assert take_all(box) == b"control" + b"one" + b"two" + train_of(b"disco") + train_of(b"packet")
    assert not box
    assert box.take(100, 0.0) == ([], [])


def test_no_update_is_ever_dropped() -> None:
    drops = Drops()
    box = SendQueue(drops)
    updates = [number.to_bytes(4) * 25 for number in range(3 * (ROOM + CONTROL_BYTES) // 100)]
    for number, update in enumerate(updates):
        tell(box, update)
        # All else may be dropped meanwhile, or is too much.
        box.put(train_of(bytes(40_000)), 1, SOURCE, number, disco=False)
        box.put_control(bytes(1000))
    assert drops
    taken = []
    while box:
        taken += [piece for piece in box.take(1 << 40, 1e6)[0] if len(piece) == 100]
    assert taken == updates


def test_updates_do_not_count_as_control() -> None:
    box = SendQueue(Drops())
    box.put_control(bytes(10))
    tell(box, bytes(CONTROL_BYTES))
    assert len(take_all(box)) == CONTROL_BYTES + 10
    assert box.put_control(bytes(CONTROL_BYTES))
    assert not box.put_control(b"x")


def test_a_take_of_updates_is_limited_by_whole_frames() -> None:
    box = SendQueue(Drops())
    tell(box, *(bytes([number]) * 10 for number in range(5)))
    assert box.take(1, 0.0)[0] == [b"\0" * 10]
    assert box.take(11, 0.0)[0] == [b"\1" * 10, b"\2" * 10]
    box.put_control(b"enough")
    assert box.take(6, 0.0)[0] == [b"enough"]
    box.put(train_of(b"packet"), 1, SOURCE, 0.0, disco=False)
    assert box.take(15, 0.0)[0] == [b"\3" * 10, b"\4" * 10]
    assert packets_in(take_all(box)) == [b"packet"]


def test_clearing_forgets_updates() -> None:
    drops = Drops()
    box = SendQueue(drops)
    tell(box, b"one")
    box.clear(drops)
    assert not box
    assert drops == []
    tell(box, b"two")
    assert take_all(box) == b"two"


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.booleans(), st.lists(st.integers(0, 40_000), min_size=1)),
            st.tuples(st.just("take"), st.integers(1, 100_000), st.floats(0, 0.5)),
        ),
        max_size=40,
    )
)
def test_every_packet_is_taken_in_order_or_dropped(actions: list[tuple[object, ...]]) -> None:
    drops = Drops()
    box = SendQueue(drops)
    waiting: dict[bool, deque[bytes]] = {True: deque(), False: deque()}
    now = 0.0
    number = taken = put = 0

    def check_order(pieces: list[bytes | memoryview], entries: list[Entry]) -> int:
        count = 0
        assert len(pieces) == len(entries)
        for piece, entry in zip(pieces, entries, strict=True):
            found = packets_in(bytes(piece))
            assert len(found) == entry.packets
            assert sum(map(len, found)) == entry.payload
            for packet in found:
                # Dropping is from the head: what is skipped was dropped.
                while waiting[entry.disco].popleft() != packet:
                    pass
                count += 1
        return count

    for action in actions:
        if action[0] == "put":
            _, disco, sizes = action
            train = []
            for size in sizes:  # type: ignore[attr-defined]
                train.append(number.to_bytes(4) + bytes(size))
                number += 1
            put += len(train)
            waiting[disco].extend(train)
            box.put(train_of(*train), len(train), SOURCE, now, disco=disco)
        else:
            _, limit, elapsed = action
            now += elapsed
            taken += check_order(*box.take(limit, now))
    taken += check_order(*box.take(1 << 40, now))
    assert taken + sum(packets for _, packets, _ in drops) == put
    assert not box
