"""The server's side of websocket frames (RFC 6455, section 5).

    byte 0      0x80 FIN, 0x70 reserved (0 here), 0x0F opcode
    byte 1      0x80 masked, 0x7F length: itself, or 126, or 127
    then        2 or 8 bytes of length, big-endian, where byte 1 has 126 or 127
    then        4 bytes of mask, where masked
    then        the payload; where masked, byte i is XORed with byte i % 4 of the mask

A client's frames are masked, a server's are not. A message is one frame, or a first frame and
continuations, the last of them with FIN. Control frames (close, ping, pong) may come between.

DERP is a stream: where a message ends means nothing. So no message is assembled: an Unpacker turns
frames into their payloads in place, as far as they have come, and keeps no more than the beginning
of a frame header or of a control frame.

Speed: unmasking takes XOR, which Python has for integers only. Converting both ways costs more for
each byte than bytes.translate with a table for each byte of the mask, which has the larger fixed
cost. So tables are used for long payloads.
"""

import enum
import struct
from typing import Final, NamedTuple

MAX_CONTROL: Final = 125
"""Bytes of the longest payload of a control frame."""
MAX_FRAMES: Final = 1024
"""Frames unpacked at a time: each costs about the same however short."""
MESSAGE_SIZE: Final = (16 << 10) - 4
"""Bytes of the longest message sent; its header and it fill a TLS record (Go's client: 32 KiB)."""

_FIN: Final = 0x80
_RESERVED: Final = 0x70
_MASKED: Final = 0x80
_TWO_BYTES: Final = 126
_EIGHT_BYTES: Final = 127

_LONG_HEADER = struct.Struct(">HH4s")
_LONG_BINARY: Final = 0x82FE
"""The first two bytes of a whole, masked, binary message of 126 to 65535 bytes."""
_LONG_HEADER_LENGTH: Final = 8
# Header, mask and payload of the longest control frame; no header alone is longer.
_MAX_KEPT: Final = 2 + 4 + MAX_CONTROL

_TABLES: Final = tuple(bytes(i ^ mask for i in range(256)) for mask in range(256))
_USE_TABLES_FROM: Final = 200


class Opcode(enum.IntEnum):
    """The type of a frame, the low four bits of its first byte; control frames from 8 on."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class CloseCode(enum.IntEnum):
    """The close codes that the relay sends (RFC 6455, 7.4.1)."""

    NORMAL = 1000
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    INVALID_DATA = 1007


_CONTINUATION: Final = int(Opcode.CONTINUATION)
_TEXT: Final = int(Opcode.TEXT)
_CLOSE: Final = int(Opcode.CLOSE)
_PING: Final = int(Opcode.PING)
_OPCODES: Final = frozenset(map(int, Opcode))


class Ending(NamedTuple):
    """The end of a websocket, and the payload of the Close frame that answers it."""

    payload: bytes
    complaint: str
    """What the peer did against the rules; empty where it closed the websocket."""


class Unpacked(NamedTuple):
    """What was unpacked from one read."""

    size: int
    """Bytes of payload."""
    consumed: int
    """Bytes of frames; after MAX_FRAMES, call `unpack` again with the rest."""
    ping: bytes | None
    """The payload of the last ping: no other needs an answer (RFC 6455, 5.5.3)."""
    ending: Ending | None


class _Ended(Exception):
    def __init__(self, ending: Ending) -> None:
        self.ending = ending


class Unpacker:
    """The unpacker of one client's frames."""

    __slots__ = ("_fragmented", "_left", "_mask", "_ping", "_tail")

    def __init__(self) -> None:
        self._left = 0
        """Bytes of a data frame still to come."""
        self._mask = b""
        """The mask of `_left`, rotated so that its first byte is for the first of them."""
        self._tail = b""
        """The beginning of a header or of a control frame."""
        self._fragmented = False
        """Whether a message has begun and not ended."""
        self._ping: bytes | None = None

    @property
    def in_frame(self) -> bool:
        """Whether the last frame is incomplete."""
        return bool(self._left or self._tail)

    def unpack(self, view: memoryview, end: int) -> Unpacked:
        """Unpack `view[:end]`, and leave the payload of data frames in `view[:size]`.

        After an ending the rest is ignored; do not call again.
        """
        offset = filled = frames = 0
        ending = None
        self._ping = None
        try:
            if self._tail:
                frames += 1
                offset = self._resume(view, end)
            left, mask, fragmented = self._left, self._mask, self._fragmented
            while offset < end:
                if not left:
                    if frames == MAX_FRAMES:
                        break
                    frames += 1
                    if end - offset >= _LONG_HEADER_LENGTH and not fragmented:
                        kind, length, mask = _LONG_HEADER.unpack_from(view, offset)
                    else:
                        kind = length = 0
                    if kind == _LONG_BINARY and length >= _TWO_BYTES:
                        left = length
                        offset += _LONG_HEADER_LENGTH
                    else:
                        header_end = self._begin(view, offset, end)
                        if not header_end:
                            self._tail = bytes(view[offset:end])
                            offset = end
                            break
                        offset = header_end
                        left, mask, fragmented = self._left, self._mask, self._fragmented
                        continue
                stop = min(offset + left, end)
                size = stop - offset
                view[filled : filled + size] = unmask(view[offset:stop], mask)
                filled += size
                offset = stop
                left -= size
                if left:
                    mask = (mask + mask)[size % 4 :][:4]
            self._left, self._mask = left, mask
        except _Ended as ended:
            ending = ended.ending
        return Unpacked(filled, offset, self._ping, ending)

    def _resume(self, view: memoryview, end: int) -> int:
        """Go on with `_tail`; return where in `view` the header or control frame ends, or `end`."""
        known = len(self._tail)
        kept = self._tail + bytes(view[: min(end, _MAX_KEPT - known)])
        stop = self._begin(kept, 0, len(kept))
        self._tail = b"" if stop else kept
        return stop - known if stop else end

    def _begin(self, data: memoryview | bytes, offset: int, end: int) -> int:
        """Parse a header, and a control frame's payload; return their end, 0 if incomplete."""
        if end - offset < 2:
            return 0
        first, second = data[offset], data[offset + 1]
        opcode = first & 0x0F
        self._check(first, second, opcode)
        length = second & 0x7F
        offset += 2
        if length >= _TWO_BYTES:
            width, least = (2, _TWO_BYTES) if length == _TWO_BYTES else (8, 1 << 16)
            if end - offset < width:
                return 0
            length = int.from_bytes(data[offset : offset + width], "big")
            if not least <= length < 1 << 63:
                raise _violation("encodes a frame's length in a wrong form")
            offset += width
        if end - offset < 4:
            return 0
        mask = bytes(data[offset : offset + 4])
        offset += 4
        if opcode < _CLOSE:
            self._fragmented = not first & _FIN
            self._left, self._mask = length, mask
            return offset
        if end - offset < length:
            return 0
        self._left = 0
        if opcode == _CLOSE:
            raise _closed_by_peer(bytes(unmask(data[offset : offset + length], mask)))
        if opcode == _PING:
            self._ping = bytes(unmask(data[offset : offset + length], mask))
        return offset + length

    def _check(self, first: int, second: int, opcode: int) -> None:
        """Check the first two bytes of a frame against the rules."""
        if first & _RESERVED:
            raise _violation("sets a reserved bit")
        if opcode not in _OPCODES:
            raise _violation(f"sends a frame of the unknown opcode {opcode}")
        if not second & _MASKED:
            raise _violation("sends a frame without a mask")
        if opcode >= _CLOSE:
            if not first & _FIN:
                raise _violation("sends a control frame in fragments")
            if second & 0x7F > MAX_CONTROL:
                raise _violation(f"sends a control frame of more than {MAX_CONTROL} bytes")
        elif (opcode == _CONTINUATION) is not self._fragmented:
            if self._fragmented:
                raise _violation("begins a message within another")
            raise _violation("continues a message that it has not begun")
        elif opcode == _TEXT:
            raise _violation("sends a text message, expected binary", CloseCode.UNSUPPORTED_DATA)


