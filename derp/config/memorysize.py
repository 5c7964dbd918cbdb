"""An amount of memory: in bytes, or as a share of the machine's or container's."""

import re
from typing import Final

import attrs

from derp.relay.queuememory import UNLIMITED

_SIZE: Final = re.compile(r"(?P<number>[0-9]{1,18})(?P<unit>|KiB|MiB|GiB|%)")
_UNITS: Final = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_WANT: Final = "want 1MiB or more, a share of the memory such as 10%, auto, or 0 for no bound"

MIN_SIZE: Final = 1 << 20
"""Bytes; below it, one slow client would cause drops for others."""


@attrs.frozen
class MemorySize:
    """A bound in bytes and a share of the memory; the smaller of the two counts."""

    max_bytes: int
    percent: int

    def of(self, memory: int) -> int:
        """Return the size in bytes on a machine with `memory` bytes; at least MIN_SIZE."""
        return max(min(self.max_bytes, memory * self.percent // 100), MIN_SIZE)


AUTO: Final = MemorySize(64 << 20, 10)


def memory_size(value: str | MemorySize) -> MemorySize:
    """Check a size: `auto`, bytes with or without a unit, a share in `%`, or 0 for no bound."""
    if isinstance(value, MemorySize):
        return value
    if value == "auto":
        return AUTO
    match = _SIZE.fullmatch(value)
    if match is None:
        raise ValueError(_WANT)
    number, unit = int(match["number"]), match["unit"]
    if unit == "%":
        if not 1 <= number <= 100:
            raise ValueError(_WANT)
        return MemorySize(UNLIMITED, number)
    size = number * _UNITS[unit]
    if 0 < size < MIN_SIZE:
        raise ValueError(_WANT)
    return MemorySize(min(size, UNLIMITED) or UNLIMITED, 100)
