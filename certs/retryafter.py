"""The time at which a server wants to be asked again: Retry-After (RFC 9110, 10.2.3). Sans-I/O."""

import re
from datetime import UTC, datetime, timedelta


def parse_http_date(value: str) -> datetime | None:
    """Parse an HTTP date (RFC 9110, 5.6.7); None if it is malformed."""
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - seldom needed

    try:
        when = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return when if when.tzinfo is not None else when.replace(tzinfo=UTC)


def parse_retry_after(value: str, now: datetime) -> float | None:
    """Parse a Retry-After, which has seconds or an HTTP date.

    Returns seconds, never negative; None if it is malformed. `now` is by the sender's clock.
    """
    value = value.strip()
    if re.fullmatch(r"[0-9]{1,10}", value):
        return float(value)
    when = parse_http_date(value)
    if when is None:
        return None
    return max(0.0, (when - now) / timedelta(seconds=1))
