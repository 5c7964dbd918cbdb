"""Connections with the two methods that a Peer needs, and the way there."""

import trio
import trio_websocket

from tests.patience import PATIENCE
from tests.support.derp import UPGRADE, upgrade_request


class StreamEnd:
    """A Trio stream."""

    def __init__(self, stream: trio.abc.Stream, patience: float = PATIENCE) -> None:
        self._stream = stream
        self._patience = patience

    async def send(self, data: bytes) -> None:
        await self._stream.send_all(data)

    async def receive(self) -> bytes:
        with trio.fail_after(self._patience):
            return bytes(await self._stream.receive_some(1 << 16))


class WebSocketEnd:
    """A websocket."""

    def __init__(self, websocket: trio_websocket.WebSocketConnection) -> None:
        self._websocket = websocket

    async def send(self, data: bytes) -> None:
        await self._websocket.send_message(data)

    async def receive(self) -> bytes:
        message = await self._websocket.get_message()
        assert isinstance(message, bytes)
        return message


async def upgrade(stream: trio.abc.Stream) -> bytes:
    """Ask for DERP; return the head of the answer, behind which nothing is read."""
    with trio.fail_after(PATIENCE):
        await stream.send_all(upgrade_request(*UPGRADE))
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            data = bytes(await stream.receive_some(1))
            assert data, "the relay has closed the connection"
            answer += data
        return answer
