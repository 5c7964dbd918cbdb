"""The websocket transport over a memory transport, with trio-websocket as the client or by hand."""

import gc
import ssl
import struct
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio_websocket

from derp.errors import HTTPFailed, PeerVanished
from derp.net import websocket
from derp.net.poller import Poller
from derp.net.tlsengine import TLSEngine
from derp.net.websocket import HANDSHAKE_TIMEOUT, WebSocketTransport
from derp.wire.websocket import MAX_FRAMES, MAX_MESSAGE, MESSAGE_SIZE, SHORT_SLICE
from tests.memory_transport import MemoryTransport, memory_pair
from tests.net.tls_peer import Sockets, connected

Client = Callable[[trio_websocket.WebSocketConnection], Awaitable[None]]

REQUEST = (
    b"GET /derp HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: %s\r\n\r\n"
)
AT_A_TIME = MAX_FRAMES + SHORT_SLICE // 6
"""Frames parsed in one read at most."""
BINARY, TEXT, CLOSE, PING, PONG = 0x82, 0x81, 0x88, 0x89, 0x8A


class Stream(trio.abc.Stream):
    """A client's end as a Trio stream."""

    def __init__(self, end: MemoryTransport) -> None:
        self._end = end

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        try:
            return await self._end.receive()
        except PeerVanished as error:
            raise trio.BrokenResourceError from error

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        try:
            await self._end.send(bytes(data))
        except PeerVanished as error:
            raise trio.BrokenResourceError from error

    async def wait_send_all_might_not_block(self) -> None:
        await self._end.flush()

    async def aclose(self) -> None:
        await self._end.aclose()


async def read_head(end: MemoryTransport) -> bytes:
    head = b""
    buffer = memoryview(bytearray(1))
    while not head.endswith(b"\r\n\r\n"):
        await end.wait_readable()
        count = end.read_into(buffer)
        assert count >= 0
        head += buffer[:count]
    return head


async def converse(client: Client, server: Callable[[WebSocketTransport], Awaitable[None]]) -> None:
    """Run both sides of an accepted websocket to their ends."""
    here, there = memory_pair()

    async def client_task() -> None:
        async with trio.open_nursery() as nursery:
            connection = await trio_websocket.wrap_client_stream(
                nursery, Stream(here), "relay", "/derp", subprotocols=["derp"]
            )
            await client(connection)
            nursery.cancel_scope.cancel()
        await here.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(client_task)
        head = await read_head(there)
        await server(await websocket.accept(there, head, b""))


async def accepted(
    *, behind: bytes = b"", capacity: int = 1 << 20
) -> tuple[MemoryTransport, MemoryTransport, WebSocketTransport]:
    """Return the client's end, the server's, and the websocket on that; the 101 has been read."""
    here, there = memory_pair(capacity=capacity)
    answer = b""
    async with trio.open_nursery() as nursery:

        async def take_answer() -> None:
            nonlocal answer
            while not answer.endswith(b"\r\n\r\n"):
                answer += await here.receive()

        nursery.start_soon(take_answer)
        transport = await websocket.accept(there, REQUEST % b"derp", behind)
    assert answer.startswith(b"HTTP/1.1 101 ")
    return here, there, transport


async def read(transport: WebSocketTransport, size: int) -> bytes:
    received = b""
    view = memoryview(bytearray(1000))
    while len(received) < size:
        await transport.wait_readable()
        count = transport.read_into(view)
        assert count >= 0
        received += view[:count]
    return received


