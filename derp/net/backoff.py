"""Exponential backoff with jitter. Sans-I/O."""

import random
from collections.abc import Callable
from typing import Final

FIRST: Final = 1.0
LONGEST: Final = 30.0
"""Seconds. Each wait is up to a quarter shorter, at random, so that relays which lost each other at
the same moment don't dial at the same moments."""


class Backoff:
    """Waits that double from `first` to `longest` seconds (Go: always 5 s)."""

    def __init__(
        self,
        chance: Callable[[], float] = random.random,
        *,
        first: float = FIRST,
        longest: float = LONGEST,
    ) -> None:
        self._chance = chance
        self._first = self._next = first
        self._longest = longest

    def next(self) -> float:
        """Return the seconds to wait now."""
        wait = self._next
        self._next = min(2 * wait, self._longest)
        return wait * (1 - self._chance() / 4)

    def reset(self) -> None:
        """Start over with the first wait."""
        self._next = self._first
