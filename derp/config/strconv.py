"""Bools, numbers and durations as Go parses them (packages strconv and time). Sans-I/O."""

import math
import re
from typing import Final

BOOLS: Final = {
    **dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True),
    **dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False),
}
"""The forms of strconv.ParseBool."""


def parse_bool(text: str) -> bool:
    """Read one of BOOLS. Raises ValueError."""
    if text not in BOOLS:
        raise ValueError("want true or false")
    return BOOLS[text]


_INT = re.compile(
    r"(?P<sign>[+-]?)"
    r"(?P<digits>0[xX](_?[0-9a-fA-F])+|0[oO](_?[0-7])+|0[bB](_?[01])+|0(_?[0-7])*|[1-9](_?[0-9])*)"
)
_INT_DIGITS = 100


def parse_int(text: str) -> int:
    """Read a whole number of 64 bits as strconv.ParseInt does with base 0. Raises ValueError.

    It may be decimal, 0x, 0o, 0b, or octal after a leading 0, with underscores between digits.
    """
    match = _INT.fullmatch(text)
    if match is None:
        raise ValueError("want a whole number")
    digits = match["digits"].replace("_", "")
    if len(digits) > _INT_DIGITS:
        raise ValueError("want a whole number of 64 bits")
    octal = digits.startswith("0") and digits.isdecimal()
    number = int(digits, 8 if octal else 0)
    if match["sign"] == "-":
        number = -number
    if not -(2**63) <= number < 2**63:
        raise ValueError("want a whole number of 64 bits")
    return number


_DIGITS = r"[0-9](?:_?[0-9])*"
_FLOAT = re.compile(rf"[+-]?(?:{_DIGITS}(?:\.(?:{_DIGITS})?)?|\.{_DIGITS})(?:[eE][+-]?{_DIGITS})?")
_INFINITY = re.compile(r"[+-]?inf(?:inity)?", re.IGNORECASE)


def parse_float(text: str) -> float:
    """Read a number as strconv.ParseFloat does, but no hexadecimal one. Raises ValueError.

    `Inf` and `Infinity` are taken in any case, with or without a sign. NaN is refused.
    """
    if _INFINITY.fullmatch(text):
        return float(text)
    if not _FLOAT.fullmatch(text):
        raise ValueError("want a number")
    number = float(text.replace("_", ""))
    if math.isinf(number):
        raise ValueError("want a number below 1.8e308")
    return number


_UNITS = {
    "ns": 1,
    "us": 10**3,
    "\u00b5s": 10**3,  # with the micro sign
    "\u03bcs": 10**3,  # with the Greek letter
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_DURATION_PART = re.compile(
    r"(?=.)(?P<whole>[0-9]*)\.?(?P<fraction>[0-9]*)(?P<unit>[^0-9.]*)", re.DOTALL
)
_WHOLE_DIGITS = 30
_FRACTION_DIGITS = 18  # further digits are less than a nanosecond


def parse_duration(text: str) -> int:
    """Read a duration as time.ParseDuration does, and return nanoseconds. Raises ValueError.

    A duration is one or more numbers, each with its unit (h, m, s, ms, us, ns), or a 0 alone; there
    may be a sign before the first number.
    """
    rest = text.removeprefix("-") if text.startswith("-") else text.removeprefix("+")
    if rest == "0":
        return 0
    example = "want a duration, such as 2s, 1h10m or 300ms"
    if not rest:
        raise ValueError(example)
    total = 0
    for part in _DURATION_PART.finditer(rest):
        if not (part["whole"] or part["fraction"]):
            raise ValueError(example)
        if not part["unit"]:
            raise ValueError(f"want a duration with its unit, such as {quoted(text + 's')}")
        if part["unit"] not in _UNITS:
            raise ValueError("want a duration in h, m, s, ms, us or ns, such as 1h10m")
        if len(part["whole"]) > _WHOLE_DIGITS:
            raise ValueError("want a duration below 292 years")
        unit = _UNITS[part["unit"]]
        fraction = part["fraction"][:_FRACTION_DIGITS]
        total += int(part["whole"] or "0") * unit
        total += int(fraction or "0") * unit // 10 ** len(fraction)
    if text.startswith("-"):
        total = -total
    if not -(2**63) <= total < 2**63:
        raise ValueError("want a duration below 292 years")
    return total


_QUOTED_LENGTH = 120


def quoted(text: str) -> str:
    """Return `text` for an error line: on one line, shortened, in quotes where that is clearer."""
    if len(text) > _QUOTED_LENGTH:
        text = f"{text[: _QUOTED_LENGTH - 1]}…"
    plain = text.isprintable() and not set(" '\"").intersection(text)
    return text if plain and text else repr(text)
