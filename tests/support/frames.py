"""Frames as a client or a watcher reads and writes them, spelled out from derp.go."""

import ipaddress

import attrs

from derp.wire.frames import DISCO_MAGIC, MIN_DISCO_LENGTH, FrameType, PresentFlags, frame


def looks_like_disco(packet: bytes | bytearray | memoryview) -> bool:
    """Whether a packet is a path-discovery message (Go: LooksLikeDiscoWrapper).

    Such a packet is 6 bytes DISCO_MAGIC, 32 bytes sender key, 24 bytes nonce, NaCl box.
    """
    return len(packet) >= MIN_DISCO_LENGTH and packet[: len(DISCO_MAGIC)] == DISCO_MAGIC


def recv_packet(source: bytes, packet: bytes) -> bytes:
    """Build the frame that hands `packet` from the client `source` to another."""
    return frame(FrameType.RECV_PACKET, source + packet)


@attrs.frozen
class Present:
    """What a PeerPresent frame tells (Go: derp.PeerPresentMessage)."""

    key: bytes
    host: str
    port: int
    flags: PresentFlags


def parse_peer_present(payload: bytes) -> Present:
    """Read a PeerPresent payload: key 32, address 16, port 2, flags 1, and what comes later."""
    address = ipaddress.IPv6Address(payload[32:48])
    port = int.from_bytes(payload[48:50])
    return Present(
        payload[:32], str(address.ipv4_mapped or address), port, PresentFlags(payload[50])
    )
