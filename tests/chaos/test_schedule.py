"""The schedule, which has to be the same for the same seed, and to leave no fault out."""

from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.schedule import LONGEST, SHORTEST, rounds

NAMES = [f"fault-{number}" for number in range(7)]
SEEDS = st.integers(0, 2**32)


@given(SEEDS)
def test_a_seed_repeats_it(seed: int) -> None:
    assert list(islice(rounds(NAMES, seed), 20)) == list(islice(rounds(NAMES, seed), 20))


@given(SEEDS)
def test_each_comes_once_before_any_comes_again(seed: int) -> None:
    drawn = [entry.fault for each in islice(rounds(NAMES, seed), 30) for entry in each.entries]
    for start in range(0, len(drawn) - len(NAMES), len(NAMES)):
        assert sorted(drawn[start : start + len(NAMES)]) == NAMES


@given(SEEDS, st.integers(1, len(NAMES)))
def test_each_round_is_one_fault_or_two_that_overlap(seed: int, count: int) -> None:
    for each in islice(rounds(NAMES[:count], seed), 20):
        first, *others = each.entries
        assert first.begin == 0.0
        assert len(others) <= 1
        for entry in others:
            assert entry.fault != first.fault
            assert entry.begin < first.end
        for entry in each.entries:
            assert SHORTEST - 0.2 <= entry.end - entry.begin <= LONGEST + 0.2


def test_events_are_in_order_and_a_round_tells_all() -> None:
    pair = next(each for each in rounds(NAMES, 1) if len(each.entries) == 2)
    times = [at for at, _, _ in pair.events]
    assert times == sorted(times)
    assert len(times) == 4
    assert all(entry.fault in str(pair) for entry in pair.entries)
