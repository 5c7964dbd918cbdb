"""Many binding requests at once, turned into their responses in place.

`stun.mmsg` receives many datagrams a call, and a relay's requests are nearly all the same 40 bytes
but for the transaction ID. So a batch is a table in one buffer with a datagram in each row, and is
checked and rewritten with a few operations on whole columns (memoryview slices with a stride). A
datagram begins at byte 4 of its row, to align columns of 8 bytes; the response takes its place:

    4             8        12              24             28        32              40        44
    type, length  cookie   transaction ID  SOFTWARE, 8    tailnode            FINGER-   CRC-32
                                                                              PRINT, 4
    type, length  cookie   transaction ID  XOR-MAPPED-    family,   address, XORed with cookie
                                           ADDRESS, 8/20  port      (and transaction ID) (to 48)

The sender's address comes as the system's `sockaddr`, in a second table:

    sockaddr_in   2 family, 2 port, 4 address, 8 not used
    sockaddr_in6  2 family, 2 port, 4 flow, 16 address, 4 scope

Cookie and transaction ID are at the same offset in a response as in any valid request. So requests
of other forms are rewritten in the same way, once `stun.message` has checked each. `stun.message`
defines the right response; this module only computes it faster.
"""

import sys
from collections.abc import Iterator
from itertools import groupby
from operator import eq
from struct import pack
from typing import Final, Literal
from zlib import crc32

import attrs

from stun.message import (
    BINDING_SUCCESS,
    CLIENT_REQUEST_HEAD,
    CLIENT_REQUEST_LENGTH,
    CLIENT_REQUEST_TAIL,
    FINGERPRINT_LENGTH,
    FINGERPRINT_XOR,
    HEADER_LENGTH,
    MAGIC_COOKIE,
    MAX_REQUEST_LENGTH,
    XOR_MAPPED_ADDRESS,
    StunError,
    parse_binding_request,
)

Width = Literal["I", "Q"]
"""The width of a column: 4 or 8 bytes, as `memoryview.cast` names them."""

CAPACITY: Final = 128
"""Most datagrams in one batch. They are answered without letting other tasks run."""

STRIDE: Final = 48
"""Bytes from one row to the next."""

DATAGRAM_AT: Final = 4
ROW_CAPACITY: Final = STRIDE - DATAGRAM_AT
"""The offset of a datagram in its row, and how many of its bytes fit there."""

OVERFLOW: Final = MAX_REQUEST_LENGTH - ROW_CAPACITY
"""Bytes for the rest of a longer datagram."""


@attrs.frozen
class Family:
    """An address family: its numbers in Linux and STUN, and its lengths."""

    linux_number: int
    stun_number: int
    address_length: int
    sockaddr_length: int
    sockaddr_stride: int
    """Bytes from one `sockaddr` to the next in their table; a multiple of 8."""

    @property
    def response_length(self) -> int:
        """The length of a success response: 32 bytes for IPv4, 44 for IPv6."""
        return HEADER_LENGTH + 8 + self.address_length


IPV4: Final = Family(
    linux_number=2, stun_number=1, address_length=4, sockaddr_length=16, sockaddr_stride=16
)
IPV6: Final = Family(
    linux_number=10, stun_number=2, address_length=16, sockaddr_length=28, sockaddr_stride=32
)


class Batch:
    """A table of up to CAPACITY requests of one address family.

    No sender is IPv4-mapped, as IPv6 sockets are IPV6_V6ONLY. The receiver fills `rows`, `overflow`
    and `sockaddrs`, and then calls `answer`.
    """

    def __init__(self, family: Family) -> None:
        self.family = family
        self.rows = bytearray(CAPACITY * STRIDE)
        self.overflow = bytearray(CAPACITY * OVERFLOW)
        self.sockaddrs = bytearray(CAPACITY * family.sockaddr_stride)
        rows, sockaddrs = memoryview(self.rows), memoryview(self.sockaddrs)
        self._expected = _expected_columns(rows)
        self._constant = _constant_columns(rows, family)
        self._xored = _xored_columns(rows, sockaddrs, family)
        crc_length = CLIENT_REQUEST_LENGTH - FINGERPRINT_LENGTH
        starts = range(DATAGRAM_AT, len(rows), STRIDE)
        self._crc_inputs = [rows[at : at + crc_length] for at in starts]
        self._fingerprint = _column(rows, STRIDE, 40, "I")
        self._fingerprint_xor = _repeated(FINGERPRINT_XOR.to_bytes(4, "big"), "I")

    def first_sender(self) -> tuple[bytes, bytes]:
        """Return address and port of the first row's sender, as in the packet."""
        at = 4 if self.family is IPV4 else 8
        sockaddrs = self.sockaddrs
        return bytes(sockaddrs[at : at + self.family.address_length]), bytes(sockaddrs[2:4])

    def answer(self, lengths: list[int]) -> list[bool]:
        """Turn the first rows into responses; return for each row whether it has one.

        `lengths` has the full length of each datagram, of which the table may hold only a part. A
        response has `family.response_length` bytes, and goes to the address in `sockaddrs`.
        """
        count = len(lengths)
        if self._all_look_like_client_requests(lengths):
            answered = self._fingerprints_are_right(count)
        else:
            answered = [self._is_request(row, length) for row, length in enumerate(lengths)]
        for column, value in self._constant:
            column[:count] = value[:count]
        for width, column, left, right in self._xored:
            column[:count] = _xor(left[:count], right[:count], width)
        return answered

    def _all_look_like_client_requests(self, lengths: list[int]) -> bool:
        """Return whether all rows have the usual 40 bytes; the fingerprints are not checked."""
        count = len(lengths)
        return lengths.count(CLIENT_REQUEST_LENGTH) == count and all(
            column[:count] == expected[:count] for column, expected in self._expected
        )

    def _fingerprints_are_right(self, count: int) -> list[bool]:
        crcs = memoryview(pack(f">{count}I", *map(crc32, self._crc_inputs[:count]))).cast("I")
        sent = _xor(self._fingerprint[:count], self._fingerprint_xor[:count], "I")
        return [True] * count if sent == crcs else [*map(eq, sent, crcs)]

    def _is_request(self, row: int, length: int) -> bool:
        if length > MAX_REQUEST_LENGTH:
            return False
        head, rest = row * STRIDE + DATAGRAM_AT, row * OVERFLOW
        data = bytes(self.rows[head : head + min(length, ROW_CAPACITY)])
        if length > ROW_CAPACITY:
            data += self.overflow[rest : rest + length - ROW_CAPACITY]
        try:
            parse_binding_request(data)
        except StunError:
            return False
        return True


