"""The schedule: which fault begins and ends when. Sans-I/O: a seed and names in, rounds out.

A run has rounds. In each, one fault comes, or two that overlap; then all is left alone until the
books are read. So a book that does not balance is that of one round, and names its faults.
"""

import random
from collections.abc import Iterator, Sequence

import attrs

LONGEST, SHORTEST = 10.0, 3.0
"""Seconds that a fault lasts."""
PAIRS = 0.6
"""The share of rounds with two faults."""
OVERLAP = 0.7
"""How late the second one begins at most, as a share of the first one's time."""


@attrs.frozen
class Entry:
    """One fault of a round; seconds from the start of that round."""

    fault: str
    begin: float
    end: float


@attrs.frozen
class Round:
    number: int
    entries: Sequence[Entry]

    @property
    def events(self) -> list[tuple[float, bool, Entry]]:
        """Return what happens, in order: when, whether an entry begins then, which."""
        begins = [(entry.begin, True, entry) for entry in self.entries]
        ends = [(entry.end, False, entry) for entry in self.entries]
        return sorted(begins + ends, key=lambda event: event[0])

    def __str__(self) -> str:
        each = (f"{entry.fault} {entry.begin:.1f}-{entry.end:.1f} s" for entry in self.entries)
        return f"round {self.number}: {', '.join(each)}"


def rounds(faults: Sequence[str], seed: int) -> Iterator[Round]:
    """Yield rounds without end. Every fault comes once before any comes again."""
    chance = random.Random(seed)
    deck: list[str] = []
    number = 0
    while True:
        number += 1
        entries: list[Entry] = []
        for _ in range(2 if chance.random() < PAIRS and len(faults) > 1 else 1):
            if not deck:
                deck = chance.sample(faults, len(faults))
            lasts = chance.uniform(SHORTEST, LONGEST)
            begin = entries[0].end * OVERLAP * chance.random() if entries else 0.0
            if entries and deck[-1] == entries[0].fault:
                break
            entries.append(Entry(deck.pop(), round(begin, 1), round(begin + lasts, 1)))
        yield Round(number, entries)
