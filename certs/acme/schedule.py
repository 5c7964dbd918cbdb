"""When to renew, and how long to wait after a failure. Pure: time and chance are passed in."""

import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

from certs.errors import Failure

RETRY_AFTER_LIMIT: Final = 86400.0
"""Seconds that a Retry-After counts for at most."""

_FIRST_WAIT: Final = {
    Failure.TRANSIENT: 5.0,
    Failure.REFUSED: 120.0,
    Failure.VALIDATION: 120.0,
}
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
    """Return when to renew a certificate with these dates; a time that has passed means now.

    `window` is what the authority suggests (RFC 9773, 4.2): the time is evenly distributed over
    it, by `random01` in [0, 1), and may be near, but leaves a tenth of the certificate's life
    for attempts that fail. Without a window it is at two thirds of the life.
    """
    life = not_after - not_before
    if window is None:
        return not_before + life * 2 / 3
    start, end = window
    return min(start + (end - start) * random01, not_after - life / 10)


def wait_after(failure: Failure, failures_before: int, random01: float) -> float:
    """Return for how many seconds to wait after a failure, before the next attempt.

    `failures_before` is how many attempts failed in a row before this one. Transient failures
    wait 5 s, refusals 120 s, doubled for each failure before, up to an hour. For another process
    it is always 5 s, and a day where an order was spent. By `random01` in [0, 1), up to a fifth
    more or less, so that relays which failed together don't come back together.
    """
    if failure is Failure.BUSY:
        seconds = _BUSY_WAIT
    elif failure is Failure.SPENT:
        seconds = _SPENT_WAIT
    else:
        seconds = min(_FIRST_WAIT[failure] * 2 ** min(failures_before, 20), _LONGEST_WAIT)
    return seconds * (1 - _JITTER + 2 * _JITTER * random01)


def wait_asked_for(retry_after: float | None) -> float:
    """Return the seconds that an authority wants us to wait at least, of which a day counts.

    `retry_after` is what it said, None where it said nothing.
    """
    return min(retry_after or 0.0, RETRY_AFTER_LIMIT)


def parse_http_date(value: str) -> datetime | None:
    """Return the time that an HTTP date says (RFC 9110, 5.6.7), or None where it says none."""
    try:
        when = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return when if when.tzinfo is not None else when.replace(tzinfo=UTC)


def parse_retry_after(value: str, now: datetime) -> float | None:
    """Return the seconds that a Retry-After says (RFC 9110, 10.2.3), None where it is none.

    It has seconds or an HTTP date; `now` is the time of whom it comes from. Never negative.
    """
    value = value.strip()
    if re.fullmatch(r"[0-9]{1,10}", value):
        return float(value)
    when = parse_http_date(value)
    if when is None:
        return None
    return max(0.0, (when - now) / timedelta(seconds=1))
