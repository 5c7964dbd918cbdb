"""How much is held for all peers together, who holds most of it, and who lets go of it.

Each queue has a bound of its own, and a thousand of them would hold a gigabyte. So there is one
bound for all, and what is too much is taken from the longest queue first: a peer that takes what it
is sent never has the longest one.

What is held is of two kinds. *Queued* are packets: they can be dropped. *Committed* is what can't
be taken back: control frames, and what was handed to a transport, since a TLS record is sent whole
or the connection is over. It may be three quarters of the bound, and what is queued has the rest.
The more is committed, the less each peer is handed at once; where it is too much all the same, the
peer with most of it is disconnected.

This knows nothing of how packets are queued (derp.relay.sendqueue) nor of connections
(derp.session.sender): whoever holds something is a `Holder`, keeps its account by `add`, and lets
go of something when it is told to `release`.

How it works: holders are ranked by size, with four ranks for each doubling from UNIT on. So every
change takes the same time however many there are, and the longest is known to a quarter, or to a
UNIT. What is let go of takes time for the frames that are dropped, each of which was put once.

What must never happen here: a `MemoryBudget` above its limit while somebody who pays has anything;
a holder that ends and leaves something in its account.
"""

from typing import Any, Final, Generic, TypeVar

UNLIMITED: Final = 1 << 60
"""Bytes; more than any machine has."""
MIN_WRITE: Final = 4 << 10
"""Bytes that a peer may be handed at once however much is committed."""
WRITES: Final = 32
"""Above that, it is one in so many of the bytes that are free in the first quarter of what may be
committed: the rest is for the least pieces of many peers."""

UNIT: Final = 4 << 10
"""Bytes by which the longest may be longer than who pays, where a quarter is less."""

_STEPS: Final = 4


def rank_of(size: int) -> int:
    """Return the rank of a holder of `size` bytes: 0 for none, 1 for less than UNIT, and so on."""
    units = size // UNIT
    shift = units.bit_length() - 3
    return (size > 0) + (units if shift <= 0 else _STEPS * shift + (units >> shift))


def least_of(rank: int) -> int:
    """Return the smallest size that has a rank."""
    if rank < 2:
        return rank
    doublings, step = divmod(rank - 1, _STEPS)
    units = step if doublings == 0 else (_STEPS + step) << (doublings - 1)
    return units * UNIT


_LEAST: Final = tuple(map(least_of, range(_STEPS * UNLIMITED.bit_length())))

H = TypeVar("H", bound="Holder")


class MemoryBudget(Generic[H]):
    """What many holders hold together."""

    __slots__ = ("_highest", "_ranks", "held", "limit")

    def __init__(self, limit: int = UNLIMITED) -> None:
        self.limit = limit
        """Bytes; negative where others have taken all of it."""
        self.held = 0
        """Bytes."""
        # By rank, those who pay and have anything.
        self._ranks: dict[int, dict[H, None]] = {}
        # No rank above has anybody.
        self._highest = 0

    def enforce(self) -> None:
        """Have the longest pay until what is held is within the limit, or nobody has anything."""
        while (excess := self.held - self.limit) > 0 and (largest := self.largest()) is not None:
            largest.release(excess)
            if self.held - self.limit == excess:
                # A mistake in one queue must not keep everybody here for ever.
                break

    def largest(self) -> H | None:
        """Return who pays next, of the highest rank; None where nobody has anything."""
        while rank := self._highest:
            if members := self._ranks.get(rank):
                # The first one of a dict is not found at once where others before it have left.
                largest, _ = members.popitem()
                members[largest] = None
                return largest
            self._highest -= 1
        return None

    def rank(self, holder: H, size: int) -> None:
        """Rank a holder by its size, which is not one of its rank."""
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
    """Whoever holds bytes of a pool; compared by identity. The pool has it while it has any."""

    __slots__ = ("below", "budget", "held", "least", "rank")

    def __init__(self, budget: MemoryBudget[Any], *, releasable: bool = True) -> None:
        """Hold nothing yet. Who does not pay is counted, and never told to let go of anything."""
        self.budget = budget
        self.held = 0
        """Bytes."""
        self.rank = 0
        # The sizes of this rank: from `least` on, and below `below`.
        self.least, self.below = 0, 1 if releasable else UNLIMITED

    def release(self, at_least: int) -> None:
        """Let go of so many bytes or more, or of something at least, and account for that."""
        raise NotImplementedError

    def add(self, size: int) -> None:
        """Account for `size` more bytes, less where it is negative.

        Behind whatever makes it more, `enforce` of the pool is to be called.
        """
        self.budget.held += size
        self.held = held = self.held + size
        if not self.least <= held < self.below:
            self.budget.rank(self, held)


class QueueMemory:
    """The bound for all that waits: `limit` bytes, of packets and of what is committed."""

    __slots__ = ("committed", "limit", "queued", "write_size")

    def __init__(self, limit: int = UNLIMITED) -> None:
        self.limit = limit
        self.queued: MemoryBudget[Holder] = MemoryBudget(limit)
        self.committed: MemoryBudget[Holder] = MemoryBudget(limit // 4 * 3)
        self.write_size = self._write_size()
        """Bytes that a peer should be handed at once, as memory is now."""

    @property
    def held(self) -> int:
        """Bytes that are held now."""
        return self.queued.held + self.committed.held

    def commit(self, holder: Holder, size: int) -> None:
        """Have a holder of committed bytes hold `size` of them, then see that all is in bounds."""
        holder.add(size - holder.held)
        self.committed.enforce()
        self.write_size = self._write_size()
        self.queued.limit = self.limit - self.committed.held
        self.queued.enforce()

    def _write_size(self) -> int:
        free = self.committed.limit // 4 - self.committed.held
        return max(free // WRITES, MIN_WRITE)
