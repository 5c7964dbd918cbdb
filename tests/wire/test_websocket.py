"""Websocket frames, as a client builds them by hand, and against wsproto."""

import logging
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Message

from derp.wire import websocket
from derp.wire.websocket import (
    MAX_FRAMES,
    MAX_MESSAGE,
    MESSAGE_SIZE,
    PROBATION,
    SHORT_SLICE,
    SLICE,
    FrameParser,
)

FIN = 0x80
MASK = b"\x12\x34\x56\x78"
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def xor(data: bytes, mask: bytes) -> bytes:
    return bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))


def built(
    payload: bytes = b"", opcode: int = BINARY, *, flags: int = FIN, mask: bytes = MASK
) -> bytes:
    """A client's frame."""
    size = len(payload)
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 65536:
        length = struct.pack(">BH", 0x80 | 126, size)
    else:
        length = struct.pack(">BQ", 0x80 | 127, size)
    return bytes([flags | opcode]) + length + mask + xor(payload, mask)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """Cut `data` after so many bytes, again and again; the last piece is the rest."""
    found = []
    for cut in cuts:
        found.append(data[:cut])
        data = data[cut:]
    return [*found, data]


def parsed(chunks: list[bytes]) -> tuple[bytes, bytes, bytes, str]:
    """Parse piece by piece; return the payload, the last pong, the Close frame, the complaint."""
    parser = FrameParser()
    payload, pong = b"", b""
    for chunk in chunks:
        rest = memoryview(chunk)
        while rest:
            result = parser.receive(rest)
            assert 0 < result.consumed <= len(rest)
            assert parser.kept <= MAX_MESSAGE + SLICE
            rest = rest[result.consumed :]
            payload += result.payload
            pong = result.pong or pong
            if result.ending is not None:
                return payload, pong, *result.ending
    return payload, pong, b"", ""


masks = st.binary(min_size=4, max_size=4)
payloads = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([124, 125, 126, 127, 199, 200, 201, 203, 1441, 65535, 65536]).map(
        lambda size: bytes(i * 7 % 256 for i in range(size))
    ),
)
good_frames = st.builds(
    built,
    payloads,
    st.sampled_from([BINARY, BINARY, CONTINUATION]),
    flags=st.sampled_from([FIN, FIN, 0]),
    mask=masks,
)
control_frames = st.builds(built, st.binary(max_size=125), st.sampled_from([PING, PONG]))
any_frames = st.builds(
    built,
    payloads,
    st.integers(0, 15),
    flags=st.sampled_from([FIN, FIN, FIN, 0, 0x40 | FIN, 0x10]),
    mask=masks,
)
closes = st.builds(
    lambda code, reason: built(code.to_bytes(2, "big") + reason, CLOSE),
    st.one_of(st.integers(990, 1020), st.sampled_from([0, 2999, 3000, 4999, 5000, 65535])),
    st.sampled_from([b"", b"bye", "ciào".encode(), b"\xff"]),
)
streams = st.one_of(
    st.binary(max_size=300),
    st.lists(
        st.one_of(good_frames, control_frames, any_frames, closes, st.binary(max_size=20)),
        max_size=8,
    ).map(b"".join),
)
cuts = st.lists(st.one_of(st.integers(0, 8), st.integers(0, 3000)), max_size=30)


fragments_of_one = st.lists(payloads, min_size=1, max_size=4).filter(
    lambda fragments: sum(map(len, fragments)) <= MAX_MESSAGE
)


@given(streams, cuts)
@example(built(b"", TEXT) + bytes(8), [6])
@example(built(b"", TEXT) + built(b"x", PING), [6])
@example(built(b"x", PING) + built(b"", TEXT), [7])
def test_any_bytes_in_any_pieces_come_to_the_same(stream: bytes, places: list[int]) -> None:
    payload, pong, close, complaint = parsed([stream])
    assert parsed(pieces(stream, places)) == (payload, pong, close, complaint)
    assert len(payload) <= len(stream)
    assert "\n" not in complaint
    assert bool(close) or not complaint


@given(st.lists(st.tuples(fragments_of_one, masks), max_size=4), cuts)
def test_messages_whole_and_in_fragments_become_a_stream(
    sent: list[tuple[list[bytes], bytes]], places: list[int]
) -> None:
    stream = expected = b""
    for fragments, mask in sent:
        for number, fragment in enumerate(fragments):
            opcode = CONTINUATION if number else BINARY
            flags = FIN if number == len(fragments) - 1 else 0
            stream += built(fragment, opcode, flags=flags, mask=mask) + built(b"", PONG)
            expected += fragment
    assert parsed(pieces(stream, places)) == (expected, b"", b"", "")


