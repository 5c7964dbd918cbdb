"""Websocket frames against a slow and obvious parser, and against wsproto's."""

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Message, Pong

from derp.wire import websocket
from derp.wire.websocket import (
    MAX_FRAMES,
    MESSAGE_SIZE,
    CloseCode,
    Ending,
    Opcode,
    Unpacker,
    unmask,
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


def unpacked(chunks: list[bytes]) -> tuple[bytes, bytes | None, Ending | None, bool]:
    """Unpack piece by piece; return the payload, the last ping, the ending, and `in_frame`."""
    unpacker = Unpacker()
    payload, ping = b"", None
    for chunk in chunks:
        # What lies behind is another connection's, and stays as it is.
        buffer = memoryview(bytearray(chunk + b"behind"))
        result = unpacker.unpack(buffer, len(chunk))
        assert result.size <= result.consumed <= len(chunk)
        assert buffer[len(chunk) :] == b"behind"
        assert result.ending is not None or result.consumed == len(chunk)
        payload += buffer[: result.size]
        ping = ping if result.ping is None else result.ping
        if result.ending is not None:
            return payload, ping, result.ending, False
    return payload, ping, None, unpacker.in_frame


def obvious(data: bytes) -> tuple[bytes, bytes | None, int | None, bool]:
    """Take all of `data` apart; return the payload, the last ping, the Close code, and `in_frame`.

    The code of an empty Close frame is 0.
    """
    payload, ping, open_message = b"", None, False
    while len(data) >= 2:
        first, second = data[:2]
        opcode, width = first & 15, {126: 2, 127: 8}.get(second & 127, 0)
        if code := obvious_fault(first, second, open_message):
            return payload, ping, code, False
        head = 2 + width + 4
        size = int.from_bytes(data[2 : 2 + width], "big") if width else second & 127
        if len(data) >= 2 + width and size not in SIZES[width]:
            return payload, ping, 1002, False
        if len(data) < head or (opcode >= 8 and len(data) < head + size):
            break
        body = xor(data[head : head + size], data[head - 4 : head])
        if opcode < 8:
            open_message = not first & FIN
            payload += body
            if len(body) < size:
                break
        elif opcode == 9:
            ping = body
        elif opcode == 8:
            return payload, ping, obvious_close(body), False
        data = data[head + size :]
    return payload, ping, None, bool(data)


SIZES = {0: range(126), 2: range(126, 65536), 8: range(65536, 2**63)}


def obvious_fault(first: int, second: int, open_message: bool) -> int:
    """The Close code for the first two bytes of a frame, 0 where nothing is wrong with them."""
    opcode = first & 15
    if first & 0x70 or opcode not in {0, 1, 2, 8, 9, 10} or second < 0x80:
        return 1002
    if opcode >= 8:
        return 0 if first & FIN and second & 127 <= 125 else 1002
    if open_message != (opcode == 0):
        return 1002
    return 1003 if opcode == 1 else 0


def obvious_close(body: bytes) -> int:
    """The code that answers a Close frame."""
    if not body:
        return 0
    if len(body) == 1:
        return 1002
    code = int.from_bytes(body[:2], "big")
    if code not in {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}:
        return 1002
    try:
        body[2:].decode()
    except UnicodeDecodeError:
        return 1007
    return code


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


@given(streams, cuts)
@example(built(b"x" * 300) * 3, [1] * 340)
@example(built(b"ab", flags=0) + built(b"p" * 125, PING) + built(b"c", CONTINUATION), [3] * 20)
def test_any_bytes_in_any_pieces(stream: bytes, places: list[int]) -> None:
    payload, ping, ending, in_frame = unpacked(pieces(stream, places))
    expected_payload, expected_ping, code, expected_in_frame = obvious(stream)
    assert payload == expected_payload
    assert ping == expected_ping
    assert in_frame == expected_in_frame
    if code is None:
        assert ending is None
    else:
        assert ending is not None
        assert int.from_bytes(ending.payload[:2], "big") == code
        assert "\n" not in ending.complaint


@given(st.lists(st.tuples(st.lists(payloads, min_size=1, max_size=4), masks), max_size=4), cuts)
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
    assert unpacked(pieces(stream, places)) == (expected, None, None, False)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 199, 200, 201, 202, 203, 1441, 70_000])
@pytest.mark.parametrize("mask", [MASK, bytes(4), b"\xff\x00\x80\x01"])
def test_unmasking_is_xor(size: int, mask: bytes) -> None:
    data = bytes(i * 31 % 256 for i in range(size))
    assert unmask(data, mask) == xor(data, mask)
    assert unmask(memoryview(data), mask) == xor(data, mask)


LONG = bytes([FIN | BINARY, 0xFF])


