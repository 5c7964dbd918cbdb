"""What a storm may not come to, however busy the machine is: so nothing here is about time."""

from collections.abc import Sequence

from tests.storms.measure import Measured
from tests.storms.storms import Storm

NO_ROOM = ("reason=no_room", "reason=too_many_pending", "reason=too_many_connections")
"""Ends of connections that the relay had no room for."""
LET_IN = "strangers were let in"


def faults(storm: Storm, measured: Measured) -> Sequence[str]:
    """Return what is wrong."""
    belong, strangers = measured.belong, measured.strangers
    found = [f"{what}: {count}" for what, count in measured.broken.items()]
    if measured.tracebacks:
        found.append(f"{measured.tracebacks} tracebacks in the log")
    if belong.here < belong.count:
        found.append(f"{belong.count - belong.here} of {belong.count} that belong are not in")
    if belong.lost:
        found.append(f"{belong.lost} that belong were disconnected")
    if strangers.ever:
        found.append(f"{strangers.ever} of {strangers.count} {LET_IN}")
    if not storm.is_slow:
        ends = measured.ends
        full = [end for end in ends if end in NO_ROOM or end.endswith("outcome=no_room")]
        found += [f"{end}: {ends[end]}" for end in full]
    if measured.pair.lost:
        found.append(f"{measured.pair.lost} packets of those who were there before were lost")
    return found
