"""DERP as clients and relays speak it, without I/O; it shares no code with the relay.

Frames and boxes are made here, from the protocol's description, with PyNaCl. What drives this over
a connection: tests/peers.py (Trio), tests/interop/rawderp.py (blocking sockets).
"""

import json
import struct
from typing import Any

import nacl.public

MAGIC = "DERP🔑".encode()
NONCE_LENGTH = 24

SERVER_KEY = 0x01
CLIENT_INFO = 0x02
SERVER_INFO = 0x03
SEND_PACKET = 0x04
RECV_PACKET = 0x05
KEEP_ALIVE = 0x06
NOTE_PREFERRED = 0x07
PEER_GONE = 0x08
PEER_PRESENT = 0x09
FORWARD_PACKET = 0x0A
WATCH_CONNS = 0x10
CLOSE_PEER = 0x11
PING = 0x12
PONG = 0x13
HEALTH = 0x14
RESTARTING = 0x15

HEADER = struct.Struct(">BI")

UPGRADE = ("Upgrade: DERP", "Connection: Upgrade")
FAST_START = "Derp-Fast-Start: 1"


def upgrade_request(*headers: str, path: str = "/derp", host: str = "localhost") -> bytes:
    """Build what derphttp sends, or with other headers than those."""
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def frame(kind: int, payload: bytes = b"") -> bytes:
    return HEADER.pack(kind, len(payload)) + payload


class Frames:
    """Frames out of bytes as they come."""

    def __init__(self) -> None:
        self.buffer = b""

    def feed(self, data: bytes) -> None:
        self.buffer += data

    def next(self) -> tuple[int, bytes] | None:
        """Return type and payload of the next frame, if all of it has come."""
        if len(self.buffer) < HEADER.size:
            return None
        kind, length = HEADER.unpack_from(self.buffer)
        end = HEADER.size + length
        if len(self.buffer) < end:
            return None
        payload, self.buffer = self.buffer[HEADER.size : end], self.buffer[end:]
        return kind, payload


class Node:
    """A client with its key: what it sends to log in, and what it reads of the answer."""

    def __init__(self, key: nacl.public.PrivateKey | None = None) -> None:
        self.private = key or nacl.public.PrivateKey.generate()
        self.key = bytes(self.private.public_key)
        self.frames = Frames()

    def box_for(self, other: bytes) -> nacl.public.Box:
        return nacl.public.Box(self.private, nacl.public.PublicKey(other))

    def client_info(self, server_key: bytes, **info: object) -> bytes:
        """Build the frame that a client logs in with."""
        message = json.dumps({"version": 2, **info}).encode()
        return frame(CLIENT_INFO, self.key + bytes(self.box_for(server_key).encrypt(message)))

    def open_server_info(self, server_key: bytes, payload: bytes) -> dict[str, Any]:
        info: dict[str, Any] = json.loads(self.box_for(server_key).decrypt(payload))
        return info
