"""Measurements to judge and to show."""

from tests.hostile.attacks import LATE, MIB
from tests.hostile.measure import Measured, Seen

NOBODY = Seen(sent=0, lost=0, p50=0.0, p99=0.0, max=0.0)


def pair(p99: float) -> Seen:
    return Seen(sent=600, lost=0, p50=0.1, p99=p99, max=p99)


GOOD = Measured(
    quiet=NOBODY,
    pair=pair(LATE),
    stun=NOBODY,
    logins=pair(2.0),
    cpu=0.5,
    seconds=1.0,
    memory=30 * MIB,
    growth=10 * MIB,
    logged=0,
    tracebacks=0,
    waited=0.0,
    late=0.0,
    sent=1,
    attacked=1.0,
    opened=1,
    ended=0,
    admitted=0,
    refused=0,
    notes={},
)
