"""DERP frames: their types, limits, and how those that a server sends are built.

A frame is 1 byte of type, 4 bytes of payload length (big-endian), and the payload, as in Go's
`derp/derp.go`, protocol version 2.
"""

import enum
import ipaddress
import struct
from typing import Final

from derp.errors import NotPermitted, ProtocolViolation

PROTOCOL_VERSION = 2
MAGIC = "DERP🔑".encode()
"""8 bytes at the start of the ServerKey payload."""

HEADER = struct.Struct(">BI")
HEADER_LENGTH = 5
KEY_LENGTH = 32
NONCE_LENGTH = 24
PING_LENGTH = 8
MAX_PACKET_SIZE = 64 << 10
"""Bytes, without keys and header."""

PACKET_OVERHEAD = HEADER_LENGTH + KEY_LENGTH
"""Bytes of a SendPacket or RecvPacket frame that are not the packet."""
FORWARD_OVERHEAD = HEADER_LENGTH + 2 * KEY_LENGTH
"""Bytes of a ForwardPacket frame that are not the packet."""

MAX_CLIENT_INFO = 256 << 10
"""Bytes of the longest ClientInfo payload that a server reads (Go: recvClientKey)."""

DISCO_MAGIC = "TS💬".encode()
"""6 bytes at the start of every disco packet."""
MIN_DISCO_LENGTH = len(DISCO_MAGIC) + KEY_LENGTH + NONCE_LENGTH


class FrameType(enum.IntEnum):
    """The first byte of a frame; each member says what the payload is."""

    SERVER_KEY = 0x01
    """8 bytes MAGIC, 32 bytes server key, and what later versions may add."""
    CLIENT_INFO = 0x02
    """32 bytes client key, 24 bytes nonce, NaCl box of JSON."""
    SERVER_INFO = 0x03
    """24 bytes nonce, NaCl box of JSON."""
    SEND_PACKET = 0x04
    """32 bytes destination key, packet."""
    RECV_PACKET = 0x05
    """32 bytes source key, packet."""
    KEEP_ALIVE = 0x06
    """Empty."""
    NOTE_PREFERRED = 0x07
    """1 byte: 1 where this server is the client's home, else 0."""
    PEER_GONE = 0x08
    """32 bytes key, 1 byte PeerGoneReason."""
    PEER_PRESENT = 0x09
    """32 bytes key, 16 bytes IPv6 address, 2 bytes port, 1 byte flags."""
    FORWARD_PACKET = 0x0A
    """32 bytes source key, 32 bytes destination key, packet. Mesh only."""
    WATCH_CONNS = 0x10
    """Empty. Mesh only."""
    CLOSE_PEER = 0x11
    """32 bytes key. Mesh only."""
    PING = 0x12
    """8 bytes, and up to 992 more that are ignored."""
    PONG = 0x13
    """The first 8 bytes of the ping."""
    HEALTH = 0x14
    """A sentence for the user in UTF-8; empty when all is well again."""
    RESTARTING = 0x15
    """4 bytes milliseconds until the client should reconnect, 4 bytes how long it should try."""


class PeerGoneReason(enum.IntEnum):
    """The last byte of a PeerGone frame."""

    DISCONNECTED = 0x00
    NOT_HERE = 0x01


class PresentFlags(enum.IntFlag):
    """The last byte of a PeerPresent frame (Go: derp.PeerPresentFlags)."""

    REGULAR = 1 << 0
    """Set where no other flag is."""
    MESH_PEER = 1 << 1
    PROBER = 1 << 2
    NOT_IDEAL = 1 << 3
    """The peer is not at the region's node that is ideal for it."""


