"""One bound on the memory of all queues, and the choice of what is released above it.

Each queue has a bound of its own, but a thousand can hold a gigabyte. So there is one for all,
and the longest queue releases first: a peer that reads what it is sent never has the longest.

Memory is of two kinds. *Queued* packets can be dropped. *Committed* memory can't be taken back:
control frames, and what was handed to a transport, since a TLS record is sent whole or the
connection is over. Up to three quarters of the bound may be committed; queued packets have the
rest. The more is committed, the less is written to each peer at once; above three quarters, the
peer with the most is disconnected.

Flows (derp.relay.flowqueue) and peers (derp.session.sender) are `Holder`s, which account by `add`
and free memory in `release`. Holders are ranked by size: one rank for each UNIT, and from 4 UNITs
on four for each doubling. So a change takes the same time however many holders there are, and the
longest is known to within a quarter or a UNIT. The time of a release is that of the frames dropped.

Invariants: a `MemoryBudget` is above its limit only if no releasable holder has anything; a holder
that has ended has no bytes in the account.
"""

from typing import Any, Final, Generic, TypeVar

UNLIMITED: Final = 1 << 60
"""Bytes; more than any machine has."""
MIN_WRITE: Final = 4 << 10
"""Bytes that may be written to a peer at once, however much is committed."""
WRITES: Final = 32
"""The limit of a write is the free memory of the first quarter of the committed limit, divided by
this, but at least MIN_WRITE: the other three quarters are for many writes of MIN_WRITE."""

UNIT: Final = 4 << 10
"""Bytes of each of the lowest ranks. The holder that releases may be smaller than the longest by as
much, or by a quarter, if that is more."""

_STEPS: Final = 4
"""Ranks for each doubling."""


def rank_of(size: int) -> int:
    """Return the rank of a holder of `size` bytes: 0 for none, 1 for less than UNIT, and so on."""
    units = size // UNIT
    shift = units.bit_length() - 3
    return (size > 0) + (units if shift <= 0 else _STEPS * shift + (units >> shift))


def least_of(rank: int) -> int:
    """Return the smallest size of a rank."""
    if rank < 2:
        return rank
    doublings, step = divmod(rank - 1, _STEPS)
    units = step if doublings == 0 else (_STEPS + step) << (doublings - 1)
    return units * UNIT


_LEAST: Final = tuple(map(least_of, range(_STEPS * UNLIMITED.bit_length())))

H = TypeVar("H", bound="Holder")


class MemoryBudget(Generic[H]):
    """The memory of many holders, and its limit."""

    __slots__ = ("_highest", "_ranks", "held", "limit")

    def __init__(self, limit: int = UNLIMITED) -> None:
        self.limit = limit
        """Bytes; negative for queued memory while more than the whole bound is committed."""
        self.held = 0
        # The releasable holders of any bytes, by rank; all ranks above `_highest` are empty.
        self._ranks: dict[int, dict[H, None]] = {}
        self._highest = 0

    def enforce(self) -> None:
        """Have the longest holders release until the limit is kept, or none can release."""
        while (excess := self.held - self.limit) > 0 and (largest := self.largest()) is not None:
            largest.release(excess)
            if self.held - self.limit == excess:
                # A bug in one holder must not hang the relay.
                break

    def largest(self) -> H | None:
        """Return a holder of the highest rank, the next to release; None if there is none."""
        while rank := self._highest:
            if members := self._ranks.get(rank):
                # Not the first one: finding it is slow once entries before it were removed.
                largest, _ = members.popitem()
                members[largest] = None
                return largest
            self._highest -= 1
        return None

    def rank(self, holder: H, size: int) -> None:
        """Move a holder to the rank of its new size."""
        ranks, old, new = self._ranks, holder.rank, rank_of(size)
        if old:
            del ranks[old][holder]
        if new:
            self._highest = max(self._highest, new)
            if new in ranks:
                ranks[new][holder] = None
            else:
                ranks[new] = {holder: None}
        holder.rank, holder.least, holder.below = new, _LEAST[new], _LEAST[new + 1]


class Holder:
    """The owner of bytes of a budget; compared by identity."""

    __slots__ = ("below", "budget", "held", "least", "rank")

    def __init__(self, budget: MemoryBudget[Any], *, releasable: bool = True) -> None:
        """Hold nothing yet. If not `releasable`, its bytes count, but `release` is never called."""
        self.budget = budget
        self.held = 0
        """Bytes."""
        self.rank = 0
        # This rank is for sizes from `least` on that are below `below`.
        self.least, self.below = 0, 1 if releasable else UNLIMITED

    def release(self, at_least: int) -> None:
        """Release and account for `at_least` bytes if possible, else fewer, but not none."""
        raise NotImplementedError

    def add(self, size: int) -> None:
        """Account for `size` more bytes, or less if negative; after more, call `budget.enforce`."""
        self.budget.held += size
        self.held = held = self.held + size
        if not self.least <= held < self.below:
            self.budget.rank(self, held)


class QueueMemory:
    """The bound on all queues: `limit` bytes, of queued and committed memory."""

    __slots__ = ("committed", "limit", "queued", "write_size")

    def __init__(self, limit: int = UNLIMITED) -> None:
        self.limit = limit
        self.queued: MemoryBudget[Holder] = MemoryBudget(limit)
        self.committed: MemoryBudget[Holder] = MemoryBudget(limit // 4 * 3)
        self.write_size = self._write_size()
        """Most bytes to write to a peer at once, as memory is now."""

    @property
    def held(self) -> int:
        """Bytes, queued and committed."""
        return self.queued.held + self.committed.held

    def commit(self, holder: Holder, size: int) -> None:
        """Set the bytes that a holder has committed, then enforce the bound."""
        holder.add(size - holder.held)
        self.committed.enforce()
        self.write_size = self._write_size()
        self.queued.limit = self.limit - self.committed.held
        self.queued.enforce()

    def _write_size(self) -> int:
        free = self.committed.limit // 4 - self.committed.held
        return max(free // WRITES, MIN_WRITE)
