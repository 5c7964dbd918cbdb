"""A DERP client for tests, over any end of a Transport; it shares no code with the server."""

import json
import struct
from typing import Any

import nacl.public

from tests.memory_transport import MemoryTransport

SEND, RECV, KEEP_ALIVE, PREFERRED, GONE, PING, PONG, RESTARTING = (
    0x04,
    0x05,
    0x06,
    0x07,
    0x08,
    0x12,
    0x13,
    0x15,
)
PRESENT, FORWARD, WATCH, CLOSE = 0x09, 0x0A, 0x10, 0x11


class Peer:
    """One end of a DERP connection; `log_in` comes first."""

    def __init__(self, end: MemoryTransport, key: nacl.public.PrivateKey | None = None) -> None:
        self.end = end
        self.private = key or nacl.public.PrivateKey.generate()
        self.key = bytes(self.private.public_key)
        self.server_key = b""
        self.server_info: dict[str, Any] = {}
        self._received = b""

    def client_info(self, server_key: bytes, **info: object) -> bytes:
        box = nacl.public.Box(self.private, nacl.public.PublicKey(server_key))
        sealed = bytes(box.encrypt(json.dumps({"version": 2, **info}).encode()))
        return frame(0x02, self.key + sealed)

    async def log_in(self, behind: bytes = b"", **info: object) -> "Peer":
        """Log in, sending `behind` together with the client info."""
        kind, payload = await self.receive()
        assert kind == 0x01
        assert payload[:8] == bytes.fromhex("44455250f09f9491")
        self.server_key = payload[8:]
        await self.end.send(self.client_info(self.server_key, **info) + behind)
        kind, payload = await self.receive()
        assert kind == 0x03
        box = nacl.public.Box(self.private, nacl.public.PublicKey(self.server_key))
        self.server_info = json.loads(box.decrypt(payload))
        return self

    async def send(self, kind: int, payload: bytes = b"") -> None:
        await self.end.send(frame(kind, payload))

    async def send_packet(self, to: bytes, packet: bytes) -> None:
        await self.send(SEND, to + packet)

    async def receive(self) -> tuple[int, bytes]:
        """Return the type and the payload of the next frame; EOFError at the end."""
        while len(self._received) < 5 or len(self._received) < 5 + self._length:
            data = await self.end.receive()
            if not data:
                raise EOFError
            self._received += data
        kind, length = self._received[0], self._length
        payload, self._received = self._received[5 : 5 + length], self._received[5 + length :]
        return kind, payload

    async def receive_packet(self) -> tuple[bytes, bytes]:
        """Return source and packet of the next frame, which has to be a packet."""
        kind, payload = await self.receive()
        assert kind == RECV, f"frame of type {kind:#x}"
        return payload[:32], payload[32:]

    async def ping(self, data: bytes = b"12345678") -> None:
        """Wait until the server has acted on all that was sent; nothing else may come meanwhile."""
        await self.send(PING, data)
        assert await self.receive() == (PONG, data)

    @property
    def _length(self) -> int:
        (length,) = struct.unpack(">I", self._received[1:5])
        assert isinstance(length, int)
        return length


def frame(kind: int, payload: bytes) -> bytes:
    return struct.pack(">BI", kind, len(payload)) + payload


def disco(size: int = 100) -> bytes:
    """Make a packet that looks like one of Tailscale's path discovery."""
    return bytes.fromhex("5453f09f92ac") + bytes(size - 6)
