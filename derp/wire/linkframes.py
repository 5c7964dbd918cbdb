"""The frames from another relay over a link, as far as the link acts on them.

Only presence, pings and restarts are acted on. Other frames are skipped and not kept; packets come
only if a client sends them to this relay's own key. A frame too short or too long for its type is
skipped and counted (Go: Client.recvTimeout drops short ones); the link goes on.

Between workers of one relay a PeerPresent frame ends with the sending worker's claim to the key
(derp.relay.claims): 12 bytes, big-endian.
"""

from collections.abc import Iterator
from typing import Final

from derp.errors import ProtocolViolation
from derp.wire.frames import (
    HEADER,
    HEADER_LENGTH,
    KEY_LENGTH,
    PEER_PRESENT_LENGTH,
    PING_LENGTH,
    FrameType,
    frame,
)

MAX_FRAME: Final = 1 << 20
"""Bytes of the longest payload that is skipped (Go: Client.recvTimeout)."""
MAX_KEPT: Final = 1000
"""Bytes of the longest payload that is acted on: room for what later versions may add."""

_RESTARTING_LENGTH: Final = 8
_CLAIM_LENGTH: Final = 12
_KEPT: Final = {
    int(kind): range(shortest, MAX_KEPT + 1)
    for kind, shortest in (
        (FrameType.PEER_GONE, KEY_LENGTH),
        (FrameType.PEER_PRESENT, KEY_LENGTH),
        (FrameType.PING, PING_LENGTH),
        (FrameType.RESTARTING, _RESTARTING_LENGTH),
    )
}


def with_claim(present: bytes, claim: int) -> bytes:
    """Append a claim to a PeerPresent frame, for another worker."""
    payload = present[HEADER_LENGTH:]
    return frame(FrameType.PEER_PRESENT, payload + claim.to_bytes(_CLAIM_LENGTH, "big"))


def split_claim(payload: bytes) -> tuple[bytes, int]:
    """Split the payload of a frame of `with_claim`; return the plain frame, and the claim."""
    cut = max(PEER_PRESENT_LENGTH, len(payload) - _CLAIM_LENGTH)
    return frame(FrameType.PEER_PRESENT, payload[:cut]), int.from_bytes(payload[cut:], "big")


class LinkFrames:
    """The parser of a link's bytes, however they are split."""

    __slots__ = ("_skip", "_tail", "malformed")

    def __init__(self) -> None:
        self.malformed = 0
        """The number of frames skipped for their length, though their type is acted on."""
        # The beginning of an incomplete frame, and how many bytes of a frame are still to skip.
        self._tail = b""
        self._skip = 0

    @property
    def in_frame(self) -> bool:
        """Whether the stream is in the middle of a frame."""
        return bool(self._tail or self._skip)

    def feed(self, data: bytes | memoryview) -> Iterator[tuple[int, bytes]]:
        """Yield (type, payload) of each frame that `data` completes; the caller must exhaust it.

        Raises ProtocolViolation at a frame longer than MAX_FRAME, after yielding those before it.
        """
        skipped = min(self._skip, len(data))
        self._skip -= skipped
        received = self._tail + bytes(data[skipped:])
        position = 0
        while len(received) - position >= HEADER_LENGTH:
            kind, length = HEADER.unpack_from(received, position)
            stop = position + HEADER_LENGTH + length
            if length not in _KEPT.get(kind, ()):
                if length > MAX_FRAME:
                    raise ProtocolViolation(
                        f"frame of {length} bytes, expected {MAX_FRAME} or less"
                    )
                self.malformed += kind in _KEPT
                if stop > len(received):
                    self._skip = stop - len(received)
                    stop = len(received)
            elif stop > len(received):
                break
            else:
                yield kind, received[position + HEADER_LENGTH : stop]
            position = stop
        self._tail = received[position:]
