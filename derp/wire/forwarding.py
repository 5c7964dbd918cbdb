"""Trains of ForwardPacket frames, built and parsed: packets that take a second relay.

    SendPacket / RecvPacket   type 1, length 4, key 32,                    packet
    ForwardPacket             type 1, length 4, source 32, destination 32, packet

The frames differ in length, so a train (derp.wire.trains) can't be rewritten in place: it is copied
once, in one `join`. As between clients, consecutive frames stay together: one look-up, one write.

Invariants: only whole frames are touched; the frames of a train have one source and one
destination, and are all disco packets or all not.
"""

from typing import Final

from derp.wire.frames import (
    DISCO_MAGIC,
    FORWARD_OVERHEAD,
    HEADER,
    HEADER_LENGTH,
    KEY_LENGTH,
    MAX_PACKET_SIZE,
    MIN_DISCO_LENGTH,
    PACKET_OVERHEAD,
    FrameType,
)
from derp.wire.trains import MAX_TRAIN, Train

_RECV: Final = int(FrameType.RECV_PACKET)
_FORWARD: Final = int(FrameType.FORWARD_PACKET)
_MIN_LENGTH: Final = 2 * KEY_LENGTH
_MAX_LENGTH: Final = 2 * KEY_LENGTH + MAX_PACKET_SIZE
_MIN_DISCO_PAYLOAD: Final = 2 * KEY_LENGTH + MIN_DISCO_LENGTH

Forwarded = tuple[int, bytes, bytes, int, bytes, bool]
"""The result of `next_forwarded`."""


def forward_frames(train: Train, packets: int, destination: bytes) -> bytes:
    """Turn `packets` RecvPacket frames of one source into ForwardPacket frames to `destination`."""
    pieces: list[bytes | memoryview] = []
    position = previous = 0
    header = b""
    keys = bytes(train[HEADER_LENGTH:PACKET_OVERHEAD]) + destination
    for _ in range(packets):
        length: int = HEADER.unpack_from(train, position)[1]
        if length != previous:
            previous = length
            header = HEADER.pack(_FORWARD, length + KEY_LENGTH) + keys
        stop = position + HEADER_LENGTH + length
        pieces += (header, train[position + PACKET_OVERHEAD : stop])
        position = stop
    return b"".join(pieces)


def next_forwarded(
    buffer: bytes | bytearray, start: int, end: int, max_size: int = MAX_TRAIN
) -> Forwarded:
    """Turn the train of whole ForwardPacket frames at `start` into RecvPacket frames.

    Returns `(stop, source, destination, packets, train, disco)`: `train` replaces
    `buffer[start:stop]`. `max_size` as for trains.next_train.
    """
    view = memoryview(buffer)
    header = bytes(view[start : start + FORWARD_OVERHEAD])
    keys = header[HEADER_LENGTH:]
    source, destination = keys[:KEY_LENGTH], keys[KEY_LENGTH:]
    limit = end if end - start <= max_size else start + max_size
    length: int = HEADER.unpack_from(header)[1]
    disco = _is_disco(buffer, start, length)
    pieces: list[bytes | memoryview] = []
    position = start
    while True:
        # Frames of one size follow each other; all that differs is the packet.
        size = HEADER_LENGTH + length
        rewritten = HEADER.pack(_RECV, length - KEY_LENGTH) + source
        while True:
            pieces += (rewritten, view[position + FORWARD_OVERHEAD : position + size])
            position += size
            if (
                position + size > limit
                or not buffer.startswith(header, position)
                or _is_disco(buffer, position, length) is not disco
            ):
                break

        # Another size, another source or destination, something else, or the end.
        if position + FORWARD_OVERHEAD > limit:
            break
        kind, length = HEADER.unpack_from(buffer, position)
        if (
            kind != _FORWARD
            or not _MIN_LENGTH <= length <= _MAX_LENGTH
            or position + HEADER_LENGTH + length > limit
            or not buffer.startswith(keys, position + HEADER_LENGTH)
            or _is_disco(buffer, position, length) is not disco
        ):
            break
        header = bytes(view[position : position + FORWARD_OVERHEAD])
    return position, source, destination, len(pieces) // 2, b"".join(pieces), disco


def _is_disco(buffer: bytes | bytearray, position: int, length: int) -> bool:
    return length >= _MIN_DISCO_PAYLOAD and buffer.startswith(
        DISCO_MAGIC, position + FORWARD_OVERHEAD
    )