def masked(payload: bytes, first: int = BINARY) -> bytes:
    """Build a client's frame, masked with zeros."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else struct.pack(">BH", 0xFE, size)
    return bytes([first]) + length + bytes(4) + payload


def close_frame(code: int) -> bytes:
    return b"\x88\x02" + code.to_bytes(2, "big")


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
        await transport.flush()
        assert transport.buffered == 0

    await converse(client, server)


async def test_a_long_message_is_taken_and_a_longer_one_is_the_end() -> None:
    async def client(connection: trio_websocket.WebSocketConnection) -> None:
        await connection.send_message(bytes(MAX_MESSAGE))
        await connection.send_message(bytes(MAX_MESSAGE + 1))
        with pytest.raises(trio_websocket.ConnectionClosed) as caught:
            await connection.get_message()
        assert caught.value.reason is not None
        assert caught.value.reason.code == 1009

    async def server(transport: WebSocketTransport) -> None:
        assert await read(transport, MAX_MESSAGE) == bytes(MAX_MESSAGE)
        with pytest.raises(HTTPFailed, match=r"breaks a rule of websockets: .* 131072 bytes"):
            await read(transport, 1)
        transport.close()

    await converse(client, server)


async def test_what_is_kept_of_a_frame_is_held() -> None:
    here, _there, transport = await accepted()
    await here.send(masked(bytes(1000))[:-1])
    assert transport.read_into(memoryview(bytearray(2000))) == 0
    assert transport.held == 999
    await here.send(masked(bytes(1000))[-1:])
    assert transport.read_into(memoryview(bytearray(600))) == 600
    assert transport.held == 400


async def test_what_is_not_taken_is_unsent_until_flushed() -> None:
    here, _there, transport = await accepted(capacity=1000)
    taken = transport.bytes_written
    transport.write(b"x" * 1500)
    assert transport.buffered == 504
    assert transport.bytes_written - taken == 1000
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transport.flush)
        received = b""
        while len(received) < 1504:
            received += await here.receive()
    assert received == b"\x82\x7e\x05\xdc" + b"x" * 1500
    assert transport.buffered == 0
    assert transport.bytes_written - taken == 1504


async def test_nothing_is_written_for_nothing() -> None:
    _here, _there, transport = await accepted()
    taken = transport.bytes_written
    transport.write(b"")
    assert transport.bytes_written == taken


async def test_the_clients_close_is_answered_and_is_the_end() -> None:
    async def client(connection: trio_websocket.WebSocketConnection) -> None:
        await connection.aclose(3456, "enough")

    async def server(transport: WebSocketTransport) -> None:
        for _ in range(2):
            await transport.wait_readable()
            assert transport.read_into(memoryview(bytearray(100))) == -1
        with pytest.raises(PeerVanished):
            transport.write(b"too late")
        transport.close()

    await converse(client, server)


@pytest.mark.parametrize("payload", [b"", b"\x03\xe8", b"\x03\xe9going"])
async def test_the_answer_to_a_close_comes_behind_the_answers_to_what_was_before(
    payload: bytes,
) -> None:
    here, _there, transport = await accepted()
    await here.send(masked(b"last") + masked(payload, CLOSE) + b"junk")
    assert await read(transport, 4) == b"last"
    transport.write(b"answer")
    await transport.wait_readable()
    assert transport.read_into(memoryview(bytearray(10))) == -1
    transport.close()
    expected = b"\x82\x06answer" + bytes((CLOSE, len(payload))) + payload
    assert await here.receive_all() == expected


async def test_our_close_is_a_close_message() -> None:
    async def client(connection: trio_websocket.WebSocketConnection) -> None:
        with pytest.raises(trio_websocket.ConnectionClosed) as caught:
            await connection.get_message()
        assert caught.value.reason is not None
        assert caught.value.reason.code == 1000

    async def server(transport: WebSocketTransport) -> None:
        transport.close()

    await converse(client, server)


async def test_to_close_waits_for_nobody(autojump_clock: trio.testing.MockClock) -> None:
    _here, there, transport = await accepted(capacity=1000)
    transport.write(bytes(1500))
    start = trio.current_time()
    transport.close()
    assert trio.current_time() == start
    assert there.closed


async def test_to_close_what_is_closed_is_no_mistake() -> None:
    here, there, transport = await accepted()
    here.abort()
    transport.close()
    transport.close()
    assert there.closed


@pytest.mark.parametrize(
    ("data", "code", "complaint"),
    [
        (masked(b"text", TEXT), 1003, "sends a text message, expected binary"),
        (b"\x82\x05hello", 1002, "breaks a rule of websockets: incorrect masking"),
        (masked(b"x", BINARY | 0x40), 1002, "breaks a rule of websockets: reserved bits"),
        (masked(bytes(126), PING), 1002, "breaks a rule of websockets: control frame too long"),
        (masked(b"\x03", CLOSE), 1002, "breaks a rule of websockets: close frame too short"),
    ],
)
async def test_a_broken_rule_is_told_and_is_the_end(data: bytes, code: int, complaint: str) -> None:
    for before in (b"", b"before"):
        here, there, transport = await accepted()
        await here.send((masked(before) if before else b"") + data + masked(b"behind"))
        assert await read(transport, len(before)) == before
        await transport.wait_readable()
        with pytest.raises(HTTPFailed, match=f"the websocket client {complaint}"):
            transport.read_into(memoryview(bytearray(1000)))
        with pytest.raises(PeerVanished):
            transport.write(b"too late")
        await there.aclose()
        close = await here.receive_all()
        assert (close[0], close[2:4]) == (CLOSE, code.to_bytes(2, "big"))


async def test_a_broken_rule_is_the_end_for_a_client_that_does_not_read_too() -> None:
    here, _there, transport = await accepted(capacity=1000)
    transport.write(bytes(1500))
    await here.send(masked(b"text", TEXT))
    with pytest.raises(HTTPFailed, match="text"):
        transport.read_into(memoryview(bytearray(100)))
    assert transport.buffered == 504


async def test_a_ping_is_answered_and_a_pong_is_not() -> None:
    here, there, transport = await accepted()
    await here.send(masked(b"one", PING) + masked(b"two", PING) + masked(b"unasked", PONG))
    await transport.wait_readable()
    assert transport.read_into(memoryview(bytearray(100))) == 0
    assert there.buffered == 0
    assert await here.receive() == b"\x8a\x03two"


async def test_pings_without_end_are_answered_with_one_pong() -> None:
    here, _there, transport = await accepted(capacity=1000)
    transport.write(bytes(1500))
    for number in range(100):
        await here.send(masked(b"%100d" % number, PING))
        await transport.wait_readable()
        assert transport.read_into(memoryview(bytearray(1000))) == 0
        assert transport.buffered == 504
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transport.flush)
        received = b""
        while len(received) < 1504 + 102:
            received += await here.receive()
    assert received[1504:] == b"\x8a\x64" + b"%100d" % 99
    assert transport.buffered == 0


async def test_no_pong_is_sent_behind_a_close() -> None:
    here, there, transport = await accepted(capacity=1000)
    transport.write(bytes(1500))
    await here.send(masked(b"", PING) + masked(b"", CLOSE))
    await transport.wait_readable()
    assert transport.read_into(memoryview(bytearray(100))) == -1
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transport.flush)
        received = b""
        while len(received) < 1504:
            received += await here.receive()
    await there.aclose()
    assert await here.receive() == b""


async def test_a_client_that_leaves_while_it_is_answered() -> None:
    here, there, transport = await accepted()
    await here.send(masked(b"data") + masked(b"", PING))
    there.was_reset = True
    view = memoryview(bytearray(100))
    assert transport.read_into(view) == 4
    assert view[:4] == b"data"
    with pytest.raises(PeerVanished):
        transport.read_into(view)


async def test_what_was_read_behind_the_request_is_not_lost() -> None:
    here, _there, transport = await accepted(behind=masked(b"early")[:8])
    await here.send(masked(b"early")[8:] + masked(b"later"))
    assert await read(transport, 10) == b"earlylater"


async def test_a_view_of_any_size_will_do() -> None:
    stream = masked(b"p" * 100, PING) + masked(b"a" * 300) + masked(b"") + masked(b"b" * 100)
    for behind in (b"", stream):
        here, _there, transport = await accepted(behind=behind)
        if not behind:
            await here.send(stream)
        received = b""
        view = memoryview(bytearray(1))
        while len(received) < 400:
            await transport.wait_readable()
            received += view[: transport.read_into(view)]
        assert received == b"a" * 300 + b"b" * 100
        assert await here.receive() == b"\x8a\x64" + b"p" * 100


async def test_what_lies_behind_the_data_is_not_touched() -> None:
    here, _there, transport = await accepted()
    await here.send(masked(b"x" * 300))
    buffer = bytearray(b"." * 1000)
    assert transport.read_into(memoryview(buffer)[:500]) == 300
    assert buffer[500:] == b"." * 500


async def test_tiny_frames_are_taken_a_part_at_a_time() -> None:
    count = 3 * AT_A_TIME
    for behind in (False, True):
        stream = b"".join(masked(b"%d" % (i % 10)) for i in range(count))
        here, _there, transport = await accepted(behind=stream if behind else b"")
        if not behind:
            await here.send(stream)
        await here.send(masked(b"more"))
        view = memoryview(bytearray(100_000))
        received = b""
        while len(received) < count + 4:
            await transport.wait_readable()
            size = transport.read_into(view)
            assert 0 < size <= AT_A_TIME
            received += view[:size]
        assert received == (b"0123456789" * count)[:count] + b"more"
        assert transport.read_into(view) == 0


async def test_what_is_held_back_is_read_without_waiting_for_the_connection(
    autojump_clock: trio.testing.MockClock,
) -> None:
    here, _there, transport = await accepted()
    await here.send(masked(b"x") * (AT_A_TIME + 1) + masked(b"", CLOSE))
    view = memoryview(bytearray(100_000))
    counts: list[int] = []

    def step() -> bool:
        counts.append(transport.read_into(view))
        return transport.more

    poller = Poller()
    with trio.fail_after(1):
        while -1 not in counts:
            await transport.read_through(poller, step)
    assert sum(counts[:-1]) == AT_A_TIME + 1
    assert 0 < counts[0] <= AT_A_TIME
    assert transport.more


async def test_tiny_frames_and_a_small_view() -> None:
    stream = b"".join(masked(b"%d" % (i % 10)) for i in range(3 * MAX_FRAMES))
    _here, _there, transport = await accepted(behind=stream)
    view = memoryview(bytearray(8 * MAX_FRAMES))
    received = b""
    while len(received) < 3 * MAX_FRAMES:
        await transport.wait_readable()
        received += view[: transport.read_into(view)]
    assert received == (b"0123456789" * MAX_FRAMES)[: 3 * MAX_FRAMES]


async def test_to_hang_up_between_frames_is_the_end_and_within_one_is_not() -> None:
    for cut in (1, 5, 9):
        here, _there, transport = await accepted()
        await here.send(masked(b"whole") + masked(b"more")[:cut])
        here.send_eof()
        assert await read(transport, 5) == b"whole"
        with pytest.raises(PeerVanished, match="in the middle of a message"):
            transport.read_into(memoryview(bytearray(100)))
    here, _there, transport = await accepted()
    await here.send(masked(b"whole"))
    here.send_eof()
    assert await read(transport, 5) == b"whole"
    assert transport.read_into(memoryview(bytearray(100))) == -1


async def test_over_tls(
    engine: TLSEngine,
    client_context: ssl.SSLContext,
    sockets: Sockets,
) -> None:
    below, client = await connected(engine, client_context, sockets)
    transport = await websocket.accept(below, REQUEST % b"derp", b"")
    answer = await client.receive_some()
    assert answer.startswith(b"HTTP/1.1 101 ")
    data = bytes(range(256)) * 200
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            client.send_all, b"".join(masked(data[i : i + 1000]) * 3 for i in (0, 1))
        )
        assert await read(transport, 6000) == data[:1000] * 3 + data[1:1001] * 3
    transport.write(data[:1000])
    assert transport.buffered == 0
    # The owner of the transport below closes it, too.
    transport.close()
    below.close()
    received = b""
    while piece := await client.receive_some():
        received += piece
    assert received == b"\x82\x7e\x03\xe8" + data[:1000] + close_frame(1000)
    assert engine.incoming.pending == engine.outgoing.pending == 0


async def test_to_abort_wakes_the_reader() -> None:
    _here, there, transport = await accepted()
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(PeerVanished):
                await transport.wait_readable()

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        transport.abort()
    assert there.closed


async def test_what_carries_the_websocket_is_told_of() -> None:
    _here, there, transport = await accepted()
    assert transport.remote == there.remote
    assert transport.local == there.local
    assert transport.tls_version == "TLSv1.3"


@pytest.mark.slow
async def test_nothing_of_the_handshake_holds_the_connection() -> None:
    """An ended connection is to be gone at once, not when the garbage collector looks."""
    gc.collect()
    gc.disable()
    try:
        _here, there, _transport = await accepted()
        referrers = {type(found).__name__ for found in gc.get_referrers(there)}
        assert "WebSocketTransport" in referrers
        assert "_HandshakeStream" not in referrers
    finally:
        gc.enable()


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
        await websocket.accept(there, request_head, b"")


async def test_why_the_stream_below_broke_is_told() -> None:
    here, _there, transport = await accepted()
    here.abort()
    await transport.wait_readable()
    with pytest.raises(PeerVanished, match="reset"):
        transport.read_into(memoryview(bytearray(10)))


async def test_another_subprotocol_is_refused() -> None:
    here, there = memory_pair()
    with pytest.raises(HTTPFailed, match="without the subprotocol derp"):
        await websocket.accept(there, REQUEST % b"derpy", b"")
    assert (await here.receive()).startswith(b"HTTP/1.1 400 ")


async def test_a_handshake_that_comes_to_nothing_has_a_deadline(
    autojump_clock: trio.testing.MockClock,
) -> None:
    _here, there = memory_pair()
    start = trio.current_time()
    with pytest.raises(HTTPFailed, match="no websocket handshake within 10 s"):
        await websocket.accept(there, b"GET /derp HTTP/1.1\r\n", b"")
    assert trio.current_time() - start == pytest.approx(HANDSHAKE_TIMEOUT, abs=0.1)


async def test_a_client_that_does_not_take_the_answer_has_a_deadline(
    autojump_clock: trio.testing.MockClock,
) -> None:
    _here, there = memory_pair(capacity=10)
    with pytest.raises(HTTPFailed, match="no websocket handshake within 10 s"):
        await websocket.accept(there, REQUEST % b"derp", b"")


async def test_leaving_during_the_handshake(autojump_clock: trio.testing.MockClock) -> None:
    here, there = memory_pair()
    here.abort()
    with pytest.raises(PeerVanished, match="reset"):
        await websocket.accept(there, REQUEST % b"derp", b"")
