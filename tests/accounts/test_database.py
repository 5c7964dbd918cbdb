"""The table: sums are kept when rows are added, folded into months and bounded."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derp.accounts import database
from derp.accounts.counts import OTHER, ZERO, Counts, month_of

TODAY = "2026-12-01"
KEYS = [bytes([number]) * 32 for number in range(5)]

days = st.dates().map(lambda day: day.isoformat()) | st.sampled_from(
    ["2026-12-01", "2026-11-30", "2026-09-02", "2026-09-01", "2026-08-31", "2027-01-01"]
)
numbers = st.integers(0, 1 << 40)
rows = st.lists(
    st.tuples(
        days,
        st.sampled_from(KEYS),
        st.builds(Counts, numbers, numbers, numbers, numbers, numbers),
    ),
    max_size=30,
)


@contextmanager
def fresh() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        database.create(db)
        yield db


def all_rows(db: sqlite3.Connection) -> dict[tuple[str, bytes], Counts]:
    found = db.execute("SELECT period, key, * FROM counts")
    return {(period, key): Counts(*counts) for period, key, _, _, *counts in found}


@given(st.lists(rows, max_size=4), st.integers(1, 6), st.sampled_from([TODAY, "1970-01-01"]))
def test_sums_are_preserved(batches: list, most: int, today: str) -> None:
    with fresh() as db:
        expected, by_month = ZERO, {}
        for batch in batches:
            with database.transaction(db):
                database.add(db, batch, most)
            with database.transaction(db):
                database.fold(db, today, most)
            for day, _, counts in batch:
                expected = expected.plus(counts)
                month = month_of(day)
                by_month[month] = by_month.get(month, ZERO).plus(counts)
        found = ZERO
        for counts in all_rows(db).values():
            found = found.plus(counts)
        assert found == expected
        assert dict(database.totals(db, "month", "")) == by_month
        periods = [period for period, _ in all_rows(db)]
        assert all(periods.count(period) <= most + 1 for period in periods)


def test_days_older_than_90_become_months() -> None:
    with fresh() as db, database.transaction(db):
        old = [("2026-08-30", KEYS[0], Counts(1)), ("2026-08-31", KEYS[0], Counts(2))]
        more = [("2026-09-01", KEYS[0], Counts(4)), ("2026-09-02", KEYS[0], Counts(8))]
        database.add(db, [*old, *more])
        database.fold(db, TODAY)
        assert all_rows(db) == {
            ("2026-08", KEYS[0]): Counts(3),
            ("2026-09", KEYS[0]): Counts(4),
            ("2026-09-02", KEYS[0]): Counts(8),
        }
        # A day that comes late joins its month.
        database.add(db, [("2026-08-01", KEYS[0], Counts(16))])
        database.fold(db, TODAY)
        assert all_rows(db)["2026-08", KEYS[0]] == Counts(19)


def test_usage_is_that_of_the_day_and_of_the_month() -> None:
    with fresh() as db, database.transaction(db):
        database.add(db, [("2026-11-30", KEYS[0], Counts(1, 1))])
        database.add(
            db, [("2026-12-01", KEYS[0], Counts(2, 2)), ("2026-12-02", KEYS[0], Counts(4))]
        )
        database.add(db, [("2026-12-02", KEYS[1], Counts(8))])
        used = database.used(db, [KEYS[0], KEYS[2]], "2026-12-02")
        assert used == {KEYS[0]: (4, 8), KEYS[2]: (0, 0)}


def test_a_full_day_keeps_who_moves_most() -> None:
    with fresh() as db, database.transaction(db):
        database.add(db, [(TODAY, bytes([n]) * 32, Counts(n)) for n in range(1, 101)], 100)
        assert (TODAY, OTHER) not in all_rows(db)
        database.add(db, [(TODAY, bytes([n]) * 32, Counts(n)) for n in range(101, 103)], 100)
        kept = all_rows(db)
        assert len(kept) == 76
        assert (TODAY, bytes([102]) * 32) in kept
        assert kept[TODAY, OTHER] == Counts(sum(range(1, 28)))


def test_a_full_month_keeps_who_moves_most() -> None:
    with fresh() as db, database.transaction(db):
        for day in range(1, 31):
            rows = [(f"2026-06-{day:02}", bytes([day, n]) * 16, Counts(day)) for n in range(4)]
            database.add(db, rows, 4)
        database.fold(db, TODAY, 100)
        kept = all_rows(db)
        assert len(kept) == 76
        assert kept["2026-06", OTHER] == Counts(4 * sum(range(1, 12)) + 12)


def test_a_transaction_that_fails_changes_nothing() -> None:
    with fresh() as db:
        with pytest.raises(OverflowError), database.transaction(db):
            database.add(db, [(TODAY, KEYS[0], Counts(1)), (TODAY, KEYS[1], Counts(1 << 80))])
        assert not db.in_transaction
        assert all_rows(db) == {}


def test_totals() -> None:
    with fresh() as db, database.transaction(db):
        database.add(
            db,
            [
                ("2026-08-31", KEYS[0], Counts(1)),
                ("2026-11-30", KEYS[1], Counts(20)),
                ("2026-12-01", KEYS[0], Counts(4)),
                ("2026-12-01", KEYS[1], Counts(8)),
            ],
        )
        database.fold(db, TODAY)

        def by(way: str, since: str = "") -> list:
            return [(name, counts.sent) for name, counts in database.totals(db, way, since)]

        assert by("key") == [(KEYS[1], 28), (KEYS[0], 5)]
        assert by("day") == [("2026-08", 1), ("2026-11-30", 20), ("2026-12-01", 12)]
        assert by("month") == [("2026-08", 1), ("2026-11", 20), ("2026-12", 12)]
        assert by("day", "2026-12-01") == [("2026-12-01", 12)]
        assert by("day", "2026-12") == [("2026-12-01", 12)]
        assert by("day", "2026-08-31") == by("day", "2026-08") == by("day")
