"""The counts of one key, and the periods that they are kept for. Sans-I/O."""

import enum
from datetime import UTC, date, datetime, timedelta
from typing import Final, NamedTuple

KEEP_DAYS: Final = 90
"""Days that are kept as such; older ones are folded into months."""
OTHER: Final = b""
"""Stands for keys that have no row of their own."""

_DAY_SECONDS: Final = 86400


class Counts(NamedTuple):
    """The traffic of one key: bytes, packets, and milliseconds of connections."""

    sent: int = 0
    """Bytes to the client."""
    received: int = 0
    """Bytes from the client."""
    packets_sent: int = 0
    packets_received: int = 0
    milliseconds: int = 0

    @property
    def bytes(self) -> int:
        """Bytes in both directions."""
        return self.sent + self.received

    def plus(self, other: "Counts") -> "Counts":
        """Return the sum."""
        return Counts(*(ours + theirs for ours, theirs in zip(self, other, strict=True)))

    def minus(self, other: "Counts") -> "Counts":
        """Return the difference."""
        return Counts(*(ours - theirs for ours, theirs in zip(self, other, strict=True)))


ZERO: Final = Counts()


class Period(enum.StrEnum):
    """A period for which usage is asked: the current one, in UTC."""

    DAY = "day"
    MONTH = "month"


def day_of(unix_time: float) -> str:
    """Return the UTC day as YYYY-MM-DD."""
    return f"{datetime.fromtimestamp(unix_time, UTC):%Y-%m-%d}"


def month_of(day: str) -> str:
    """Return the month of a day as YYYY-MM."""
    return day[:7]


def first_kept(today: str) -> str:
    """Return the first day that is not folded into its month yet."""
    try:
        return (date.fromisoformat(today) - timedelta(days=KEEP_DAYS)).isoformat()
    except OverflowError:
        return date.min.isoformat()


def days_so_far(today: str) -> list[str]:
    """Return the days of the current month up to `today`."""
    month = month_of(today)
    return [f"{month}-{number:02}" for number in range(1, int(today[8:]) + 1)]


def next_period(today: str, period: Period) -> str:
    """Return the first day after the day `today`, or after its month."""
    day = date.fromisoformat(today)
    try:
        if period is Period.DAY:
            return (day + timedelta(days=1)).isoformat()
        return (day.replace(day=28) + timedelta(days=4)).replace(day=1).isoformat()
    except OverflowError:
        return date.max.isoformat()


def until_midnight(unix_time: float) -> float:
    """Return the seconds until the UTC day ends."""
    return _DAY_SECONDS - unix_time % _DAY_SECONDS
