"""Counts what happens in each turn of Trio's event loop."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import trio


class Turns(trio.abc.Instrument):
    """A turn is what is done between two looks at the sockets: every task has at most one step."""

    def __init__(self) -> None:
        self.now = 0
        self.events: Counter[int] = Counter()

    def after_io_wait(self, timeout: float) -> None:
        self.now += 1

    def note(self) -> None:
        """Count an event."""
        self.events[self.now] += 1

    @property
    def most(self) -> int:
        """Events in one turn, at most."""
        return max(self.events.values())


@contextmanager
def counted_turns() -> Iterator[Turns]:
    turns = Turns()
    trio.lowlevel.add_instrument(turns)
    try:
        yield turns
    finally:
        trio.lowlevel.remove_instrument(turns)
