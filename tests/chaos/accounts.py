"""The accounts' sums against what the clients counted. Sans-I/O.

What the relay has received from a key is never more than the client has sent. It is less by what
was on its way when the connection ended, and by what a process that was ended had counted last.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import attrs

ON_ITS_WAY = 2.0
"""Seconds: what was sent less long before a connection ended may not have come."""
RESOLUTION = 1.5
"""Seconds between two samples of what a client has counted."""
SHOWN = 5


@attrs.frozen
class Counted:
    """What one client has counted. Times are of the monotonic clock."""

    sent: int
    """All bytes that it gave to its connections."""
    samples: Sequence[tuple[float, int]]
    """When, and how many bytes connections that were logged in had been given until then."""
    cuts: Sequence[float]
    """When its connections ended, other than in good order."""

    def until(self, when: float) -> int:
        """Return how many bytes were counted until then."""
        return max((count for at, count in self.samples if at <= when), default=0)

    def least(self, lost: Sequence[tuple[float, float]]) -> int:
        """Return how many bytes the relay must have, apart from those that may be `lost`."""
        cut = ((at - ON_ITS_WAY, at) for at in self.cuts)
        gone = 0
        for begin, end in _merged([*lost, *cut]):
            gone += self.until(end + RESOLUTION) - self.until(begin - RESOLUTION)
        return self.samples[-1][1] - gone


class Balance(NamedTuple):
    """How the accounts stand."""

    wrong: list[str]
    """What does not balance."""
    sent: int
    """Bytes that all clients sent on connections that were logged in."""
    kept: int
    """Bytes that the accounts have of them."""


def balance(
    accounts: Mapping[str, int],
    counted: Mapping[str, Counted],
    lost: Sequence[tuple[float, float]],
    mesh_peers: int,
) -> Balance:
    """Compare the bytes received by key with what each client counted.

    `lost`: from when to when what was counted may be missing. The keys of `mesh_peers` relays have
    accounts, too.
    """
    wrong = []
    for key, count in counted.items():
        kept, least = accounts.get(key, 0), count.least(lost)
        if kept > count.sent:
            wrong.append(f"accounts: {key} has {kept} bytes, but only {count.sent} were sent")
        elif kept < least:
            wrong.append(f"accounts: {key} has {kept} bytes, of at least {least} that were sent")
    others = accounts.keys() - counted.keys()
    if len(others) > mesh_peers:
        wrong.append(f"accounts: {len(others)} keys that are no client's, of {mesh_peers}")
    if len(wrong) > SHOWN:
        wrong = [*wrong[:SHOWN], f"accounts: {len(wrong) - SHOWN} more like these"]
    sent = sum(each.samples[-1][1] for each in counted.values())
    return Balance(wrong, sent, sum(accounts.get(key, 0) for key in counted))


def _merged(spans: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the same spans of time, without overlaps."""
    merged: list[tuple[float, float]] = []
    for begin, end in sorted(spans):
        begin_sampled = begin - 2 * RESOLUTION
        if merged and begin_sampled <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((begin, end))
    return merged
