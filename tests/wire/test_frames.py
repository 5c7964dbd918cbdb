import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derp.errors import ConnectionEnd
from derp.wire import frames
from derp.wire.frames import FrameType, PeerGoneReason, PresentFlags
from tests.support.frames import Present, parse_peer_present

KEY = bytes(range(32))


@pytest.mark.parametrize(
    ("built", "expected"),
    [
        (frames.KEEP_ALIVE, "06 00000000"),
        (frames.server_key(KEY), "01 00000028 44455250f09f9491" + KEY.hex()),
        (frames.peer_gone(KEY, PeerGoneReason.DISCONNECTED), "08 00000021" + KEY.hex() + "00"),
        (frames.peer_gone(KEY, PeerGoneReason.NOT_HERE), "08 00000021" + KEY.hex() + "01"),
        (frames.pong(b"12345678"), "13 00000008 3132333435363738"),
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


@given(st.text())
def test_a_health_frame_is_a_text(text: str) -> None:
    encoded = text.encode(errors="replace")
    assert frames.health(encoded.decode()) == b"\x14" + len(encoded).to_bytes(4, "big") + encoded


def test_an_address_is_found_where_presence_has_it() -> None:
    for host, address in (
        ("192.0.2.7", bytes(10) + b"\xff\xff\xc0\x00\x02\x07"),
        ("2001:db8::1", b"\x20\x01\x0d\xb8" + bytes(11) + b"\x01"),
    ):
        frame = frames.peer_present(KEY, host, 40000, PresentFlags.REGULAR)
        assert frames.present_address(frame) == address


@given(addresses, st.integers(0, 65535), st.integers(0, 255).map(PresentFlags))
def test_presence_is_read_as_it_was_told(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
    port: int,
    flags: PresentFlags,
) -> None:
    payload = frames.peer_present(KEY, str(address), port, flags)[5:]
    mapped = getattr(address, "ipv4_mapped", None)
    expected = Present(KEY, str(mapped or address), port, flags)
    assert parse_peer_present(payload) == expected


def test_a_mapped_address_is_the_same_one_however_it_is_written() -> None:
    mapped = frames.peer_present(KEY, "::ffff:192.0.2.7", 1, PresentFlags.REGULAR)
    assert mapped == frames.peer_present(KEY, "192.0.2.7", 1, PresentFlags.REGULAR)
    assert parse_peer_present(mapped[5:]).host == "192.0.2.7"
