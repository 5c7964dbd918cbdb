"""The time of day, which anyone may set: tests do."""

from collections.abc import Callable
from datetime import UTC, datetime

WallClock = Callable[[], datetime]


def wall_clock() -> datetime:
    """Return the time of day, timezone-aware."""
    return datetime.now(UTC)
