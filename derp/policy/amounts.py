"""Rates, sizes and quotas as text: "10 Mbit/s", "1 MB", "200 GB/month". Sans-I/O.

Prefixes are those of SI (k, M, G, T: powers of 1000) and IEC 80000-13 (Ki, Mi, Gi, Ti: of 1024);
in rates, bits and bytes are told apart by `bit/s` and `B/s`. Letters of another case are refused:
"Mb" may mean either.
"""

import re
from decimal import Decimal
from typing import Final

from derp.accounts.counts import Period
from derp.files.ratelimit import MIN_BURST
from derp.quantities import size_set

UNLIMITED: Final = "unlimited"

_NUMBER: Final = r"([0-9]{1,12}(\.[0-9]{1,6})?) ?"
_PREFIXES: Final = {
    **dict(zip(("", "k", "M", "G", "T"), (1000**power for power in range(5)), strict=True)),
    **dict(zip(("Ki", "Mi", "Gi", "Ti"), (1024**power for power in range(1, 5)), strict=True)),
}
_BYTES: Final = r"([kMGT]|[KMGT]i)?B"

RATE_PATTERN: Final = rf"^{_NUMBER}([kMG]?bit|{_BYTES})/s$"
SIZE_PATTERN: Final = rf"^{_NUMBER}{_BYTES}$"
QUOTA_PATTERN: Final = rf"^{_NUMBER}{_BYTES}/({'|'.join(Period)})$"
"""The forms of the texts, as ECMA 262 and Python both read them (for the JSON schema)."""

MIN_RATE: Final = 1000
MAX_RATE: Final = 125 * 10**9
"""Bytes a second: 8 kbit/s, and 1000 Gbit/s."""
MAX_BURST: Final = 10**12
MAX_QUOTA: Final = 10**18
"""Bytes; all fit into Go's int."""

_RATE_WANT: Final = 'want a rate such as "10 Mbit/s" or "2 MB/s", or "unlimited"'
_SIZE_WANT: Final = 'want a size such as "1 MB" or "512 KiB"'
_QUOTA_WANT: Final = 'want a quota such as "200 GB/month" or "5 GB/day", or "unlimited"'


def rate(text: str) -> int:
    """Return bytes a second, rounded down. Raises ValueError, which says what would be right."""
    match = re.fullmatch(RATE_PATTERN[1:-1], text, re.ASCII)
    if match is None:
        raise ValueError(_RATE_WANT)
    unit = match[3]
    if unit.endswith("bit"):
        found = int(Decimal(match[1]) * _PREFIXES[unit.removesuffix("bit")] / 8)
    else:
        found = int(Decimal(match[1]) * _PREFIXES[unit.removesuffix("B")])
    if not MIN_RATE <= found <= MAX_RATE:
        raise ValueError('want a rate from "8 kbit/s" to "1000 Gbit/s", or "unlimited"')
    return found


def burst(text: str) -> int:
    """Return the bytes of a burst. Raises ValueError, which says what would be right."""
    match = re.fullmatch(SIZE_PATTERN[1:-1], text, re.ASCII)
    if match is None:
        raise ValueError(_SIZE_WANT)
    found = int(Decimal(match[1]) * _PREFIXES[match[3] or ""])
    if not MIN_BURST <= found <= MAX_BURST:
        raise ValueError('want a burst from "66 kB", room for the largest packet, to "1 TB"')
    return found


def quota_text(size: int, period: Period) -> str:
    """Return a quota for people, as "5 GB/day", rounded to three digits."""
    return f"{size_set(size)}/{period}"


def quota(text: str) -> tuple[int, Period]:
    """Return the bytes of a quota, and its period.

    Raises ValueError, which says what would be right.
    """
    match = re.fullmatch(QUOTA_PATTERN[1:-1], text, re.ASCII)
    if match is None:
        raise ValueError(_QUOTA_WANT)
    found = int(Decimal(match[1]) * _PREFIXES[match[3] or ""])
    if not 1 <= found <= MAX_QUOTA:
        raise ValueError('want a quota from "1 B" to "1000000 TB", or "unlimited"')
    return found, Period(match[4])
