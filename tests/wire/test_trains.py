"""The train scanner against a slow and obvious one, over any frames and any split."""

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derp.errors import ConnectionEnd, NotPermitted, ProtocolViolation
from derp.wire import trains
from derp.wire.frames import DISCO_MAGIC, FrameType, frame
from tests.support.frames import looks_like_disco

SOURCE = bytes(range(32))
KEYS = [bytes([n]) * 32 for n in range(3)]


class Violation(Exception):
    """The obvious parser's word for any frame that ends the connection."""


def obvious(data: bytes, mesh: bool = False) -> tuple[list[tuple[object, ...]], bool]:
    """Take `data` apart one frame at a time; return the events and whether the last was illegal."""
    events: list[tuple[object, ...]] = []
    while len(data) >= 5:
        kind, length = struct.unpack(">BI", data[:5])
        limits = {0x04: (32, 65568), 0x07: (1, 1), 0x12: (8, 1000)}
        if mesh:
            limits |= {0x0A: (64, 65600), 0x10: (0, 0), 0x11: (32, 32)}
        elif kind in {0x0A, 0x10, 0x11}:
            return events, True
        if kind in limits and not limits[kind][0] <= length <= limits[kind][1]:
            return events, True
        if kind not in limits:
            events.append(("unknown", kind))
            if len(data) < 5 + length:
                break
        elif len(data) < 5 + length:
            break
        elif kind == 0x04:
            events.append(("packet", data[5:37], data[37 : 5 + length]))
        else:
            events.append(("control", kind, data[5 : 5 + length]))
        data = data[5 + length :]
    return events, False


def scanned(chunks: list[bytes], mesh: bool = False) -> tuple[list[tuple[object, ...]], bool]:
    """Run the scanner as a client's reader does: tails are kept, big unknown frames skipped."""
    events: list[tuple[object, ...]] = []
    tail, skip = b"", 0
    for chunk in chunks:
        buffer = bytearray(tail + chunk)
        end = len(buffer)
        start = min(skip, end)
        skip -= start
        while start < end:
            try:
                what, stop, destination, packets = trains.next_train(
                    buffer, start, end, SOURCE, mesh
                )
            except ConnectionEnd:
                return events, True
            if what == trains.INCOMPLETE:
                assert stop == start
                break
            if packets:
                events += unpack_train(bytes(buffer[start:stop]), destination, what, packets)
            elif what == trains.UNKNOWN:
                events.append(("unknown", buffer[start]))
                skip = max(0, stop - end)
            else:
                assert what.name == FrameType(buffer[start]).name
                events.append(("control", buffer[start], bytes(buffer[start + 5 : stop])))
            start = min(stop, end)
        tail = bytes(buffer[start:end])
    return events, False


def unpack_train(
    train: bytes, destination: bytes, what: trains.Kind, packets: int
) -> list[tuple[object, ...]]:
    found = []
    while train:
        kind, length = struct.unpack(">BI", train[:5])
        assert kind == FrameType.RECV_PACKET
        assert train[5:37] == SOURCE
        packet = train[37 : 5 + length]
        assert looks_like_disco(packet) is (what == trains.DISCO)
        found.append(("packet", destination, packet))
        train = train[5 + length :]
    assert len(found) == packets
    return found


packets = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([b"x" * 100, b"y" * 100, b"", DISCO_MAGIC, DISCO_MAGIC + bytes(55)]),
    st.sampled_from([DISCO_MAGIC + bytes(56), DISCO_MAGIC + bytes(100), bytes(62), b"z" * 62]),
)
legal = st.one_of(
    st.tuples(st.sampled_from(KEYS), packets).map(
        lambda pair: frame(FrameType.SEND_PACKET, pair[0] + pair[1])
    ),
    st.sampled_from([b"\x00", b"\x01"]).map(lambda b: frame(FrameType.NOTE_PREFERRED, b)),
    st.binary(min_size=8, max_size=20).map(lambda b: frame(FrameType.PING, b)),
    st.tuples(st.sampled_from([0x06, 0x13, 0x77, 0xFF]), st.binary(max_size=50)).map(
        lambda pair: struct.pack(">BI", pair[0], len(pair[1])) + pair[1]
    ),
)
illegal = st.sampled_from(
    [
        frame(FrameType.SEND_PACKET, bytes(31)),
        struct.pack(">BI", FrameType.SEND_PACKET, 65569),
        struct.pack(">BI", FrameType.SEND_PACKET, 2**32 - 1),
        frame(FrameType.PING, bytes(7)),
        struct.pack(">BI", FrameType.PING, 1001),
        frame(FrameType.NOTE_PREFERRED, b""),
        frame(FrameType.NOTE_PREFERRED, b"\x00\x01"),
        frame(FrameType.WATCH_CONNS, b""),
        frame(FrameType.CLOSE_PEER, bytes(32)),
        frame(FrameType.FORWARD_PACKET, bytes(64)),
    ]
)
of_mesh_peers = st.sampled_from(
    [
        frame(FrameType.WATCH_CONNS),
        frame(FrameType.CLOSE_PEER, KEYS[1]),
        frame(FrameType.FORWARD_PACKET, KEYS[1] + KEYS[2]),
        frame(FrameType.FORWARD_PACKET, KEYS[1] + KEYS[2] + b"packet" * 20),
        frame(FrameType.WATCH_CONNS, b"\x00"),
        frame(FrameType.CLOSE_PEER, bytes(31)),
        frame(FrameType.CLOSE_PEER, bytes(33)),
        frame(FrameType.FORWARD_PACKET, bytes(63)),
        struct.pack(">BI", FrameType.FORWARD_PACKET, 65601),
    ]
)
mesh_streams = st.lists(st.one_of(legal, of_mesh_peers), max_size=20).map(b"".join)
streams = st.lists(st.one_of(legal, legal, legal, illegal), max_size=20).map(b"".join)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


