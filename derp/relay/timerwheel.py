"""A timer wheel: one timer for many members instead of one timer for each.

Times are rounded up to whole seconds, so that members due within one second are found together.
"""

import math
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

M = TypeVar("M", bound=Hashable)


class TimerWheel(Generic[M]):
    """Members by the second in which each is due; a member is due at one time only."""

    def __init__(self) -> None:
        self._slots: dict[int, dict[M, None]] = {}
        self._slot_of: dict[M, int] = {}
        self._next: int | None = None
        """The first second that `due` has not come to yet; None before its first call."""

    def set(self, member: M, due: float) -> None:
        """Make a member due at `due` only, whatever was set before."""
        self.discard(member)
        slot = math.ceil(due)
        if self._next is not None:
            slot = max(slot, self._next)
        self._slots.setdefault(slot, {})[member] = None
        self._slot_of[member] = slot

    def discard(self, member: M) -> None:
        """Remove a member, if it is there."""
        slot = self._slot_of.pop(member, None)
        if slot is not None:
            members = self._slots[slot]
            del members[member]
            if not members:
                del self._slots[slot]

    def due(self, now: float) -> Iterator[M]:
        """Remove and yield each member due by `now`, which must not go backwards."""
        current = math.floor(now)
        self._next = current + 1
        for slot in sorted(slot for slot in self._slots if slot <= current):
            while members := self._slots.get(slot):
                member = next(iter(members))
                self.discard(member)
                yield member

    def __len__(self) -> int:
        return len(self._slot_of)
