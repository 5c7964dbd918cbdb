"""The time of day, which tests set; and a wait that can be cut short."""

from collections.abc import Callable
from datetime import UTC, datetime

import trio

WallClock = Callable[[], datetime]


def wall_clock() -> datetime:
    """Return the time of day, timezone-aware."""
    return datetime.now(UTC)


async def woken_within(seconds: float, wake: trio.MemoryReceiveChannel[None]) -> bool:
    """Wait for `seconds`, or until `wake` receives; return whether `wake` did."""
    with trio.move_on_after(seconds):
        await wake.receive()
        return True
    return False