def answered_ranges(answered: list[bool]) -> Iterator[tuple[int, int]]:
    """Yield each range of rows that have a response: the first, and the last + 1."""
    if False not in answered:
        yield 0, len(answered)
        return
    first = 0
    for has_response, rows in groupby(answered):
        stop = first + len([*rows])
        if has_response:
            yield first, stop
        first = stop


def _expected_columns(rows: memoryview) -> list[tuple[memoryview, memoryview]]:
    """Pair columns with their values in a client's request."""
    head, tail = CLIENT_REQUEST_HEAD, CLIENT_REQUEST_TAIL
    return [
        (_column(rows, STRIDE, 4, "I"), _repeated(head[:4], "I")),
        (_column(rows, STRIDE, 8, "I"), _repeated(head[4:], "I")),
        (_column(rows, STRIDE, 24, "Q"), _repeated(tail[:8], "Q")),
        (_column(rows, STRIDE, 32, "Q"), _repeated(tail[8:], "Q")),
    ]


def _constant_columns(rows: memoryview, family: Family) -> list[tuple[memoryview, memoryview]]:
    """Pair columns with their values in every response."""
    length = family.response_length - HEADER_LENGTH
    attribute = XOR_MAPPED_ADDRESS.number
    return [
        (_column(rows, STRIDE, 4, "I"), _repeated(pack(">HH", BINDING_SUCCESS, length), "I")),
        (_column(rows, STRIDE, 24, "I"), _repeated(pack(">HH", attribute, length - 4), "I")),
    ]


def _xored_columns(
    rows: memoryview, sockaddrs: memoryview, family: Family
) -> list[tuple[Width, memoryview, memoryview, memoryview]]:
    """List the columns of a response that are the XOR of two others: width, column, operands."""
    # `mask` turns Linux's number of the family into STUN's, and XORs the port with the cookie.
    number = int.from_bytes(family.linux_number.to_bytes(2, sys.byteorder), "big")
    mask = _repeated(pack(">H", number ^ family.stun_number) + MAGIC_COOKIE[:2], "I")
    sockaddr_stride = family.sockaddr_stride
    xored: list[tuple[Width, memoryview, memoryview, memoryview]] = [
        ("I", _column(rows, STRIDE, 28, "I"), _column(sockaddrs, sockaddr_stride, 0, "I"), mask)
    ]
    if family is IPV4:
        address, cookie = _column(sockaddrs, sockaddr_stride, 4, "I"), _repeated(MAGIC_COOKIE, "I")
        xored.append(("I", _column(rows, STRIDE, 32, "I"), address, cookie))
    else:
        for at in (0, 8):
            address = _column(sockaddrs, sockaddr_stride, 8 + at, "Q")
            cookie_and_id = _column(rows, STRIDE, 8 + at, "Q")
            xored.append(("Q", _column(rows, STRIDE, 32 + at, "Q"), address, cookie_and_id))
    return xored


def _column(table: memoryview, stride: int, at: int, width: Width) -> memoryview:
    """Return the column of 4 ("I") or 8 ("Q") bytes at byte `at` of each row."""
    size = 4 if width == "I" else 8
    return table.cast(width)[at // size :: stride // size]


def _repeated(value: bytes, width: Width) -> memoryview:
    """Return a column with the same value in every row."""
    return memoryview(value * CAPACITY).cast(width)


def _xor(left: memoryview, right: memoryview, width: Width) -> memoryview:
    number = int.from_bytes(left, "little") ^ int.from_bytes(right, "little")
    return memoryview(number.to_bytes(left.nbytes, "little")).cast(width)
