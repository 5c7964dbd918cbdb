"""The counts that have not been written yet, by day and key. Sans-I/O.

What is added counts for the day on which the time since the last `roll` began; so `roll` is called
at midnight too. Strangers can log in with ever new keys: above a bound, the keys that have moved
least are counted together, under OTHER.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Final

from derp.accounts.counts import OTHER, ZERO, Counts, Period, day_of, month_of

MAX_ROWS: Final = 20_000
"""Most rows of one period, in the file and here: above it, the least ones become one."""

Rows = dict[str, dict[bytes, Counts]]
"""Counts by day and key."""


class Unwritten:
    """Counts since the last write."""

    def __init__(self, unix_time: float, max_rows: int = MAX_ROWS) -> None:
        self.today = day_of(unix_time)
        """The day that `add` counts for."""
        self._rows: Rows = {}
        self._count = 0
        self._max = max_rows

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[tuple[str, bytes, Counts]]:
        for day, rows in self._rows.items():
            for key, counts in rows.items():
                yield day, key, counts

    def roll(self, unix_time: float) -> None:
        """Count for the day of `unix_time` from now on, which may also be an earlier one."""
        self.today = day_of(unix_time)

    def add(self, key: bytes, counts: Counts, day: str | None = None) -> None:
        """Add counts of a key, for `today` unless another day is given."""
        rows = self._rows.setdefault(day or self.today, {})
        before = rows.get(key)
        if before is not None:
            rows[key] = before.plus(counts)
            return
        rows[key] = counts
        self._count += 1
        if self._count > self._max:
            self._squeeze()

    def take(self) -> "Unwritten":
        """Return all counts, and forget them here."""
        taken = Unwritten(0, self._max)
        taken.today, taken._rows, taken._count = self.today, self._rows, self._count
        self._rows, self._count = {}, 0
        return taken

    def put_back(self, taken: "Unwritten") -> None:
        """Add counts that could not be written; nothing stays in `taken`."""
        if len(taken) > len(self):
            self._rows, taken._rows = taken._rows, self._rows  # noqa: SLF001 -- of this class
            self._count, taken._count = taken._count, self._count  # noqa: SLF001
        for day, key, counts in taken:
            self.add(key, counts, day)
        taken.take()

    def pop(self, most: int) -> list[tuple[str, bytes, Counts]]:
        """Return up to `most` rows, and forget them here."""
        rows = list(islice(self, most))
        for day, key, _ in rows:
            of_day = self._rows[day]
            del of_day[key]
            if not of_day:
                del self._rows[day]
        self._count -= len(rows)
        return rows

    def bytes_of(self, key: bytes, period: Period) -> int:
        """Return a key's bytes, in both directions, in the current day or month."""
        if period is Period.DAY:
            return self._rows.get(self.today, {}).get(key, ZERO).bytes
        month = month_of(self.today)
        found = (rows.get(key, ZERO) for day, rows in self._rows.items() if month_of(day) == month)
        return sum(counts.bytes for counts in found)

    def _squeeze(self) -> None:
        """Count the keys that have moved least, a quarter of all, under OTHER."""
        ranked = sorted((row for row in self if row[1] != OTHER), key=lambda row: row[2].bytes)
        for day, key, _ in ranked[: max(1, self._max // 4) + 1]:
            rows = self._rows[day]
            counts = rows.pop(key)
            self._count -= OTHER in rows
            rows[OTHER] = rows.get(OTHER, ZERO).plus(counts)
