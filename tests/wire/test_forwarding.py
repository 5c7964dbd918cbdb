"""Forwarded packets against slow and obvious code, and against the layout in Go's derp.go."""

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derp.errors import ConnectionEnd, NotPermitted, ProtocolViolation
from derp.wire import forwarding, trains
from derp.wire.frames import DISCO_MAGIC, FrameType, frame
from tests.support.frames import looks_like_disco, recv_packet

KEYS = [bytes([n]) * 32 for n in range(1, 5)]
A, B, C, D = KEYS


def forward(source: bytes, destination: bytes, packet: bytes) -> bytes:
    return frame(FrameType.FORWARD_PACKET, source + destination + packet)


def first(data: bytes) -> forwarding.Forwarded:
    return forwarding.next_forwarded(data, 0, len(data))


def test_the_layout_is_that_of_the_original() -> None:
    train = recv_packet(A, b"hi")
    made = forwarding.forward_frames(memoryview(train), 1, B)
    assert made == bytes.fromhex("0a 00000042" + A.hex() + B.hex() + "6869")
    assert first(made) == (len(made), A, B, 1, train, False)


packets = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([b"", DISCO_MAGIC, DISCO_MAGIC + bytes(55), DISCO_MAGIC + bytes(56)]),
    st.sampled_from([DISCO_MAGIC + bytes(100), bytes(62), b"z" * 106, b"y" * 1400]),
)


@given(st.lists(packets, min_size=1, max_size=20), st.sampled_from(KEYS), st.binary(max_size=9))
def test_a_run_becomes_a_forward_frame_for_each_packet(
    sent: list[bytes], destination: bytes, behind: bytes
) -> None:
    train = memoryview(b"".join(recv_packet(A, packet) for packet in sent) + behind)
    before = bytes(train)
    made = forwarding.forward_frames(train, len(sent), destination)
    assert made == b"".join(forward(A, destination, packet) for packet in sent)
    assert train == before


def test_the_largest_packet_is_forwarded_and_one_more_byte_is_refused() -> None:
    packet = bytes(range(256)) * 256
    made = forwarding.forward_frames(memoryview(recv_packet(A, packet)), 1, B)
    assert made == forward(A, B, packet)
    assert trains.next_train(bytearray(made), 0, len(made), C, True)[:2] == (
        trains.Kind.FORWARD_PACKET,
        len(made),
    )
    assert first(made)[3:] == (1, recv_packet(A, packet), False)
    wrong = bytearray(forward(A, B, bytes(65537)))
    with pytest.raises(ProtocolViolation, match="of 65601 bytes, expected 64 to 65600"):
        trains.next_train(wrong, 0, len(wrong), C, True)


def test_packets_that_belong_together_stay_together_whatever_their_sizes() -> None:
    sent = [b"a" * 10] * 3 + [b"b" * 2000, b"c" * 10, b"d" * 20, b"e" * 10, b"f" * 2000, b""]
    data = b"".join(forward(A, B, packet) for packet in sent)
    train = b"".join(recv_packet(A, packet) for packet in sent)
    assert first(data) == (len(data), A, B, 9, train, False)
    assert forwarding.forward_frames(memoryview(train), 9, B) == data


@pytest.mark.parametrize(
    "other",
    [
        forward(C, B, b"a" * 100),
        forward(A, C, b"a" * 100),
        forward(B, A, b"a" * 100),
        forward(A, B, DISCO_MAGIC + bytes(94)),
        forward(A, B, b"cut off")[:-1],
        forward(A, B, b"")[:40],
        frame(FrameType.FORWARD_PACKET, bytes(63)) + bytes(100),
        struct.pack(">BI", FrameType.FORWARD_PACKET, 65601) + A + B + bytes(70_000),
        frame(FrameType.SEND_PACKET, A + B + b"a" * 100),
        frame(FrameType.PING, bytes(100)),
        b"\x0a\x00\x00",
    ],
)
def test_a_run_ends_before_what_does_not_belong_to_it(other: bytes) -> None:
    together = forward(A, B, b"a" * 100) * 2
    train = recv_packet(A, b"a" * 100) * 2
    assert first(together + other) == (len(together), A, B, 2, train, False)


