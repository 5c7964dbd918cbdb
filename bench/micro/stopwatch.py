"""A clock that stands still while something is prepared, and batches that keep it cheap."""

import time
from collections.abc import Callable, Iterator

Measure = Callable[[int], float]
"""Do something so many times; return the seconds that this took, preparations not included."""


class Stopwatch:
    """Adds up the time between each `start` and the next `stop`."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._since = 0.0

    def start(self) -> None:
        self._since = time.perf_counter()

    def stop(self) -> None:
        self.seconds += time.perf_counter() - self._since


def batches(loops: int, most: int) -> Iterator[int]:
    """Split `loops` into batches of at most `most`: what is prepared, and timed, at a time."""
    while loops > 0:
        yield min(loops, most)
        loops -= most
