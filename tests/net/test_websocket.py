"""The websocket transport, with trio-websocket as the client, over a memory transport."""

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio_websocket

from derp.errors import HTTPFailed, PeerVanished
from derp.net import websocket
from derp.net.websocket import HANDSHAKE_TIMEOUT, MESSAGE_SIZE, ReplayStream, WebSocketTransport
from tests.memory_transport import MemoryTransport, memory_pair

Client = Callable[[trio_websocket.WebSocketConnection], Awaitable[None]]


async def read_head(end: MemoryTransport) -> bytes:
    head = b""
    buffer = memoryview(bytearray(1))
    while not head.endswith(b"\r\n\r\n"):
        await end.wait_readable()
        count = end.read_into(buffer)
        assert count >= 0
        head += buffer[:count]
    return head


async def converse(
    client: Client, server: Callable[[WebSocketTransport], Awaitable[None]], **options: object
) -> None:
    """Run both sides of an accepted websocket to their ends."""
    here, there = memory_pair()

    async def client_task() -> None:
        stream = ReplayStream(here, b"")
        stream.opened.set()
        async with trio.open_nursery() as nursery:
            connection = await trio_websocket.wrap_client_stream(
                nursery, stream, "relay", "/derp", subprotocols=["derp"]
            )
            await client(connection)
            nursery.cancel_scope.cancel()
        await here.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(client_task)
        head = await read_head(there)
        async with websocket.accept(there, head, b"") as transport:
            await server(transport)


async def read(transport: WebSocketTransport, size: int) -> bytes:
    received = b""
    view = memoryview(bytearray(1000))
    while len(received) < size:
        await transport.wait_readable()
        count = transport.read_into(view)
        assert count >= 0
        received += view[:count]
    return received


async def test_messages_are_a_stream_of_bytes() -> None:
    async def client(connection: trio_websocket.WebSocketConnection) -> None:
        for message in (b"a", b"", b"b" * 5000):
            await connection.send_message(message)
        answer = b""
        while len(answer) < 100_000:
            message = await connection.get_message()
            assert isinstance(message, bytes)
            assert len(message) <= MESSAGE_SIZE
            answer += message
        assert answer == bytes(range(250)) * 400

    async def server(transport: WebSocketTransport) -> None:
        assert await read(transport, 5001) == b"a" + b"b" * 5000
        buffer = bytearray(bytes(range(250)) * 400)
        transport.write(buffer)
        buffer[:] = bytes(len(buffer))
        assert transport.unsent == 100_000
        await transport.flush()
        assert transport.unsent == 0
        await transport.wait_readable()

    await converse(client, server)


async def test_the_clients_close_is_the_end() -> None:
    async def client(connection: trio_websocket.WebSocketConnection) -> None:
        await connection.aclose()

    async def server(transport: WebSocketTransport) -> None:
        for _ in range(2):
            await transport.wait_readable()
            assert transport.read_into(memoryview(bytearray(10))) == -1
        transport.write(b"too late")
        with pytest.raises(PeerVanished):
            await transport.flush()

    await converse(client, server)


async def test_our_close_is_a_close_message() -> None:
    async def client(connection: trio_websocket.WebSocketConnection) -> None:
        with pytest.raises(trio_websocket.ConnectionClosed) as caught:
            await connection.get_message()
        assert caught.value.reason is not None
        assert caught.value.reason.code == 1000

    async def server(transport: WebSocketTransport) -> None:
        await transport.aclose()

    await converse(client, server)


async def test_a_text_message_is_refused() -> None:
    async def client(connection: trio_websocket.WebSocketConnection) -> None:
        await connection.send_message("text")
        with pytest.raises(trio_websocket.ConnectionClosed):
            await connection.get_message()

    async def server(transport: WebSocketTransport) -> None:
        try:
            with pytest.raises(HTTPFailed, match="is text"):
                await transport.wait_readable()
        finally:
            transport.abort()

    await converse(client, server)


