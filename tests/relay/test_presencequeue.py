import pytest
from hypothesis import given
from hypothesis import strategies as st

from derp.relay.presencequeue import MAX_FRAMES_TAKEN, PresenceQueue


def key(number: int) -> bytes:
    return number.to_bytes(32)


class Truth(dict[bytes, bytes]):
    """What is true of each key; `made` is of whom frames were made."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[bytes] = []

    def frame(self, of: bytes) -> bytes:
        self.made.append(of)
        return of + self.get(of, b"")


def test_each_key_is_told_once_in_the_order_of_their_changes() -> None:
    updates = PresenceQueue(Truth().frame)
    assert not updates
    assert updates.take(100) == []
    updates.put([key(1), key(2)])
    updates.put([key(3), key(1), key(2)])
    updates.put([key(3)])
    assert len(updates) == 3
    assert updates.take(1000) == [key(1), key(2), key(3)]
    assert not updates
    updates.put([key(1)])
    assert updates.take(1) == [key(1)]


def test_a_frame_is_made_when_it_is_taken() -> None:
    truth = Truth()
    updates = PresenceQueue(truth.frame)
    for state in (b"came", b"went", b"came again"):
        truth[key(1)] = state
        updates.put([key(1), key(2)])
    assert truth.made == []
    assert updates.take(1) == [key(1) + b"came again"]
    assert truth.made == [key(1)]


def test_what_changes_behind_the_taking_is_told_once_more() -> None:
    updates = PresenceQueue(Truth().frame)
    updates.put([key(1), key(2)])
    assert updates.take(1) == [key(1)]
    updates.put([key(1)])
    assert updates.take(1000) == [key(2), key(1)]


@pytest.mark.parametrize(("limit", "count"), [(1, 1), (32, 1), (33, 2), (64, 2), (65, 3)])
def test_a_take_is_limited_by_whole_frames(limit: int, count: int) -> None:
    updates = PresenceQueue(Truth().frame)
    updates.put([key(number) for number in range(5)])
    assert updates.take(limit) == [key(number) for number in range(count)]


def test_no_take_makes_more_than_a_few_frames() -> None:
    truth = Truth()
    updates = PresenceQueue(truth.frame)
    updates.put([key(number) for number in range(MAX_FRAMES_TAKEN + 10)])
    assert len(updates.take(1 << 40)) == len(truth.made) == MAX_FRAMES_TAKEN
    assert len(updates.take(1 << 40)) == 10


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("tell"), st.integers(0, 5), st.binary(min_size=1, max_size=9)),
            st.tuples(st.just("tell all"), st.just(0), st.just(b"")),
            st.tuples(st.just("take"), st.integers(1, 150), st.just(b"")),
        ),
        max_size=60,
    )
)
def test_who_takes_all_knows_the_truth(actions: list[tuple[str, int, bytes]]) -> None:
    truth = Truth()
    updates = PresenceQueue(truth.frame)
    known: dict[bytes, bytes] = {}

    def take(limit: int) -> None:
        for frame in updates.take(limit):
            known[frame[:32]] = frame[32:]

    for action, number, state in actions:
        if action == "tell":
            truth[key(number)] = state
            updates.put((key(number),))
        elif action == "tell all":
            updates.put(truth)
        else:
            take(number)
        assert len(updates) <= len(truth)
    take(1 << 30)
    assert known == truth
    assert not updates
