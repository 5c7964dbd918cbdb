"""The link to another relay through which a key that is not connected here is reached.

While a client moves, two relays may report its key: then packets for it take the first link until
that relay reports it gone (Go: multiForwarder).
"""

from typing import Generic, TypeVar

F = TypeVar("F")


class Forwarders(Generic[F]):
    """The links to the relays that report each key."""

    def __init__(self) -> None:
        self.best: dict[bytes, F] = {}
        """The link that a key's packets take. Read directly on the packet path."""
        self.created = 0
        """How often a key got a second link."""
        self.deleted = 0
        """How often a key with several links was left with one."""
        self.delete_other = 0
        """How often a link was to be removed from a key that was reached in another way only."""
        # The links of keys that have more than one, oldest first.
        self._several: dict[bytes, dict[F, None]] = {}

    def add(self, key: bytes, link: F) -> None:
        """Add a link to `key` (Go: AddPacketForwarder)."""
        best = self.best.get(key)
        if best is None:
            self.best[key] = link
        elif (several := self._several.get(key)) is not None:
            several[link] = None
        elif best is not link:
            self._several[key] = {best: None, link: None}
            self.created += 1

    def remove(self, key: bytes, link: F) -> bool:
        """Remove a link to `key`; return whether it was the last (Go: RemovePacketForwarder)."""
        best = self.best.get(key)
        if best is None:
            return False
        if (several := self._several.get(key)) is None:
            if best is not link:
                self.delete_other += 1
                return False
            del self.best[key]
            return True
        if link in several:
            del several[link]
            self.best[key] = next(iter(several))
            if len(several) == 1:
                del self._several[key]
                self.deleted += 1
        return False

    def check(self) -> list[str]:
        """Return what is inconsistent, one sentence each; empty when all is well."""
        problems = []
        for key, several in self._several.items():
            if len(several) < 2:
                problems.append("a key has a set of links with fewer than two in it")
            elif self.best.get(key) is not next(iter(several)):
                problems.append("a key's packets do not take the link that was first")
        return problems
