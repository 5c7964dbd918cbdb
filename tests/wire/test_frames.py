import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derp.errors import ConnectionEnd, ProtocolViolation
from derp.wire import frames
from derp.wire.frames import FrameType, PeerGoneReason, Present, PresentFlags

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
        (frames.WATCH_CONNS, "10 00000000"),
        (
            frames.peer_present(KEY, "192.0.2.7", 40000, PresentFlags.REGULAR),
            "09 00000033" + KEY.hex() + "00000000000000000000ffff c0000207 9c40 01",
        ),
        (
            frames.peer_present(KEY, "2001:db8::1", 443, PresentFlags(0x0E)),
            "09 00000033" + KEY.hex() + "20010db8000000000000000000000001 01bb 0e",
        ),
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


@given(
    st.sampled_from([0x04, 0x07, 0x0A, 0x10, 0x11, 0x12]) | st.integers(0, 255),
    st.integers(0, 100) | st.integers(0, 2**32 - 1),
    st.booleans(),
)
def test_any_header_is_taken_skipped_or_refused(kind: int, length: int, mesh: bool) -> None:
    known = {0x04, 0x07, 0x0A, 0x10, 0x11, 0x12}
    try:
        taken = frames.check_header(kind, length, mesh=mesh)
    except ConnectionEnd:
        assert kind in known
    else:
        assert taken is (kind in known)
        assert length <= (65600 if mesh else 65568) or not taken
        assert mesh or kind not in {0x0A, 0x10, 0x11}


def test_lengths_are_in_the_header() -> None:
    built = frames.frame(FrameType.PING, bytes(300))
    assert struct.unpack(">BI", built[:5]) == (0x12, 300)


addresses = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))


@given(addresses, st.integers(0, 65535), st.integers(0, 255).map(PresentFlags), st.binary())
def test_presence_is_read_as_it_was_told(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
    port: int,
    flags: PresentFlags,
    later: bytes,
) -> None:
    """What later versions add behind it is ignored."""
    payload = frames.peer_present(KEY, str(address), port, flags)[5:]
    mapped = getattr(address, "ipv4_mapped", None)
    expected = Present(KEY, str(mapped or address), port, flags)
    assert frames.parse_peer_present(payload + later) == expected


@given(st.binary(max_size=60))
def test_any_presence_is_read_or_refused(payload: bytes) -> None:
    if len(payload) < 32:
        with pytest.raises(ProtocolViolation, match=f"of {len(payload)} bytes, expected 32 or"):
            frames.parse_peer_present(payload)
        return
    read = frames.parse_peer_present(payload)
    assert read.key == payload[:32]
    # Old relays tell neither address nor flags, or no flags.
    assert read.host or len(payload) < 50
    assert read.port == (int.from_bytes(payload[48:50]) if len(payload) >= 50 else 0)
    assert read.flags == (payload[50] if len(payload) > 50 else 0)


def test_a_mapped_address_is_the_same_one_however_it_is_written() -> None:
    mapped = frames.peer_present(KEY, "::ffff:192.0.2.7", 1, PresentFlags.REGULAR)
    assert mapped == frames.peer_present(KEY, "192.0.2.7", 1, PresentFlags.REGULAR)
    assert frames.parse_peer_present(mapped[5:]).host == "192.0.2.7"
