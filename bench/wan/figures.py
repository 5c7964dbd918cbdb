"""From what was seen in a case to its figures."""

import statistics
from collections.abc import Sequence
from math import ceil


def arrived(samples: Sequence[tuple[float, int]], begin: float, end: float) -> int:
    """Return how many bytes came between two times, from pairs of a time and a total."""
    return round(_total(samples, end) - _total(samples, begin))


def _total(samples: Sequence[tuple[float, int]], when: float) -> float:
    """Interpolate between the two samples around."""
    before = samples[0]
    for sample in samples:
        if sample[0] >= when:
            span = sample[0] - before[0]
            share = (when - before[0]) / span if span else 1.0
            return before[1] + (sample[1] - before[1]) * share
        before = sample
    return before[1]


def pings(
    sent: Sequence[tuple[float, float | None]], begin: float, end: float
) -> dict[str, float | None]:
    """Return the milliseconds of those sent between two times, and the share that was lost.

    One that is lost counts as slower than all: a relay does not get quick by dropping pings. A
    percentile that falls on a lost one is None.
    """
    took = [seconds for when, seconds in sent if begin <= when < end]
    back = sorted(seconds * 1e3 for seconds in took if seconds is not None)

    def percentile(share: float) -> float | None:
        place = ceil(share * len(took)) - 1
        return back[place] if 0 <= place < len(back) else None

    return {
        "count": len(took),
        "p50_ms": percentile(0.5),
        "p99_ms": percentile(0.99),
        "max_ms": back[-1] if back else None,
        "lost_share": 1 - len(back) / len(took) if took else None,
    }


def median(values: Sequence[float | None]) -> float | None:
    """Return the median, with None as the greatest; None where there is nothing."""
    known = sorted(float("inf") if value is None else value for value in values)
    if not known:
        return None
    middle = statistics.median(known)
    return None if middle == float("inf") else middle
