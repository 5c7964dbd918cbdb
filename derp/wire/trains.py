"""Trains of packets, found in a client's bytes and rewritten in place.

For speed: a SendPacket frame (type, length, destination, packet) and the RecvPacket frame that it
becomes (type, length, source, packet) have the same length. So only the type byte and the key are
overwritten in the read buffer, and consecutive frames for one destination are handed on as one
slice, a *train*: one look-up, one queue entry, one TLS write, one send, however many packets.

Invariants:

- Only whole frames are rewritten; an incomplete one stays as it came.
- The frames of a train have one destination, and are all disco packets or all not.
- A frame that breaks a rule ends the train before it, which is still delivered.
"""

import enum
from typing import Final

from derp.errors import ProtocolViolation
from derp.wire.frames import (
    DISCO_MAGIC,
    HEADER,
    HEADER_LENGTH,
    KEY_LENGTH,
    MAX_PACKET_SIZE,
    MIN_DISCO_LENGTH,
    PACKET_OVERHEAD,
    FrameType,
    check_header,
)


class Kind(enum.Enum):
    """The kind of what `next_train` finds: a train, another frame, or an incomplete one."""

    INCOMPLETE = enum.auto()
    """The buffer ends before the frame does."""
    PACKETS = enum.auto()
    """A train of packets that are not disco."""
    DISCO = enum.auto()
    """A train of disco packets."""
    NOTE_PREFERRED = enum.auto()
    PING = enum.auto()
    FORWARD_PACKET = enum.auto()
    WATCH_CONNS = enum.auto()
    CLOSE_PEER = enum.auto()
    UNKNOWN = enum.auto()
    """A frame of a type that servers skip; its end may lie beyond the buffer."""


INCOMPLETE: Final = Kind.INCOMPLETE
PACKETS: Final = Kind.PACKETS
DISCO: Final = Kind.DISCO
UNKNOWN: Final = Kind.UNKNOWN

MAX_TRAIN: Final = 128 << 10
"""Most bytes of a train, and so of what one write encrypts."""

_CONTROL: Final = {
    int(FrameType[kind.name]): kind for kind in Kind if kind.name in FrameType.__members__
}
_SEND: Final = int(FrameType.SEND_PACKET)
_RECV: Final = bytes((FrameType.RECV_PACKET,))
_MIN_LENGTH: Final = KEY_LENGTH
_MAX_LENGTH: Final = KEY_LENGTH + MAX_PACKET_SIZE
_MIN_DISCO_PAYLOAD: Final = KEY_LENGTH + MIN_DISCO_LENGTH

Train = bytes | memoryview
"""Consecutive RecvPacket frames of one source for one destination."""

Scan = tuple[Kind, int, bytes, int]
"""The result of `next_train`."""


def next_train(  # noqa: PLR0912 -- one loop, no calls: this is the hot path
    buffer: bytearray,
    start: int,
    end: int,
    source: bytes,
    mesh: bool = False,
    max_size: int = MAX_TRAIN,
) -> Scan:
    """Find what begins at `start`, and rewrite packets to come from `source`.

    Returns `(kind, stop, destination, packets)`:

    - `(PACKETS or DISCO, stop, key, n)`: n frames in `buffer[start:stop]`, now RecvPacket frames;
    - `(UNKNOWN, stop, b"", 0)`: a frame to skip, up to `stop`, which may be beyond `end`;
    - `(INCOMPLETE, start, b"", 0)`: more bytes are needed;
    - `(another Kind, stop, b"", 0)`: one whole frame of that type in `buffer[start:stop]`.

    `mesh`: the client has shown the mesh key, and may send the frames that need it. `max_size`:
    most bytes of a train of more than one frame. Raises ProtocolViolation or NotPermitted as soon
    as a header breaks a rule.
    """
    if end - start < HEADER_LENGTH:
        return INCOMPLETE, start, b"", 0
    kind, length = HEADER.unpack_from(buffer, start)
    if kind != _SEND:
        return _control(kind, start, start + HEADER_LENGTH + length, end, mesh)
    if not _MIN_LENGTH <= length <= _MAX_LENGTH:
        raise ProtocolViolation(
            f"SEND_PACKET frame of {length} bytes, expected {_MIN_LENGTH} to {_MAX_LENGTH}"
        )
    size = HEADER_LENGTH + length
    if start + size > end:
        return INCOMPLETE, start, b"", 0

    header = bytes(buffer[start : start + PACKET_OVERHEAD])
    destination = header[HEADER_LENGTH:]
    disco = length >= _MIN_DISCO_PAYLOAD and buffer.startswith(DISCO_MAGIC, start + PACKET_OVERHEAD)
    limit = end if end - start <= max_size else start + max_size
    position = start
    packets = 0
    while True:
        # Frames of one size follow each other; all that differs is the packet.
        rewritten = _RECV + header[1:HEADER_LENGTH] + source
        may_be_disco = length >= _MIN_DISCO_PAYLOAD
        while True:
            buffer[position : position + PACKET_OVERHEAD] = rewritten
            packets += 1
            position += size
            if position + size > limit or not buffer.startswith(header, position):
                break
            if (
                may_be_disco
                and buffer.startswith(DISCO_MAGIC, position + PACKET_OVERHEAD) is not disco
            ):
                return (DISCO if disco else PACKETS), position, destination, packets

        # Another size, another destination, something else, or the end.
        if position + PACKET_OVERHEAD > limit:
            break
        kind, length = HEADER.unpack_from(buffer, position)
        if kind != _SEND or not _MIN_LENGTH <= length <= _MAX_LENGTH:
            break
        size = HEADER_LENGTH + length
        if position + size > limit:
            break
        header = bytes(buffer[position : position + PACKET_OVERHEAD])
        if header[HEADER_LENGTH:] != destination:
            break
        if disco is not (
            length >= _MIN_DISCO_PAYLOAD
            and buffer.startswith(DISCO_MAGIC, position + PACKET_OVERHEAD)
        ):
            break
    return (DISCO if disco else PACKETS), position, destination, packets


def _control(kind: int, start: int, stop: int, end: int, mesh: bool) -> Scan:
    if not check_header(kind, stop - start - HEADER_LENGTH, mesh=mesh):
        return UNKNOWN, stop, b"", 0
    if stop > end:
        return INCOMPLETE, start, b"", 0
    return _CONTROL[kind], stop, b"", 0