async def test_a_message_too_large_is_the_end() -> None:
    async def client(connection: trio_websocket.WebSocketConnection) -> None:
        await connection.send_message(bytes(websocket.MAX_MESSAGE + 1))
        with pytest.raises(trio_websocket.ConnectionClosed):
            await connection.get_message()

    async def server(transport: WebSocketTransport) -> None:
        await transport.wait_readable()
        assert transport.read_into(memoryview(bytearray(10))) == -1

    await converse(client, server)


REQUEST = (
    b"GET /derp HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: %s\r\n\r\n"
)


async def test_what_was_read_behind_the_request_is_not_lost() -> None:
    here, there = memory_pair()
    await here.send(masked(b"later"))
    async with websocket.accept(there, REQUEST % b"derp", masked(b"early")) as transport:
        assert await read(transport, 10) == b"earlylater"
        assert (await here.receive()).startswith(b"HTTP/1.1 101 ")


def masked(payload: bytes) -> bytes:
    """Build a client's short binary message, masked with zeros."""
    return bytes((0x82, 0x80 | len(payload), 0, 0, 0, 0)) + payload


async def test_many_messages_are_not_taken_for_an_unfinished_one() -> None:
    async def client(connection: trio_websocket.WebSocketConnection) -> None:
        for _ in range(20):
            await connection.send_message(bytes(50_000))

    async def server(transport: WebSocketTransport) -> None:
        await read(transport, 1_000_000)

    await converse(client, server)


async def test_fragments_without_end_are_the_end() -> None:
    here, there = memory_pair()
    fragment = bytes((0x00, 0x80, 0, 0, 0, 0))

    async def flood() -> None:
        await here.send(bytes((0x02, 0x80, 0, 0, 0, 0)))
        while True:
            await here.send(fragment * 5000)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(flood)
        with pytest.raises(HTTPFailed, match="too many pieces"):
            async with websocket.accept(there, REQUEST % b"derp", b"") as transport:
                await transport.wait_readable()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "request_head",
    [
        REQUEST % b"derp, \xe9",
        (REQUEST % b"derp").replace(b"Connection: ", b"Connection: \xff, "),
        (REQUEST % b"derp").replace(b"Host: x", b"Host: xn--a..b"),
        (REQUEST % b"derp").replace(b"Version: 13", b"Version: 12"),
    ],
)
async def test_a_head_that_can_not_be_understood_is_refused(
    request_head: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    _here, there = memory_pair()
    with pytest.raises((HTTPFailed, PeerVanished)):
        async with websocket.accept(there, request_head, b""):
            raise AssertionError


async def test_why_the_stream_below_broke_is_told() -> None:
    here, there = memory_pair()
    async with websocket.accept(there, REQUEST % b"derp", b"") as transport:
        here.abort()
        with pytest.raises(PeerVanished):
            await transport.wait_readable()


async def test_another_subprotocol_is_refused() -> None:
    here, there = memory_pair()
    with pytest.raises(HTTPFailed, match="without the subprotocol derp"):
        async with websocket.accept(there, REQUEST % b"derpy", b""):
            raise AssertionError
    assert (await here.receive()).startswith(b"HTTP/1.1 400 ")


async def test_a_handshake_that_comes_to_nothing_has_a_deadline(
    autojump_clock: trio.testing.MockClock,
) -> None:
    _here, there = memory_pair()
    start = trio.current_time()
    with pytest.raises(HTTPFailed, match="no websocket handshake within 10 s"):
        async with websocket.accept(there, b"GET /derp HTTP/1.1\r\n", b""):
            raise AssertionError
    assert trio.current_time() - start == pytest.approx(HANDSHAKE_TIMEOUT, abs=0.1)


async def test_leaving_during_the_handshake(autojump_clock: trio.testing.MockClock) -> None:
    here, there = memory_pair()
    here.abort()
    with pytest.raises((HTTPFailed, PeerVanished)):
        async with websocket.accept(there, b"GET /derp HTTP/1.1\r\n", b""):
            raise AssertionError


async def test_what_the_body_raises_comes_out_as_it_is() -> None:
    _here, there = memory_pair()
    with pytest.raises(PeerVanished, match="gone"):
        async with websocket.accept(there, REQUEST % b"derp", b""):
            raise PeerVanished("gone")