def unmask(data: memoryview | bytes, mask: bytes) -> bytes | bytearray:
    """XOR `data` with the 4 bytes of `mask`, repeated."""
    size = len(data)
    if size < _USE_TABLES_FROM:
        stream = int.from_bytes((mask * (size // 4 + 1))[:size], "little")
        return (int.from_bytes(data, "little") ^ stream).to_bytes(size, "little")
    plain = bytearray(data)
    for start in range(4):
        plain[start::4] = plain[start::4].translate(_TABLES[mask[start]])
    return plain


def messages(data: bytes | bytearray | memoryview) -> bytes:
    """Build binary messages of `data`, each of at most MESSAGE_SIZE bytes."""
    size = len(data)
    if size <= MESSAGE_SIZE:
        return b"".join((_header(Opcode.BINARY, size), data)) if size else b""
    pieces: list[bytes | memoryview] = []
    with memoryview(data) as view:
        for start in range(0, size, MESSAGE_SIZE):
            piece = view[start : start + MESSAGE_SIZE]
            pieces += (_header(Opcode.BINARY, len(piece)), piece)
        return b"".join(pieces)


def control(opcode: Opcode, payload: bytes) -> bytes:
    """Build a control frame with a payload of at most MAX_CONTROL bytes."""
    return _header(opcode, len(payload)) + payload


def close(code: CloseCode) -> bytes:
    """Build a Close frame without a reason in text."""
    return control(Opcode.CLOSE, code.to_bytes(2, "big"))


def _header(opcode: Opcode, length: int) -> bytes:
    if length < _TWO_BYTES:
        return bytes((_FIN | opcode, length))
    return struct.pack(">BBH", _FIN | opcode, _TWO_BYTES, length)


def _violation(complaint: str, code: CloseCode = CloseCode.PROTOCOL_ERROR) -> _Ended:
    return _Ended(Ending(code.to_bytes(2, "big"), complaint))


def _closed_by_peer(payload: bytes) -> _Ended:
    """Parse the payload of a Close frame: nothing, or a code of 2 bytes and a reason in UTF-8."""
    if payload and not _is_valid_code(payload[:2]):
        return _violation("closes with a code that must not be sent")
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        return _violation("closes with a reason that is not UTF-8", CloseCode.INVALID_DATA)
    return _Ended(Ending(payload, ""))


def _is_valid_code(code: bytes) -> bool:
    """Return whether an endpoint may send a close code (RFC 6455, 7.4)."""
    number = int.from_bytes(code, "big")
    return len(code) == 2 and (
        1000 <= number <= 1003 or 1007 <= number <= 1014 or 3000 <= number <= 4999
    )