@given(streams, st.lists(st.integers(min_value=0), max_size=6))
def test_frames_in_any_split(data: bytes, cuts: list[int]) -> None:
    assert scanned(split(data, cuts)) == obvious(data)


@given(mesh_streams, st.lists(st.integers(min_value=0), max_size=6))
def test_frames_of_mesh_peers_in_any_split(data: bytes, cuts: list[int]) -> None:
    assert scanned(split(data, cuts), mesh=True) == obvious(data, mesh=True)


@given(st.binary(max_size=300), st.lists(st.integers(min_value=0), max_size=4))
def test_any_bytes_in_any_split(data: bytes, cuts: list[int]) -> None:
    assert scanned(split(data, cuts)) == obvious(data)


@given(streams)
def test_one_byte_at_a_time(data: bytes) -> None:
    assert scanned([data[n : n + 1] for n in range(len(data))]) == obvious(data)


def send(key: bytes, packet: bytes) -> bytes:
    return frame(FrameType.SEND_PACKET, key + packet)


def first_run(data: bytes) -> tuple[int, int, bytes, int]:
    return trains.next_train(bytearray(data), 0, len(data), SOURCE)


def test_frames_to_one_destination_are_one_run_whatever_their_sizes() -> None:
    data = send(KEYS[1], b"a" * 10) * 3 + send(KEYS[1], b"b" * 2000) + send(KEYS[1], b"")
    assert first_run(data) == (trains.PACKETS, len(data), KEYS[1], 5)


def test_a_run_ends_before_another_destination() -> None:
    first = send(KEYS[1], b"a" * 10) * 2
    assert first_run(first + send(KEYS[2], b"a" * 10)) == (trains.PACKETS, len(first), KEYS[1], 2)


def test_a_run_ends_before_a_disco_packet_of_the_same_size() -> None:
    first = send(KEYS[1], bytes(90)) * 2
    disco = send(KEYS[1], DISCO_MAGIC + bytes(84))
    assert first_run(first + disco) == (trains.PACKETS, len(first), KEYS[1], 2)
    assert first_run(disco * 2 + first) == (trains.DISCO, 2 * len(disco), KEYS[1], 2)


def test_a_run_ends_before_an_illegal_frame_which_then_raises() -> None:
    good = send(KEYS[1], b"good")
    data = bytearray(good + frame(FrameType.SEND_PACKET, bytes(3)))
    assert trains.next_train(data, 0, len(data), SOURCE) == (trains.PACKETS, len(good), KEYS[1], 1)
    with pytest.raises(ProtocolViolation, match="SEND_PACKET frame of 3 bytes, expected 32 to"):
        trains.next_train(data, len(good), len(data), SOURCE)


def test_a_run_is_bounded() -> None:
    one = send(KEYS[1], bytes(1400))
    what, stop, _, count = first_run(one * 200)
    assert what == trains.PACKETS
    assert trains.MAX_TRAIN - len(one) < stop <= trains.MAX_TRAIN
    assert count == stop // len(one)


def test_a_run_may_be_bounded_to_less_but_has_a_frame_at_least() -> None:
    one, short = send(KEYS[1], bytes(1400)), send(KEYS[1], b"short")
    data = one * 3 + short * 100 + one
    for most in (1, len(one), len(one) + 1, 3 * len(one) - 1, 3 * len(one) + 50):
        what, stop, _, count = trains.next_train(bytearray(data), 0, len(data), SOURCE, False, most)
        room = max(most, len(one))
        in_first, rest = min(3, room // len(one)), max(0, room - 3 * len(one))
        assert (what, count) == (trains.PACKETS, in_first + rest // len(short))
        assert stop == in_first * len(one) + rest // len(short) * len(short)


def test_the_largest_packet_passes_and_one_more_byte_does_not() -> None:
    data = send(KEYS[0], bytes(65536))
    assert first_run(data) == (trains.PACKETS, len(data), KEYS[0], 1)
    with pytest.raises(ProtocolViolation):
        first_run(send(KEYS[0], bytes(65537)))


def test_what_is_incomplete_is_not_touched() -> None:
    data = bytearray(send(KEYS[1], b"whole") + send(KEYS[1], b"cut off")[:-1])
    before = bytes(data)
    what, stop, _, count = trains.next_train(data, 0, len(data), SOURCE)
    assert (what, count) == (trains.PACKETS, 1)
    assert data[stop:] == before[stop:]
    assert trains.next_train(data, stop, len(data), SOURCE) == (trains.INCOMPLETE, stop, b"", 0)


def test_bytes_behind_the_end_are_not_looked_at() -> None:
    one = send(KEYS[1], b"packet")
    data = bytearray(one * 2)
    assert trains.next_train(data, 0, len(one) + 10, SOURCE)[:2] == (trains.PACKETS, len(one))
    assert data[len(one) :] == one


def test_an_unknown_frame_may_end_behind_the_buffer() -> None:
    data = struct.pack(">BI", 0x77, 2**32 - 1) + b"some"
    assert first_run(data) == (trains.UNKNOWN, 5 + 2**32 - 1, b"", 0)


def test_an_illegal_header_raises_before_its_payload_is_there() -> None:
    with pytest.raises(ProtocolViolation, match="PING frame of 4294967295 bytes, expected 8 to"):
        first_run(struct.pack(">BI", FrameType.PING, 2**32 - 1))
    with pytest.raises(NotPermitted, match="CLOSE_PEER"):
        first_run(struct.pack(">BI", FrameType.CLOSE_PEER, 32))
