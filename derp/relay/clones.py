"""Keys that are connected from different addresses at once, for long: cloned nodes. Sans-I/O.

A client that changes its network connects anew, while its old connection may stay until TCP gives
it up. So an address counts only once a connection from there has lasted for longer than that.
"""

from collections.abc import Iterable
from typing import NamedTuple


class Sighting(NamedTuple):
    """A connection of a key."""

    key: bytes
    address: bytes
    """16 bytes, as in PeerPresent."""
    since: float
    """When it was made, in seconds of any monotonic clock."""


class Clones:
    """A detector of cloned keys, which is asked from time to time."""

    def __init__(self, grace: float) -> None:
        """Count connections that have lasted for `grace` seconds."""
        self._grace = grace
        # Of connections elsewhere is known only when they were seen first.
        self._seen: dict[tuple[bytes, bytes], float] = {}

    def find(
        self, here: Iterable[Sighting], elsewhere: Iterable[tuple[bytes, bytes]], now: float
    ) -> set[bytes]:
        """Return the keys that have two addresses.

        `here` are connections to this process, of keys with more than one; `elsewhere`, the key and
        the address of connections of these keys to other workers.
        """
        self._seen = {each: self._seen.get(each, now) for each in elsewhere}
        places: dict[bytes, set[bytes]] = {}
        seen = (Sighting(*each, since) for each, since in self._seen.items())
        for sighting in (*here, *seen):
            if now - sighting.since >= self._grace:
                places.setdefault(sighting.key, set()).add(sighting.address)
        return {key for key, addresses in places.items() if len(addresses) > 1}