LONG = bytes([FIN | BINARY, 0xFF])


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (built(b"hello", TEXT), 1003),
        (b"\x82\x05", 1002),
        (b"\x89\x00", 1002),
        (built(b"x", flags=FIN | 0x40), 1002),
        (built(b"x", flags=FIN | 0x20), 1002),
        (built(b"x", flags=FIN | 0x10), 1002),
        (built(b"x", 3), 1002),
        (built(b"x", 7), 1002),
        (built(b"x", 11), 1002),
        (built(b"x", 15), 1002),
        (built(bytes(126), PING), 1002),
        (built(bytes(126), CLOSE), 1002),
        (built(b"x", PING, flags=0), 1002),
        (built(b"x", CONTINUATION), 1002),
        (built(b"x", flags=0) + built(b"y"), 1002),
        (built(b"x", flags=0) + built(b"y", TEXT), 1002),
        (LONG + b"\xff" * 8, 1009),
        (LONG + struct.pack(">Q", MAX_MESSAGE + 1), 1009),
        (built(bytes(MAX_MESSAGE), flags=0) + built(b"y", CONTINUATION), 1009),
        (built(b"\x03", CLOSE), 1002),
        (built(b"\x03\xed", CLOSE), 1002),
        (built(b"\x03\xe8\xff", CLOSE), 1007),
    ],
)
def test_a_broken_rule_is_the_end_behind_what_came_before(data: bytes, code: int) -> None:
    for before in (b"", b"before", b"y" * 10_000):
        stream = built(before) + built(b"ping", PING) + data
        payload, pong, close, complaint = parsed([stream + built(b"behind")])
        assert payload.startswith(before)
        assert b"behind" not in payload
        assert pong == b"\x8a\x04ping"
        assert close[0] == FIN | CLOSE
        assert int.from_bytes(close[2:4], "big") == code
        assert complaint
        # It does not depend on anything behind it.
        assert parsed([stream]) == (payload, pong, close, complaint)


@pytest.mark.parametrize("payload", [b"", b"\x03\xe8", b"\x03\xe9bye", b"\x13\x87"])
def test_a_close_is_answered_with_its_own_payload(payload: bytes) -> None:
    stream = built(b"data") + built(payload, CLOSE) + b"junk"
    assert parsed([stream]) == (b"data", b"", bytes([0x88, len(payload)]) + payload, "")


def test_the_last_ping_is_the_one_to_answer() -> None:
    parser = FrameParser()
    stream = built(b"1", PING) + built(b"2", PING) + built(b"", PONG)
    assert parser.receive(memoryview(stream)).pong == b"\x8a\x012"
    assert parser.receive(memoryview(built(b"data"))).pong == b""


@pytest.mark.parametrize("frame", [built(), built(b"", PING), built(b"x"), built(b"x" * 200)])
def test_so_many_frames_are_taken_at_a_time(frame: bytes) -> None:
    parser = FrameParser()
    stream = memoryview(frame * 5000)
    while stream:
        result = parser.receive(stream)
        assert result.consumed <= (MAX_FRAMES * len(frame)) + SLICE
        stream = stream[result.consumed :]
    assert parser.kept == 0


def test_of_tiny_frames_fewer_are_parsed_at_a_time() -> None:
    """However many long ones came before: each costs about the same."""
    parser, tiny = FrameParser(), memoryview(built(b"", PING) * 5000)
    parser.receive(memoryview(built(bytes(PROBATION))))
    counts = []
    for _ in range(3):
        consumed = parser.receive(tiny).consumed
        counts.append(consumed // len(built()))
        tiny = tiny[consumed:]
    assert counts[0] <= MAX_FRAMES + SLICE // 6
    assert max(counts[1:]) <= MAX_FRAMES + SHORT_SLICE // 6


def test_a_read_of_packets_is_parsed_at_once() -> None:
    """As tailscaled sends them, after some."""
    parser, stream = FrameParser(), built(bytes(1437)) * 60
    while parser.receive(memoryview(stream)).consumed < len(stream):
        pass
    assert parser.receive(memoryview(stream)).consumed == len(stream)


def test_a_frame_that_has_not_come_as_a_whole_is_kept() -> None:
    parser = FrameParser()
    frame = built(bytes(MAX_MESSAGE))
    parser.receive(memoryview(frame)[:-1])
    assert MAX_MESSAGE - SLICE <= parser.kept <= MAX_MESSAGE
    assert len(parser.receive(memoryview(frame)[-1:]).payload) == MAX_MESSAGE
    assert parser.kept == 0


def test_no_frame_is_logged_though_everything_is(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        assert parsed([built(b"secret") + built(b"", CLOSE)])[0] == b"secret"
    assert not caplog.records


@given(st.one_of(payloads, st.sampled_from([16379, 16380, 16381, 32760, 40_000]).map(bytes)))
def test_messages_are_understood_by_wsproto(data: bytes) -> None:
    for given_as in (data, bytearray(data), memoryview(data)):
        sent = websocket.messages(given_as)
        client = Connection(ConnectionType.CLIENT)
        client.receive_data(sent)
        received = b""
        message = b""
        for event in client.events():
            assert isinstance(event, Message)
            assert isinstance(event, BytesMessage)
            message += event.data
            if event.message_finished:
                assert 0 < len(message) <= MESSAGE_SIZE
                received += message
                message = b""
        assert received == data
        assert not message


def test_our_close_is_understood_by_wsproto() -> None:
    client = Connection(ConnectionType.CLIENT)
    client.receive_data(websocket.NORMAL_CLOSE)
    assert list(client.events()) == [CloseConnection(code=1000, reason="")]
