"""The time for an order's records, and the signal to give up."""

import threading
import time
from collections.abc import Callable

import attrs

from certs.errors import IssueError


@attrs.frozen
class Budget:
    """A deadline, by `clock`; and an event that is set where the order is given up."""

    until: float
    stop: threading.Event = attrs.field(factory=threading.Event)
    clock: Callable[[], float] = time.monotonic

    @classmethod
    def of(cls, seconds: float, stop: threading.Event | None = None) -> "Budget":
        """Return a budget of some seconds from now."""
        return cls(time.monotonic() + seconds, stop or threading.Event())

    def left(self, limit: float = float("inf")) -> float:
        """Return the seconds that are left, `limit` at most; 0 if there are none."""
        return min(max(self.until - self.clock(), 0.0), limit)

    def pause(self, seconds: float) -> None:
        """Wait for `seconds`, or until the time is up. Raises IssueError if the order is over."""
        if self.stop.wait(self.left(seconds)):
            raise IssueError("the order was given up")

    def check(self) -> None:
        """Raise IssueError if the order is over."""
        self.pause(0.0)
