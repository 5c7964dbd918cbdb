"""What another relay sends over a link, in any pieces."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derp.errors import ProtocolViolation
from derp.wire.frames import (
    HEADER,
    FrameType,
    PresentFlags,
    frame,
    group_in,
    peer_present,
)
from derp.wire.linkframes import MAX_FRAME, MAX_KEPT, LinkFrames, split_claim, with_claim
from tests.support.frames import parse_peer_present

KEPT = {0x08: 32, 0x09: 32, 0x12: 8, 0x15: 8}
KEY = bytes(range(32))


def fed(reader: LinkFrames, *pieces: bytes) -> list[tuple[int, bytes]]:
    return [found for piece in pieces for found in reader.feed(memoryview(piece))]


def until_it_breaks(pieces: list[bytes]) -> tuple[list[tuple[int, bytes]], str]:
    """Return the frames before a frame that breaks a rule, and the complaint about that one."""
    reader = LinkFrames()
    found: list[tuple[int, bytes]] = []
    try:
        for piece in pieces:
            found.extend(reader.feed(piece))
    except ProtocolViolation as error:
        return found, str(error)
    return found, ""


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:stop] for start, stop in itertools.pairwise(edges)]


def test_what_a_link_acts_on():
    present, gone = frame(FrameType.PEER_PRESENT, KEY), frame(FrameType.PEER_GONE, KEY + b"\0")
    ping, bye = frame(FrameType.PING, b"12345678"), frame(FrameType.RESTARTING, bytes(8))
    found = fed(LinkFrames(), present + gone + ping + bye)
    assert found == [(9, KEY), (8, KEY + b"\0"), (0x12, b"12345678"), (0x15, bytes(8))]


@pytest.mark.parametrize("kind", [0x01, 0x03, 0x05, 0x06, 0x0A, 0x13, 0x14, 0x16, 0x7F, 0xFF])
@pytest.mark.parametrize("length", [0, 1, 1001, MAX_FRAME])
def test_all_else_is_skipped(kind: int, length: int):
    reader = LinkFrames()
    skipped = HEADER.pack(kind, length)
    gone = frame(FrameType.PEER_GONE, KEY)
    assert fed(reader, gone + skipped + bytes(length) + gone) == [(8, KEY), (8, KEY)]
    assert fed(reader, skipped, bytes(length), gone) == [(8, KEY)]
    assert not reader.in_frame
    assert fed(reader, skipped + bytes(length // 2)) == []
    assert reader.in_frame is (length > 0)


def test_what_is_skipped_is_not_kept():
    reader = LinkFrames()
    fed(reader, HEADER.pack(0x05, MAX_FRAME), *[bytes(1000)] * 1000)
    assert len(reader._tail) == 0


@pytest.mark.parametrize("kind", [0x05, 0x14, 0x99])
def test_a_frame_that_is_too_long_to_skip(kind: int):
    with pytest.raises(ProtocolViolation, match=r"^frame of 1048577 bytes, expected 1048576 or "):
        fed(LinkFrames(), HEADER.pack(kind, MAX_FRAME + 1))


@pytest.mark.parametrize(("kind", "shortest"), KEPT.items())
def test_the_length_of_a_frame_that_is_kept(kind: int, shortest: int):
    for length in (shortest, MAX_KEPT):
        assert fed(LinkFrames(), HEADER.pack(kind, length) + bytes(length)) == [
            (kind, bytes(length))
        ]


@pytest.mark.parametrize(("kind", "shortest"), KEPT.items())
def test_a_frame_of_the_wrong_length_is_skipped_and_counted(kind: int, shortest: int):
    gone = frame(FrameType.PEER_GONE, KEY)
    for length in (0, shortest - 1, MAX_KEPT + 1, MAX_FRAME):
        wrong = HEADER.pack(kind, length) + bytes(length)
        reader = LinkFrames()
        assert fed(reader, gone + wrong + gone) == [(8, KEY), (8, KEY)]
        assert fed(reader, wrong[:6], wrong[6:], gone) == [(8, KEY)]
        assert reader.malformed == 2
        assert not reader.in_frame
    # Nothing of it is waited for, or kept.
    reader = LinkFrames()
    fed(reader, HEADER.pack(kind, MAX_FRAME), bytes(MAX_FRAME - 1))
    assert reader._tail == b""
    for length in (MAX_FRAME + 1, 2**32 - 1):
        found, complaint = until_it_breaks([gone + HEADER.pack(kind, length)])
        assert complaint == f"frame of {length} bytes, expected {MAX_FRAME} or less"
        assert found == [(8, KEY)]


def test_what_is_no_business_of_a_link_is_not_counted():
    reader = LinkFrames()
    fed(reader, frame(0x06, b"") + frame(0x05, KEY) + frame(0x99, b""))
    assert reader.malformed == 0


@given(st.binary(max_size=200), st.lists(st.integers(0), max_size=8))
def test_any_bytes_in_any_pieces(data: bytes, places: list[int]):
    assert until_it_breaks(cut(data, places)) == until_it_breaks([data])


FRAMES = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(sorted(KEPT)), st.binary(min_size=32, max_size=60)),
        st.tuples(st.integers(0, 255).filter(lambda k: k not in KEPT), st.binary(max_size=60)),
    ),
    max_size=8,
)


@given(FRAMES, st.lists(st.integers(0), max_size=8))
def test_frames_in_any_pieces(frames: list[tuple[int, bytes]], places: list[int]):
    data = b"".join(HEADER.pack(kind, len(payload)) + payload for kind, payload in frames)
    reader = LinkFrames()
    assert fed(reader, *cut(data, places)) == [f for f in frames if f[0] in KEPT]
    assert not reader.in_frame


@given(
    st.binary(min_size=32, max_size=32),
    st.integers(0, 2**96 - 1),
    st.just(b"") | st.binary(min_size=8, max_size=8),
)
def test_a_claim_rides_behind_what_tells_of_a_client(key: bytes, claim: int, group: bytes) -> None:
    present = peer_present(key, "2001:db8::7", 443, PresentFlags.PROBER, group)
    assert group_in(present[5:]) == group
    ((kind, payload),) = LinkFrames().feed(with_claim(present, claim))
    assert kind == 0x09
    assert payload == present[5:] + claim.to_bytes(12, "big")
    assert split_claim(payload) == (present, claim)
    # Whoever knows nothing of claims reads the same frame.
    assert parse_peer_present(payload) == parse_peer_present(present[5:])


@given(st.binary(min_size=32, max_size=100))
def test_any_payload_has_some_claim(payload: bytes) -> None:
    present, claim = split_claim(payload)
    assert present[5:] == payload[: max(51, len(payload) - 12)]
    assert 0 <= claim < 2**96
    assert claim == 0 or len(payload) > 51
