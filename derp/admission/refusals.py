"""The keys that were refused last, for the operator. Sans-I/O.

A process notes those that it refuses itself; `merged` has those of all workers.
"""

from collections.abc import Iterable
from typing import Any, Final

import attrs

MAX_REFUSED: Final = 100
"""Keys that are remembered; strangers can come with any number of them."""


@attrs.frozen
class Refusal:
    """A key that was refused, and its last try."""

    key: bytes
    """The node key, 32 bytes."""
    count: int
    last: float
    """Unix time, in seconds."""
    address: str
    """The client's IP address as text, or UNIX."""
    source: str
    """What has refused it."""
    reason: str

    def to_json(self) -> Any:
        """Return the refusal as a message for another process of this relay."""
        return [self.key.hex(), self.count, self.last, self.address, self.source, self.reason]

    @classmethod
    def from_json(cls, message: Any) -> "Refusal":
        """Undo `to_json`."""
        key, *rest = message
        return cls(bytes.fromhex(key), *rest)


class Refusals:
    """The MAX_REFUSED keys that were refused last."""

    def __init__(self) -> None:
        self._by_key: dict[bytes, Refusal] = {}

    def note(self, key: bytes, now: float, address: str, source: str, reason: str) -> None:
        """Note that a key was refused; `now` is Unix time."""
        before = self._by_key.pop(key, None)
        if len(self._by_key) >= MAX_REFUSED:
            del self._by_key[next(iter(self._by_key))]
        count = 1 if before is None else before.count + 1
        self._by_key[key] = Refusal(key, count, now, address, source, reason)

    def latest(self) -> list[Refusal]:
        """Return them, the latest first."""
        return [*reversed(self._by_key.values())]


def merged(found: Iterable[Refusal]) -> list[Refusal]:
    """Return the last refusals of several processes, the latest first, each key once."""
    by_key: dict[bytes, Refusal] = {}
    for each in sorted(found, key=lambda refusal: refusal.last, reverse=True):
        latest = by_key.setdefault(each.key, each)
        if latest is not each:
            by_key[each.key] = attrs.evolve(latest, count=latest.count + each.count)
    return [*by_key.values()][:MAX_REFUSED]
