"""The accounts in SQL. All functions block, and raise sqlite3.Error.

A row is what one key moved in one period: a day (2026-11-30), or a month (2026-11) once the day is
older than KEEP_DAYS. A period has MAX_ROWS rows at most, which bounds the file: above that, the
keys that moved least are counted together, under OTHER.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from derp.accounts.counts import OTHER, Counts, days_so_far, first_kept, month_of
from derp.accounts.unwritten import MAX_ROWS

APPLICATION_ID: Final = 0x64657270
"""PRAGMA application_id of our files: "derp"."""
VERSION: Final = 1
"""PRAGMA user_version: a file with a greater one is of a later program."""

_COLUMNS: Final = Counts._fields
_SUMS: Final = ", ".join(f"sum({name})" for name in _COLUMNS)
_ADD: Final = "ON CONFLICT (period, key) DO UPDATE SET " + ", ".join(
    f"{name} = {name} + excluded.{name}" for name in _COLUMNS
)
_INSERT: Final = f"INSERT INTO counts (period, key, {', '.join(_COLUMNS)})"
_UPSERT: Final = f"{_INSERT} VALUES ({', '.join('?' * (2 + len(_COLUMNS)))}) {_ADD}"
_IS_OLD_DAY: Final = "length(period) = 10 AND period < ?"

_SCHEMA: Final = (
    "CREATE TABLE counts (period TEXT NOT NULL, key BLOB NOT NULL, "
    + ", ".join(f"{name} INTEGER NOT NULL" for name in _COLUMNS)
    + ", PRIMARY KEY (period, key)) WITHOUT ROWID"
)


def create(db: sqlite3.Connection) -> None:
    """Make the table in an empty database: all or nothing."""
    with transaction(db):
        db.execute(_SCHEMA)
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {VERSION}")


class transaction:  # noqa: N801 -- reads as a statement
    """A transaction: committed at the end of the block, or undone."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, error: object, *_: object) -> None:
        try:
            if error is None:
                self._db.execute("COMMIT")
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")


def add(
    db: sqlite3.Connection, rows: Iterable[tuple[str, bytes, Counts]], max_rows: int = MAX_ROWS
) -> None:
    """Add counts to the rows of their days, within a transaction."""
    days: set[str] = set()

    def values() -> Iterable[Sequence[object]]:
        for day, key, counts in rows:
            days.add(day)
            yield day, key, *counts

    db.executemany(_UPSERT, values())
    for day in days:
        _bound(db, day, max_rows)


def fold(db: sqlite3.Connection, today: str, max_rows: int = MAX_ROWS) -> None:
    """Fold the days that are too old into their months, within a transaction."""
    first = (first_kept(today),)
    months = db.execute(
        f"SELECT DISTINCT substr(period, 1, 7) FROM counts WHERE {_IS_OLD_DAY}", first
    ).fetchall()
    if not months:
        return
    db.execute(
        f"{_INSERT} SELECT substr(period, 1, 7), key, {_SUMS} FROM counts "
        f"WHERE {_IS_OLD_DAY} GROUP BY 1, 2 {_ADD}",
        first,
    )
    db.execute(f"DELETE FROM counts WHERE {_IS_OLD_DAY}", first)
    for (month,) in months:
        _bound(db, month, max_rows)


def used(db: sqlite3.Connection, keys: Iterable[bytes], today: str) -> dict[bytes, tuple[int, int]]:
    """Return each key's bytes, in both directions, of the current day and of the current month."""
    periods = [today, month_of(today), *(day for day in days_so_far(today) if day != today)]
    query = (
        f"SELECT sum(CASE period WHEN ? THEN sent + received ELSE 0 END), sum(sent + received) "
        f"FROM counts WHERE key = ? AND period IN ({', '.join('?' * len(periods))})"
    )
    found = {}
    for key in keys:
        (day, month), *_ = db.execute(query, (today, key, *periods))
        found[key] = (day or 0, month or 0)
    return found


def totals(db: sqlite3.Connection, by: str, since: str) -> Iterator[tuple[str | bytes, Counts]]:
    """Yield the sums by "day", "month" or "key", from the day or month `since` on.

    Days and months come in order, keys with the most bytes first. By day, what was folded is under
    its month; a month counts if any of its days does.
    """
    group = {"day": "period", "month": "substr(period, 1, 7)", "key": "key"}[by]
    order = "sum(sent + received) DESC, key" if by == "key" else "1"
    query = (
        f"SELECT {group}, {_SUMS} FROM counts WHERE period >= substr(?, 1, length(period)) "
        f"GROUP BY 1 ORDER BY {order}"
    )
    for name, *sums in db.execute(query, (since,)):
        yield name, Counts(*sums)


def _bound(db: sqlite3.Connection, period: str, most: int) -> None:
    """Count the keys that moved least in a period under OTHER if it has more rows than `most`."""
    (count,) = db.execute("SELECT count(*) FROM counts WHERE period = ?", (period,)).fetchone()
    if count <= most:
        return
    least = (
        "SELECT key FROM counts WHERE period = ? AND key != ? ORDER BY sent + received, key LIMIT ?"
    )
    among = (period, period, OTHER, count - most + max(1, most // 4))
    where = f"period = ? AND key IN ({least})"
    sums = db.execute(f"SELECT {_SUMS} FROM counts WHERE {where}", among).fetchone()
    db.execute(f"DELETE FROM counts WHERE {where}", among)
    db.execute(_UPSERT, (period, OTHER, *sums))
