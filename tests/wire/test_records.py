"""Where TLS records end."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derp.wire.records import MAX_RECORD, whole_records


def record(size: int) -> bytes:
    return struct.pack(">BHH", 23, 0x0303, size) + bytes(size)


@given(
    st.lists(st.integers(0, 300), max_size=20),
    st.integers(0, 30),
    st.integers(0, 400),
    st.integers(0, 10),
)
def test_whole_ones_are_found(sizes: list[int], most: int, cut: int, before: int) -> None:
    ends = [before]
    for size in sizes:
        ends.append(ends[-1] + 5 + size)
    data = bytes(before) + b"".join(map(record, sizes))
    end = max(before, len(data) - cut)
    whole = [place for place in ends if place <= end][: most + 1]
    # What lies behind the end is not looked at.
    assert whole_records(data + b"\xff" * 9, before, end, most) == (whole[-1], len(whole) - 1)


@pytest.mark.parametrize("length", [MAX_RECORD - 4, 0xFFFF])
def test_what_is_no_record_is_not_waited_for(length: int) -> None:
    data = record(3) + struct.pack(">BHH", 23, 0x0303, length)
    assert whole_records(data, 0, len(data), 9) == (len(data), 2)
    assert whole_records(data, 0, len(data), 1) == (8, 1)


def test_the_longest_record_is_waited_for() -> None:
    data = record(3) + struct.pack(">BHH", 23, 0x0303, MAX_RECORD - 5)
    assert whole_records(data, 0, len(data), 9) == (8, 1)
