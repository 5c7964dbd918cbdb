"""Counts between two writes: each goes to the day on which its time began, and none is lost."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from derp.accounts.counts import (
    OTHER,
    ZERO,
    Counts,
    Period,
    day_of,
    days_so_far,
    first_kept,
    until_midnight,
)
from derp.accounts.unwritten import Unwritten

NOON = 1_796_126_400.0  # 2026-12-01 12:00 UTC
HOUR = 3600.0
KEYS = [bytes([number]) * 32 for number in range(8)]

numbers = st.integers(0, 1 << 40)
counts = st.builds(Counts, numbers, numbers, numbers, numbers, numbers)
added = st.tuples(st.sampled_from(KEYS), counts)
# Any time that a clock may be set to, and back.
times = st.floats(0, 4e9)


def total(unwritten: Unwritten) -> Counts:
    found = ZERO
    for _, _, each in unwritten:
        found = found.plus(each)
    return found


def test_days_and_months_are_those_of_utc() -> None:
    assert day_of(NOON) == "2026-12-01"
    assert day_of(NOON + 12 * HOUR) == "2026-12-02"
    assert day_of(0.0) == "1970-01-01"
    assert until_midnight(NOON) == 12 * HOUR
    assert days_so_far("2026-12-03") == ["2026-12-01", "2026-12-02", "2026-12-03"]
    assert first_kept("2026-12-01") == "2026-09-02"
    assert first_kept("0001-01-02") == "0001-01-01"


def test_what_is_added_counts_for_the_day_of_the_last_roll() -> None:
    unwritten = Unwritten(NOON)
    unwritten.add(KEYS[0], Counts(sent=1))
    unwritten.roll(NOON + 13 * HOUR)
    unwritten.add(KEYS[0], Counts(sent=2))
    # The clock is set back.
    unwritten.roll(NOON)
    unwritten.add(KEYS[0], Counts(sent=4))
    assert list(unwritten) == [
        ("2026-12-01", KEYS[0], Counts(sent=5)),
        ("2026-12-02", KEYS[0], Counts(sent=2)),
    ]


def test_usage_is_that_of_the_current_day_and_month() -> None:
    unwritten = Unwritten(NOON - 24 * HOUR)
    unwritten.add(KEYS[0], Counts(1, 2))  # November
    unwritten.roll(NOON)
    unwritten.add(KEYS[0], Counts(10, 20))
    unwritten.roll(NOON + 24 * HOUR)
    unwritten.add(KEYS[0], Counts(100, 200))
    assert unwritten.bytes_of(KEYS[0], Period.DAY) == 300
    assert unwritten.bytes_of(KEYS[0], Period.MONTH) == 330
    assert unwritten.bytes_of(KEYS[1], Period.MONTH) == 0


@given(st.lists(st.one_of(added, times), max_size=60), st.integers(1, 6))
def test_nothing_is_lost_whatever_the_clock_does_and_however_many_keys(
    events: list, most: int
) -> None:
    unwritten, expected = Unwritten(NOON, max_rows=most), ZERO
    days: Counter[str] = Counter()
    for event in events:
        if isinstance(event, float):
            unwritten.roll(event)
            continue
        unwritten.add(*event)
        expected = expected.plus(event[1])
        days[unwritten.today] += event[1].bytes
        # OTHER has a row of its own in each day.
        assert len(unwritten) <= most + len(days)
        assert len(unwritten) == len(list(unwritten))
    assert total(unwritten) == expected
    by_day: Counter[str] = Counter()
    for day, _, each in unwritten:
        by_day[day] += each.bytes
    assert by_day == days

    taken = unwritten.take()
    assert not list(unwritten)
    unwritten.add(KEYS[0], Counts(sent=1))
    unwritten.put_back(taken)
    assert total(unwritten) == expected.plus(Counts(sent=1))
    assert not list(taken)

    popped = ZERO
    while rows := unwritten.pop(2):
        assert len(rows) <= 2
        for _, _, each in rows:
            popped = popped.plus(each)
        assert len(unwritten) == len(list(unwritten))
    assert popped == expected.plus(Counts(sent=1))


def test_strangers_with_endless_keys_do_not_displace_who_moves_much() -> None:
    unwritten = Unwritten(NOON, max_rows=100)
    unwritten.add(KEYS[1], Counts(sent=1_000_000))
    for number in range(10_000):
        unwritten.add(number.to_bytes(32, "big"), Counts(received=100))
    assert len(unwritten) <= 101
    rows = {key: each for _, key, each in unwritten}
    assert rows[KEYS[1]] == Counts(sent=1_000_000)
    assert rows[OTHER].received >= 9_900 * 100