def test_a_run_of_disco_packets_ends_before_another_packet() -> None:
    disco = forward(A, B, DISCO_MAGIC + bytes(94)) * 2
    for other in (forward(A, B, bytes(100)), forward(A, B, DISCO_MAGIC + bytes(55))):
        stop, _, _, count, train, is_disco = first(disco + other)
        assert (stop, count, is_disco) == (len(disco), 2, True)
        assert train == recv_packet(A, DISCO_MAGIC + bytes(94)) * 2


def test_a_run_is_bounded() -> None:
    one = forward(A, B, bytes(1400))
    stop, _, _, count, train, _ = first(one * 200)
    assert trains.MAX_TRAIN - len(one) < stop <= trains.MAX_TRAIN
    assert count == stop // len(one)
    assert train == recv_packet(A, bytes(1400)) * count
    for most, expected in ((1, 1), (len(one) * 2 - 1, 1), (len(one) * 7, 7)):
        found = forwarding.next_forwarded(one * 200, 0, len(one) * 200, most)
        assert found[0] == expected * len(one)
        assert found[3:5] == (expected, recv_packet(A, bytes(1400)) * expected)


def test_bytes_behind_the_end_are_not_looked_at() -> None:
    one = forward(A, B, b"packet")
    data = one * 3
    assert forwarding.next_forwarded(data, 0, len(one) * 2 - 1)[0] == len(one)
    assert forwarding.next_forwarded(data, len(one), len(one) * 2 + 10)[0] == 2 * len(one)


def obvious(data: bytes) -> tuple[list[tuple[bytes, bytes, bytes]], bool]:
    """Take forwarded packets apart one at a time; say whether the last frame was illegal."""
    found = []
    while len(data) >= 5:
        kind, length = struct.unpack(">BI", data[:5])
        assert kind == 0x0A
        if not 64 <= length <= 65600:
            return found, True
        if len(data) < 5 + length:
            break
        found.append((data[5:37], data[37:69], data[69 : 5 + length]))
        data = data[5 + length :]
    return found, False


def taken(chunks: list[bytes]) -> tuple[list[tuple[bytes, bytes, bytes]], bool]:
    """Do as a mesh peer's reader does: a tail is kept."""
    found: list[tuple[bytes, bytes, bytes]] = []
    tail = b""
    for chunk in chunks:
        buffer = bytearray(tail + chunk)
        start, end = 0, len(buffer)
        while start < end:
            try:
                what, stop, _, _ = trains.next_train(buffer, start, end, D, True)
            except ConnectionEnd:
                return found, True
            if what == trains.INCOMPLETE:
                break
            assert what is trains.Kind.FORWARD_PACKET
            once = stop
            stop, source, destination, count, train, disco = forwarding.next_forwarded(
                buffer, start, end
            )
            assert stop >= once
            unpacked = unpack(train, source)
            assert len(unpacked) == count
            assert {looks_like_disco(packet) for packet in unpacked} == {disco}
            found += [(source, destination, packet) for packet in unpacked]
            start = stop
        tail = bytes(buffer[start:end])
    return found, False


def unpack(train: bytes, source: bytes) -> list[bytes]:
    found = []
    while train:
        kind, length = struct.unpack(">BI", train[:5])
        assert (kind, train[5:37]) == (FrameType.RECV_PACKET, source)
        found.append(train[37 : 5 + length])
        train = train[5 + length :]
    return found


frames = st.one_of(
    st.builds(forward, st.sampled_from([A, B]), st.sampled_from([C, D]), packets),
    st.builds(forward, st.just(A), st.just(C), packets),
)
illegal = st.sampled_from(
    [frame(FrameType.FORWARD_PACKET, bytes(63)), struct.pack(">BI", 0x0A, 65601), b"\x0a" * 5]
)
streams = st.tuples(
    st.lists(frames, max_size=20).map(b"".join), st.one_of(st.just(b""), st.just(b""), illegal)
).map(b"".join)


@given(streams, st.lists(st.integers(min_value=0), max_size=6))
def test_forwarded_packets_in_any_split(data: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    assert taken([data[a:b] for a, b in itertools.pairwise(edges)]) == obvious(data)


@given(streams)
def test_forwarded_packets_a_byte_at_a_time(data: bytes) -> None:
    assert taken([data[n : n + 1] for n in range(len(data))]) == obvious(data)


def test_without_the_mesh_key_the_header_is_enough_to_refuse() -> None:
    with pytest.raises(NotPermitted, match="FORWARD_PACKET frame from a client without"):
        trains.next_train(bytearray(struct.pack(">BI", 0x0A, 64)), 0, 5, D)
