import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derp.errors import ConnectionEnd
from derp.wire import frames
from derp.wire.frames import FrameType, PeerGoneReason

KEY = bytes(range(32))


@pytest.mark.parametrize(
    ("built", "expected"),
    [
        (frames.KEEP_ALIVE, "06 00000000"),
        (frames.server_key(KEY), "01 00000028 44455250f09f9491" + KEY.hex()),
        (frames.recv_packet(KEY, b"hi"), "05 00000022" + KEY.hex() + "6869"),
        (frames.peer_gone(KEY, PeerGoneReason.DISCONNECTED), "08 00000021" + KEY.hex() + "00"),
        (frames.peer_gone(KEY, PeerGoneReason.NOT_HERE), "08 00000021" + KEY.hex() + "01"),
        (frames.pong(b"12345678"), "13 00000008 3132333435363738"),
        (frames.health("bad"), "14 00000003 626164"),
        (frames.restarting(1500, 10_000), "15 00000008 000005dc 00002710"),
    ],
)
def test_frames_have_the_layout_that_clients_read(built: bytes, expected: str) -> None:
    assert built == bytes.fromhex(expected)


@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        (b"", False),
        (b"TS\xf0\x9f\x92\xac", False),
        (b"TS\xf0\x9f\x92\xac" + bytes(55), False),
        (b"TS\xf0\x9f\x92\xac" + bytes(56), True),
        (b"TS\xf0\x9f\x92\xac" + bytes(500), True),
        (b"TS\xf0\x9f\x92\xad" + bytes(500), False),
    ],
)
def test_disco_is_told_by_magic_and_length(packet: bytes, expected: bool) -> None:
    assert frames.looks_like_disco(packet) is expected
    assert frames.looks_like_disco(memoryview(packet)) is expected


@given(st.integers(0, 255), st.integers(0, 2**32 - 1))
def test_any_header_is_taken_skipped_or_refused(kind: int, length: int) -> None:
    known = {0x04, 0x07, 0x0A, 0x10, 0x11, 0x12}
    try:
        taken = frames.check_header(kind, length)
    except ConnectionEnd:
        assert kind in known
    else:
        assert taken is (kind in known)
        assert length <= 65568 or not taken


def test_lengths_are_in_the_header() -> None:
    built = frames.frame(FrameType.PING, bytes(300))
    assert struct.unpack(">BI", built[:5]) == (0x12, 300)
