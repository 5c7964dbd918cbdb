"""Sizes and rates as text, for people: three digits, a prefix of the SI, a unit. Sans-I/O.

What is measured keeps its zeros, so that a column of it does not jump: "1.20 MB". What somebody has
set is as they would write it: "1.2 MB". Both are rounded.
"""

from typing import Final

_SIZE_PREFIXES: Final = ("", "k", "M", "G", "T", "P", "E")
_RATE_PREFIXES: Final = ("", "k", "M", "G")
"""Those that the policy file and `derper limit` read."""


def size(count: float) -> str:
    """Return measured bytes, as "0 B", "1.20 kB", "345 MB"."""
    return "{} {}B".format(*_scaled(count, _SIZE_PREFIXES))


def rate(bytes_per_second: float) -> str:
    """Return a measured rate, as "0 bit/s", "1.20 Mbit/s"."""
    return "{} {}bit/s".format(*_scaled(8 * bytes_per_second, _RATE_PREFIXES))


def size_set(count: int) -> str:
    """Return bytes that somebody has set, as "200 GB", "1.2 MB"."""
    number, prefix = _scaled(count, _SIZE_PREFIXES)
    return f"{_without_zeros(number)} {prefix}B"


def rate_set(bytes_per_second: int) -> str:
    """Return a rate that somebody has set, as "10 Mbit/s"; the policy file takes it."""
    number, prefix = _scaled(8 * bytes_per_second, _RATE_PREFIXES)
    return f"{_without_zeros(number)} {prefix}bit/s"


def _scaled(value: float, prefixes: tuple[str, ...]) -> tuple[str, str]:
    """Return a number of three digits, more only with the largest prefix, and its prefix."""
    power = 0
    while value >= 999.5 and power < len(prefixes) - 1:
        value /= 1000
        power += 1
    digits = 0 if power == 0 or value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:.{digits}f}", prefixes[power]


def _without_zeros(number: str) -> str:
    return number.rstrip("0").rstrip(".") if "." in number else number