@pytest.mark.parametrize(
    ("data", "code", "complaint"),
    [
        (built(b"hello", TEXT), 1003, "sends a text message, expected binary"),
        (b"\x82\x05", 1002, "sends a frame without a mask"),
        (b"\x89\x00", 1002, "sends a frame without a mask"),
        (built(b"x", flags=FIN | 0x40), 1002, "sets a reserved bit"),
        (built(b"x", flags=FIN | 0x20), 1002, "sets a reserved bit"),
        (built(b"x", flags=FIN | 0x10), 1002, "sets a reserved bit"),
        (built(b"x", 3), 1002, "sends a frame of the unknown opcode 3"),
        (built(b"x", 7), 1002, "sends a frame of the unknown opcode 7"),
        (built(b"x", 11), 1002, "sends a frame of the unknown opcode 11"),
        (built(b"x", 15), 1002, "sends a frame of the unknown opcode 15"),
        (b"\x89\xfe", 1002, "sends a control frame of more than 125 bytes"),
        (b"\x88\xff", 1002, "sends a control frame of more than 125 bytes"),
        (built(b"x", PING, flags=0), 1002, "sends a control frame in fragments"),
        (built(b"x", CONTINUATION), 1002, "continues a message that it has not begun"),
        (LONG + b"\xff" * 8, 1002, "encodes a frame's length in a wrong form"),
        (LONG + struct.pack(">Q", 65535), 1002, "encodes a frame's length in a wrong form"),
        (b"\x82\xfe\x00\x7d" + MASK, 1002, "encodes a frame's length in a wrong form"),
        (built(b"\x03", CLOSE), 1002, "closes with a code that must not be sent"),
        (built(b"\x03\xed", CLOSE), 1002, "closes with a code that must not be sent"),
        (built(b"\x03\xe8\xff", CLOSE), 1007, "closes with a reason that is not UTF-8"),
    ],
)
def test_a_broken_rule_is_the_end_behind_what_came_before(
    data: bytes, code: int, complaint: str
) -> None:
    for before in (b"", b"before", b"y" * 1000):
        stream = built(before) + built(b"ping", PING) + data
        payload, ping, ending, _ = unpacked([stream + built(b"behind")])
        assert payload == before
        assert ping == b"ping"
        assert ending is not None
        assert ending.payload == code.to_bytes(2, "big")
        assert ending.complaint.startswith(complaint)
        # It does not depend on anything behind it.
        assert unpacked([stream])[2] == ending


@pytest.mark.parametrize("opcode", [BINARY, TEXT])
def test_a_message_within_another_is_the_end(opcode: int) -> None:
    for first in (b"x", b"x" * 1000):
        stream = built(first, flags=0) + built(b"y" * 200, opcode)
        payload, _, ending, _ = unpacked([stream])
        assert payload == first
        assert ending == Ending(b"\x03\xea", "begins a message within another")


@pytest.mark.parametrize("payload", [b"", b"\x03\xe8", b"\x03\xe9bye", b"\x13\x87"])
def test_a_close_is_answered_with_its_own_payload(payload: bytes) -> None:
    assert unpacked([built(b"data") + built(payload, CLOSE) + b"junk"]) == (
        b"data",
        None,
        Ending(payload, ""),
        False,
    )


def test_the_last_ping_is_the_one_to_answer() -> None:
    unpacker = Unpacker()
    stream = built(b"1", PING) + built(b"2", PING) + built(b"", PONG)
    assert unpacker.unpack(memoryview(bytearray(stream)), len(stream)).ping == b"2"
    stream = built(b"data")
    assert unpacker.unpack(memoryview(bytearray(stream)), len(stream)).ping is None


@pytest.mark.parametrize(
    ("frame", "size"),
    [(built(), 0), (built(b"p", PING), 0), (built(b"xy"), 2), (built(b"x" * 200), 200)],
)
@pytest.mark.parametrize("known", [0, 1, 5])
def test_so_many_frames_are_taken_at_a_time(frame: bytes, size: int, known: int) -> None:
    unpacker = Unpacker()
    unpacker.unpack(memoryview(bytearray(frame)), known)
    stream = (frame * (2 * MAX_FRAMES + 5))[known:] + frame[:1]
    for count in (MAX_FRAMES, MAX_FRAMES, 5):
        buffer = memoryview(bytearray(stream))
        result = unpacker.unpack(buffer, len(buffer))
        assert result.size == size * count
        stream = stream[result.consumed :]
    assert not stream
    assert unpacker.in_frame


def test_little_is_kept_of_an_unfinished_frame() -> None:
    unpacker = Unpacker()
    head = bytes([FIN | BINARY, 0xFF]) + struct.pack(">Q", 2**62) + MASK
    unpacker.unpack(memoryview(bytearray(head)), len(head))
    for _ in range(3):
        assert unpacker.unpack(memoryview(bytearray(100_000)), 100_000).size == 100_000
        assert unpacker.in_frame
        assert len(unpacker._tail) == 0


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


def test_control_frames_are_understood_by_wsproto() -> None:
    client = Connection(ConnectionType.CLIENT)
    client.receive_data(
        websocket.control(Opcode.PONG, bytes(125)) + websocket.close(CloseCode.NORMAL)
    )
    assert list(client.events()) == [
        Pong(payload=bytearray(125)),
        CloseConnection(code=1000, reason=""),
    ]
