"""A DERP client for tests, over any end of a Transport; it shares no code with the server."""

from typing import Any

import nacl.public

from tests.support import derp
from tests.support.derp import (  # noqa: F401 -- for those who have a Peer
    KEEP_ALIVE,
    MAGIC,
    PING,
    PONG,
    RESTARTING,
    SERVER_INFO,
    SERVER_KEY,
    Node,
    frame,
)

SEND, RECV = derp.SEND_PACKET, derp.RECV_PACKET
PREFERRED, GONE, PRESENT = derp.NOTE_PREFERRED, derp.PEER_GONE, derp.PEER_PRESENT
FORWARD, WATCH, CLOSE = derp.FORWARD_PACKET, derp.WATCH_CONNS, derp.CLOSE_PEER


class Peer(Node):
    """One end of a DERP connection; `log_in` comes first.

    `end` is a MemoryTransport, or has the same `send` and `receive` (tests/support/ends.py).
    """

    def __init__(self, end: Any, key: nacl.public.PrivateKey | None = None) -> None:
        super().__init__(key)
        self.end = end
        self.server_key = b""
        self.server_info: dict[str, Any] = {}

    async def log_in(self, behind: bytes = b"", **info: object) -> "Peer":
        """Log in, sending `behind` together with the client info."""
        kind, payload = await self.receive()
        assert kind == SERVER_KEY
        assert payload[:8] == MAGIC
        self.server_key = payload[8:]
        await self.end.send(self.client_info(self.server_key, **info) + behind)
        kind, payload = await self.receive()
        assert kind == SERVER_INFO
        self.server_info = self.open_server_info(self.server_key, payload)
        return self

    async def send(self, kind: int, payload: bytes = b"") -> None:
        await self.end.send(frame(kind, payload))

    async def send_packet(self, to: bytes, packet: bytes) -> None:
        await self.send(SEND, to + packet)

    async def receive(self) -> tuple[int, bytes]:
        """Return the type and the payload of the next frame; EOFError at the end."""
        while (found := self.frames.next()) is None:
            data = await self.end.receive()
            if not data:
                raise EOFError
            self.frames.feed(bytes(data))
        return found

    async def receive_packet(self) -> tuple[bytes, bytes]:
        """Return source and packet of the next frame, which has to be a packet."""
        kind, payload = await self.receive()
        assert kind == RECV, f"frame of type {kind:#x}"
        return payload[:32], payload[32:]

    async def ping(self, data: bytes = b"12345678") -> None:
        """Wait until the server has acted on all that was sent; nothing else may come meanwhile."""
        await self.send(PING, data)
        assert await self.receive() == (PONG, data)


def disco(size: int = 100) -> bytes:
    """Make a packet that looks like one of Tailscale's path discovery."""
    return bytes.fromhex("5453f09f92ac") + bytes(size - 6)
