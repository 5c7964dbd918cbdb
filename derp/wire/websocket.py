"""Websocket frames (RFC 6455, section 5), the server's side of them, by the core of `websockets`.

DERP is a stream: where a message ends means nothing. So the payloads of frames are joined, and no
message is assembled. A frame is parsed when all of it has come, so its length has a bound.

Speed: what came is parsed in slices, since the library parses all that it is given, and many tiny
frames may be in one read. Each frame costs about the same, however short. So the slices are short
until a peer has sent long frames for a while, and again once it sends tiny ones.
"""

import logging
from typing import Final, NamedTuple, cast

from websockets.frames import Close, CloseCode, Frame, Opcode
from websockets.protocol import Protocol, Side

MAX_MESSAGE: Final = 128 << 10
"""Bytes of the longest message taken: more than a DERP frame has; Go's client writes no longer."""
MAX_FRAMES: Final = 64
"""Frames after which `receive` parses no other slice."""
SHORT_SLICE: Final = 512
"""Bytes parsed at a time at first: a frame has at least 6."""
SLICE: Final = 4 << 10
"""Bytes parsed at a time of a peer that sends long frames."""
TINY: Final = 48
"""Bytes: a slice whose frames are shorter in the mean is of tiny ones. A DERP packet is longer."""
PROBATION: Final = 64 << 10
"""Bytes in a row, without tiny frames, after which slices are long."""
MESSAGE_SIZE: Final = (16 << 10) - 4
"""Bytes of the longest message sent: with its header, a full TLS record (Go's client: 32 KiB)."""

# At the level DEBUG the library formats each frame.
_logger = logging.getLogger("derper.websocket")
_logger.setLevel(logging.INFO)


class Ending(NamedTuple):
    """The end of a websocket."""

    close: bytes
    """The Close frame that answers it."""
    complaint: str
    """The rule that the peer has broken; empty where it has closed the websocket itself."""


class Received(NamedTuple):
    """The result of one call of `FrameParser.receive`."""

    payload: bytes
    consumed: int
    """Bytes of `data` that were parsed: after MAX_FRAMES, call `receive` again with the rest."""
    pong: bytes
    """The answer to the last ping, or nothing: no other needs one (RFC 6455, 5.5.3)."""
    ending: Ending | None


class FrameParser:
    """The parser of one client's frames."""

    __slots__ = ("_long", "_protocol")

    def __init__(self) -> None:
        # Bytes in a row that came without tiny frames, up to PROBATION.
        self._long = 0
        self._protocol = Protocol(Side.SERVER, max_size=MAX_MESSAGE, logger=_logger)

    @property
    def kept(self) -> int:
        """Bytes of an incomplete frame, besides those of its header that were parsed already."""
        return len(self._protocol.reader.buffer)

    def receive(self, data: memoryview) -> Received:
        """Parse frames. After an ending nothing more may be received."""
        protocol = self._protocol
        payloads: list[bytes | bytearray | memoryview] = []
        ping: Frame | None = None
        consumed = frames = 0
        complaint = ""
        while consumed < len(data) and frames < MAX_FRAMES and protocol.close_sent is None:
            size = SLICE if self._long >= PROBATION else SHORT_SLICE
            piece = bytes(data[consumed : consumed + size])
            consumed += len(piece)
            protocol.receive_data(piece)
            # Requests and responses come in the opening handshake only.
            events = cast("list[Frame]", protocol.events_received())
            frames += len(events)
            is_tiny = len(events) * TINY > size
            self._long = 0 if is_tiny else min(PROBATION, self._long + len(piece))
            for frame in events:
                if frame.opcode in _DATA:
                    payloads.append(frame.data)
                elif frame.opcode is Opcode.PING:
                    ping = frame
                elif frame.opcode is Opcode.TEXT:
                    complaint = "sends a text message, expected binary"
                    if protocol.close_sent is None:
                        protocol.fail(CloseCode.UNSUPPORTED_DATA)
                    break
        # Pongs, then a Close frame; the empty item for the end of the stream is left out.
        answers = [*filter(None, protocol.data_to_send())]
        ending = None
        if complaint:
            # Whatever else is wrong behind it, which may have come in the same slice.
            ending = Ending(_UNSUPPORTED_CLOSE, complaint)
        elif protocol.close_sent is not None:
            if protocol.parser_exc is not None:
                complaint = f"breaks a rule of websockets: {protocol.parser_exc}"
            ending = Ending(answers.pop(), complaint)
        pong = b"" if ping is None else Frame(Opcode.PONG, ping.data).serialize(mask=False)
        return Received(b"".join(payloads), consumed, pong, ending)


_DATA: Final = frozenset((Opcode.BINARY, Opcode.CONT))

NORMAL_CLOSE: Final = Frame(
    Opcode.CLOSE, Close(CloseCode.NORMAL_CLOSURE, "").serialize()
).serialize(mask=False)
"""The Close frame of a server that has nothing more to send."""

_UNSUPPORTED_CLOSE: Final = Frame(
    Opcode.CLOSE, Close(CloseCode.UNSUPPORTED_DATA, "").serialize()
).serialize(mask=False)


def messages(data: bytes | bytearray | memoryview) -> bytes:
    """Build binary messages of `data`, each of at most MESSAGE_SIZE bytes."""
    size = len(data)
    if size <= MESSAGE_SIZE:
        return Frame(Opcode.BINARY, data).serialize(mask=False) if size else b""
    with memoryview(data) as view:
        return b"".join(
            Frame(Opcode.BINARY, view[start : start + MESSAGE_SIZE]).serialize(mask=False)
            for start in range(0, size, MESSAGE_SIZE)
        )
