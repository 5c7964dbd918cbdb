"""The ends of TLS records (RFC 8446, 5.1), found without decrypting them.

    byte 0      type
    1-2         version
    3-4         length of what follows, big-endian

OpenSSL processes records until one has data. To bound their number, they are counted first.
"""

import struct
from typing import Final

MAX_RECORD: Final = 5 + (1 << 14) + 2048
"""Bytes of the longest record: one of TLS 1.2, whose expansion is larger (RFC 5246, 6.2.3)."""

_HEADER_LENGTH: Final = 5
_length_at: Final = struct.Struct(">3xH").unpack_from


def whole_records(buffer: bytes | bytearray, start: int, end: int, most: int) -> tuple[int, int]:
    """Find at most `most` whole records in `buffer[start:end]`; return their end and number.

    A record longer than MAX_RECORD counts as whole up to `end`: OpenSSL refuses it without waiting.
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
