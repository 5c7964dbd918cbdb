"""The time of a renewal, and the wait after a failure. Sans-I/O; time and chance are passed in."""

from datetime import datetime
from typing import Final

from certs.errors import Failure

RETRY_AFTER_LIMIT: Final = 86400.0
"""Most seconds that a Retry-After counts for."""

_FIRST_WAIT: Final = {Failure.TRANSIENT: 5.0, Failure.REFUSED: 120.0, Failure.VALIDATION: 120.0}
_LONGEST_WAIT: Final = 3600.0
_BUSY_WAIT: Final = 5.0
_SPENT_WAIT: Final = 86400.0
_JITTER: Final = 0.2


def renew_at(
    not_before: datetime,
    not_after: datetime,
    window: tuple[datetime, datetime] | None,
    random01: float,
) -> datetime:
    """Return when to renew a certificate with these dates; a time in the past means now.

    `window` is the authority's suggestion (RFC 9773, 4.2), and `random01` in [0, 1) the place in
    it; but the last tenth of the certificate's lifetime is left for further attempts. Without a
    window, the time is at two thirds of the lifetime.
    """
    life = not_after - not_before
    if window is None:
        return not_before + life * 2 / 3
    start, end = window
    return min(start + (end - start) * random01, not_after - life / 10)


def wait_after(failure: Failure, failures_before: int, random01: float) -> float:
    """Return the seconds from a failure to the next attempt.

    `failures_before` counts the failures in a row before this one. The wait is 5 s for TRANSIENT
    and 120 s for REFUSED and VALIDATION, doubled for each failure before, up to an hour; always 5 s
    for BUSY, and a day for SPENT. `random01` in [0, 1) adds or subtracts up to a fifth, so that
    relays which failed together don't retry together.
    """
    if failure is Failure.BUSY:
        seconds = _BUSY_WAIT
    elif failure is Failure.SPENT:
        seconds = _SPENT_WAIT
    else:
        seconds = min(_FIRST_WAIT[failure] * 2 ** min(failures_before, 20), _LONGEST_WAIT)
    return seconds * (1 - _JITTER + 2 * _JITTER * random01)


def bounded_retry_after(retry_after: float | None) -> float:
    """Return the seconds of a Retry-After, a day at most; 0 for None."""
    return min(retry_after or 0.0, RETRY_AFTER_LIMIT)
