"""The books: what the relay says, and what its clients know, have to be the same. Sans-I/O.

They are read when all faults are over. Each that does not balance is one line, which names it.
"""

from collections.abc import Collection, Mapping, Sequence

import attrs

MEMORY_FACTOR, MEMORY_MORE = 1.25, 32 << 20
"""By how much memory may be above what it was: a share of it, and bytes besides."""
DESCRIPTORS_MORE = 20
SHOWN = 5


@attrs.frozen(kw_only=True)
class Reading:
    """What was read in one moment."""

    belonging: frozenset[int]
    """The clients that belong in, by number."""
    inside: frozenset[int]
    """Those that are logged in, as they know themselves."""
    here: Collection[int]
    """The clients of this relay, and not of its peer."""
    figures: Mapping[str, float]
    """The relay's metrics."""
    consistent: bool
    """What its own check says."""
    peers: int
    """Mesh peers that have logged in here, when all are there."""
    keys: Mapping[int, str] = attrs.field(factory=dict)
    """The node key of each client of this relay."""
    listed: Sequence[str] | None = None
    """The keys that `derper clients` lists; None where there is no such command."""
    workers: int = 0
    """The workers that there have to be; 0 for a relay of one process."""


def unbalanced(reading: Reading) -> list[str]:
    """Return what does not balance, each a line that begins with the name of the book."""
    figures = reading.figures
    found = []
    if missing := reading.belonging - reading.inside:
        found.append(f"clients: {_some(missing)} belong in, and are out")
    if strangers := reading.inside - reading.belonging:
        found.append(f"clients: {_some(strangers)} don't belong in, and are in")
    here = reading.inside & set(reading.here)
    wanted = {
        "derp_current_connections": len(here) + reading.peers,
        "derp_clients_local": len(here) + reading.peers,
        # At a peer, this relay is a client, too.
        "derp_clients_remote": len(reading.inside) - len(here) + reading.peers,
        "derp_watchers": reading.peers,
    }
    if reading.workers:
        wanted["derper_workers"] = reading.workers
    for name, value in wanted.items():
        if name not in figures:
            found.append(f"gauges: there is no {name}")
        elif figures[name] != value:
            found.append(f"gauges: {name} is {figures[name]:.0f}, and has to be {value}")
    if not reading.consistent:
        found.append("check: /debug/check finds the relay inconsistent")
    if reading.listed is not None:
        found += _wrongly_listed(reading, here)
    return found


def _wrongly_listed(reading: Reading, here: Collection[int]) -> list[str]:
    known = {key: number for number, key in reading.keys.items()}
    listed = {known.get(key, -1) for key in reading.listed or ()}
    found = []
    if len(listed) != len(reading.listed or ()):
        found.append("clients listed: one of them twice, or unknown")
    if more := listed - set(here):
        found.append(f"clients listed: {_some(more)} are listed, and not connected")
    if fewer := set(here) - listed:
        found.append(f"clients listed: {_some(fewer)} are connected, and not listed")
    return found


def outgrown(before: int, after: int) -> list[str]:
    """Return a line if the relay has kept more memory than it may."""
    if after <= before * MEMORY_FACTOR + MEMORY_MORE:
        return []
    return [f"memory: {after >> 20} MiB, and {before >> 20} MiB before the first fault"]


def leaked(before: int, after: int) -> list[str]:
    """Return a line if the relay has more files open than it may."""
    if after <= before + DESCRIPTORS_MORE:
        return []
    return [f"descriptors: {after} are open, and {before} were before the first fault"]


def _some(numbers: Collection[int]) -> str:
    """Name some of the clients, and how many there are."""
    shown = ", ".join(map(str, sorted(numbers)[:SHOWN]))
    return shown if len(numbers) <= SHOWN else f"{shown} and {len(numbers) - SHOWN} more"
