"""Where TLS records end (RFC 8446, 5.1), found without looking into them.

    byte 0      type
    1-2         version
    3-4         length of what follows, big-endian

OpenSSL takes up records one after the other until it finds data in one. So whoever wants to bound
how many it takes up at a time has to count them first.
"""

import struct
from typing import Final

MAX_RECORD: Final = 5 + (1 << 14) + 2048
"""Bytes of the longest record, as of TLS 1.2 (RFC 5246, 6.2.3), whose records have more added."""

_HEADER_LENGTH: Final = 5
_length_at: Final = struct.Struct(">3xH").unpack_from


def whole_records(buffer: bytes | bytearray, start: int, end: int, most: int) -> tuple[int, int]:
    """Find at most `most` whole records in `buffer[start:end]`; return where the last one ends.

    The other value returned is how many they are. What is longer than any record counts as a
    whole one that ends at `end`: nothing needs to be waited for to find it wrong.
    """
    records = 0
    offset = start
    last = end - _HEADER_LENGTH
    while offset <= last and records < most:
        start = offset
        offset += _HEADER_LENGTH + _length_at(buffer, start)[0]
        records += 1
    if offset <= end:
        return offset, records
    return (start, records - 1) if offset - start <= MAX_RECORD else (end, records)
