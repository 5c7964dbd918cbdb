"""Another relay, played at the far end of memory transports; it shares no code with the server."""

import json
import struct

import nacl.public
import trio

from tests.memory_transport import PATIENCE, MemoryTransport, memory_pair
from tests.peers import FORWARD, GONE, PING, PONG, PRESENT, RESTARTING, WATCH, Peer, frame
from tests.support.derp import MAGIC


def present(key: bytes) -> bytes:
    return frame(PRESENT, key + bytes(10) + b"\xff\xff\xc0\x00\x02\x01" + b"\x01\xbb" + b"\x01")


def gone(key: bytes, reason: int = 0) -> bytes:
    return frame(GONE, key + bytes((reason,)))


def restarting(milliseconds: int) -> bytes:
    return frame(RESTARTING, struct.pack(">II", milliseconds, 10_000))


class Call(Peer):
    """One connection to the other relay; `greet` comes first."""

    def __init__(self, end: MemoryTransport, key: nacl.public.PrivateKey) -> None:
        super().__init__(end, key)
        self.caller = b""
        self.info: dict[str, object] = {}

    async def greet(self) -> "Call":
        """Say who this is, and hear who the caller is: its info, its wish to watch, its ping."""
        await self.send(0x01, MAGIC + self.key)
        kind, payload = await self.receive()
        assert kind == 0x02
        self.caller = payload[:32]
        message = self.box.decrypt(payload[32:])
        self.info = json.loads(message)
        assert await self.receive() == (WATCH, b"")
        assert (await self.receive())[0] == PING
        return self

    async def welcome(self, *present: bytes, extra: bytes = b"") -> "Call":
        """Let the caller in, and answer its ping; `present` frames come before that."""
        sealed = bytes(self.box.encrypt(b'{"version":2}'))
        answer = frame(0x03, sealed) + b"".join(present) + frame(PONG, bytes(8)) + extra
        await self.end.send(answer)
        return self

    @property
    def box(self) -> nacl.public.Box:
        return self.box_for(self.caller)

    async def forwarded(self) -> tuple[bytes, bytes, bytes]:
        """Return source, destination and packet of the next frame."""
        kind, payload = await self.receive()
        assert kind == FORWARD, f"frame of type {kind:#x}"
        return payload[:32], payload[32:64], payload[64:]

    def hang_up(self) -> None:
        self.end.close()


class OtherRelay:
    """Takes the calls of a link's keeper, in place of derp.mesh.dial."""

    def __init__(self, key: nacl.public.PrivateKey | None = None, capacity: int = 1 << 20) -> None:
        self.private = key or nacl.public.PrivateKey.generate()
        self.key = bytes(self.private.public_key)
        self.calls = 0
        self.capacity = capacity
        self.failures: list[Exception] = []
        """Raised for the next calls, one each."""
        self._to_test, self._calls = trio.open_memory_channel[Call](100)

    async def connect(self) -> tuple[MemoryTransport, bytes]:
        await trio.lowlevel.checkpoint()
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)
        here, there = memory_pair(capacity=self.capacity)
        self._to_test.send_nowait(Call(there, self.private))
        return here, b""

    async def call(self) -> Call:
        """Wait for the next call."""
        with trio.fail_after(PATIENCE):
            return await self._calls.receive()