# The payload lengths accepted from a logged-in client, as by Go's handleFrame*.
_ACCEPTED = {
    FrameType.NOTE_PREFERRED: range(1, 2),
    FrameType.PING: range(8, 1001),
    FrameType.WATCH_CONNS: range(1),
    FrameType.CLOSE_PEER: range(KEY_LENGTH, KEY_LENGTH + 1),
    FrameType.SEND_PACKET: range(KEY_LENGTH, KEY_LENGTH + MAX_PACKET_SIZE + 1),
    FrameType.FORWARD_PACKET: range(2 * KEY_LENGTH, 2 * KEY_LENGTH + MAX_PACKET_SIZE + 1),
}
_MESH_ONLY = frozenset({FrameType.FORWARD_PACKET, FrameType.WATCH_CONNS, FrameType.CLOSE_PEER})


def check_header(kind: int, length: int, *, mesh: bool = False) -> bool:
    """Check the header of a logged-in client's frame; return whether servers act on its type.

    As Go's sclient.run. A frame of another type is to be skipped, however long. `mesh`: the client
    has shown the mesh key. Raises ProtocolViolation for a length that the type can't have, and
    NotPermitted for a frame that needs the mesh key.
    """
    accepted = _ACCEPTED.get(kind)  # type: ignore[call-overload]
    if accepted is None:
        return False
    name = FrameType(kind).name
    if length not in accepted:
        wanted = f"{accepted[0]} to {accepted[-1]}" if len(accepted) > 1 else f"{accepted[0]}"
        raise ProtocolViolation(f"{name} frame of {length} bytes, expected {wanted}")
    if kind in _MESH_ONLY and not mesh:
        raise NotPermitted(f"{name} frame from a client without the mesh key")
    return True


def frame(kind: FrameType, payload: bytes = b"") -> bytes:
    """Build one frame."""
    return HEADER.pack(kind, len(payload)) + payload


KEEP_ALIVE = frame(FrameType.KEEP_ALIVE)
WATCH_CONNS = frame(FrameType.WATCH_CONNS)


def server_key(public_key: bytes) -> bytes:
    """Build a ServerKey frame, the greeting."""
    return frame(FrameType.SERVER_KEY, MAGIC + public_key)


def peer_gone(key: bytes, reason: PeerGoneReason) -> bytes:
    """Build a PeerGone frame: `key` has left, or was never here."""
    return frame(FrameType.PEER_GONE, key + bytes((reason,)))


_PRESENT: Final = struct.Struct(">32s16sHB")
_ADDRESS_LENGTH: Final = 16
PEER_PRESENT_LENGTH: Final = _PRESENT.size
"""Bytes of a PeerPresent payload as built here."""


def peer_present(
    key: bytes, host: str, port: int, flags: PresentFlags, group: bytes = b""
) -> bytes:
    """Build a PeerPresent frame: `key` is connected, from the IP address `host`.

    An empty `host`, as of a client that came by a unix socket, is told as `::`, as in Go. A `group`
    is appended, which Go's Client.Recv ignores; see derp.relay.groups.
    """
    address = ipaddress.ip_address(host or "::")
    mapped = b"\0" * 10 + b"\xff\xff" if address.version == 4 else b""
    packed = _PRESENT.pack(key, mapped + address.packed, port, flags)
    return frame(FrameType.PEER_PRESENT, packed + group)


def group_in(present: bytes) -> bytes:
    """Return the group in the payload of a PeerPresent frame; empty if there is none."""
    return present[PEER_PRESENT_LENGTH:]


def present_address(present: bytes) -> bytes:
    """Return the 16 bytes of the address in a frame of `peer_present`."""
    start = HEADER_LENGTH + KEY_LENGTH
    return present[start : start + _ADDRESS_LENGTH]


def health(text: str) -> bytes:
    """Build a Health frame: what is wrong, or an empty text when all is well again."""
    return frame(FrameType.HEALTH, text.encode())


def pong(data: bytes) -> bytes:
    """Build the Pong frame for a ping whose first 8 bytes are `data`."""
    return frame(FrameType.PONG, data)


def restarting(reconnect_in_ms: int, try_for_ms: int) -> bytes:
    """Build a Restarting frame; see FrameType."""
    return frame(FrameType.RESTARTING, struct.pack(">II", reconnect_in_ms, try_for_ms))
