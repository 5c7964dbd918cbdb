"""The workers' claims to keys, which decide what worker has a key: last writer wins.

Each worker claims the keys of its clients. A claim is a number, made when a client logs in or a
passive one sends: nanoseconds of a clock that all workers share, but more than any claim to the key
that the worker knows. Packets for a key go to the worker with the highest claim, in whatever order
the claims arrive. The low bits are the worker's number, so that no two workers' claims are equal.
"""

from typing import Final, Generic, TypeVar

WORKER_BITS: Final = 8
"""How many low bits of a claim are its worker's number."""

S = TypeVar("S")
"""A link to another worker."""


def next_claim(now: int, known: int, worker: int) -> int:
    """Return a claim of `worker` at `now` nanoseconds that is higher than the claim `known`."""
    return max(now, (known >> WORKER_BITS) + 1) << WORKER_BITS | worker


class Claims(Generic[S]):
    """The links to the workers that claim each key."""

    def __init__(self) -> None:
        self.best: dict[bytes, S] = {}
        """The link that a key's packets take. Read directly on the packet path."""
        # The claim behind each `best`, and all links of keys that have more than one.
        self._claims: dict[bytes, int] = {}
        self._several: dict[bytes, dict[S, int]] = {}

    def highest(self, key: bytes) -> int:
        """Return the highest claim to a key, 0 if there is none."""
        return self._claims.get(key, 0)

    def add(self, key: bytes, link: S, claim: int) -> None:
        """Record the claim of the worker behind `link`, in place of its earlier one."""
        best = self.best.get(key)
        if best is None or (best is link and key not in self._several):
            self.best[key] = link
            self._claims[key] = claim
            return
        several = self._several.setdefault(key, {best: self._claims[key]})
        several[link] = claim
        self._choose(key, several)

    def remove(self, key: bytes, link: S) -> bool:
        """Remove the claim of the worker behind `link`; return whether it was the key's last."""
        if (several := self._several.get(key)) is None:
            if self.best.get(key) is not link:
                return False
            del self.best[key], self._claims[key]
            return True
        if link in several:
            del several[link]
            self._choose(key, several)
            if len(several) == 1:
                del self._several[key]
        return False

    def _choose(self, key: bytes, several: dict[S, int]) -> None:
        best = max(several, key=several.__getitem__)
        self.best[key] = best
        self._claims[key] = several[best]

    def check(self) -> list[str]:
        """Return what is inconsistent, one sentence each; empty when all is well."""
        problems = []
        if self.best.keys() != self._claims.keys():
            problems.append("a key has a link without a claim, or a claim without a link")
        for key, several in self._several.items():
            if len(several) < 2:
                problems.append("a key has a set of claims with fewer than two in it")
            elif key in self.best and several.get(self.best[key]) != max(several.values()):
                problems.append("a key's packets do not go to the worker that had it last")
        return problems
