"""The TLS pump. All connections share two BIOs and a buffer, so most tests have several."""

import random
import ssl

import pytest
import trio

from derp.errors import PeerVanished, TLSFailed
from derp.net.tls import FEED_SIZE, TLSTransport
from derp.net.tlsengine import TLSEngine
from tests.net.tls_peer import HERE, THERE, RawClient, Sockets, connected, empty, raw_connected


async def receive(transport: TLSTransport, size: int, view_size: int = 1 << 20) -> bytes:
    received = bytearray()
    view = memoryview(bytearray(view_size))
    while len(received) < size:
        await transport.wait_readable()
        count = transport.read_into(view)
        assert empty(transport._engine)
        assert count >= 0, f"the end after {len(received)} bytes"
        received += view[:count]
    return bytes(received)


async def echo(transport: TLSTransport, view_size: int) -> None:
    view = memoryview(bytearray(view_size))
    while True:
        await transport.wait_readable()
        count = transport.read_into(view)
        assert empty(transport._engine)
        if count < 0:
            transport.close()
            return
        if count:
            transport.write(view[:count])
            assert empty(transport._engine)
            await transport.flush()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_hello_both_ways(
    engine: TLSEngine,
    client_context: ssl.SSLContext,
    sockets: Sockets,
    version: ssl.TLSVersion,
) -> None:
    client_context.maximum_version = version
    transport, client = await connected(engine, client_context, sockets)
    assert transport.tls_version == version.name.replace("_", ".")
    await client.send_all(b"hello")
    assert await receive(transport, 5) == b"hello"
    transport.write(b"and back")
    assert await client.receive_some() == b"and back"
    transport.abort()


@pytest.mark.parametrize("size", [1, 16384, 16385, FEED_SIZE + 1, 3_000_000])
async def test_any_size_arrives_whole(
    engine: TLSEngine, client_context: ssl.SSLContext, sockets: Sockets, size: int
) -> None:
    data = random.Random(size).randbytes(size)
    transport, client = await connected(engine, client_context, sockets)
    got_back = bytearray()

    async def collect() -> None:
        while len(got_back) < size:
            got_back.extend(await client.receive_some())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(echo, transport, 1 << 20)
        nursery.start_soon(collect)
        await client.send_all(data)
        while len(got_back) < size:
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert got_back == data
    transport.abort()


@pytest.mark.parametrize("view_size", [1, 7, 16383, 16384, 65536])
async def test_a_small_view_loses_nothing(
    engine: TLSEngine, client_context: ssl.SSLContext, sockets: Sockets, view_size: int
) -> None:
    size = min(200_000, 400 * view_size)
    data = random.Random(view_size).randbytes(size)
    transport, client = await connected(engine, client_context, sockets)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, data)
        assert await receive(transport, size, view_size) == data
    transport.abort()


async def test_many_connections_share_one_engine(
    engine: TLSEngine, client_context: ssl.SSLContext, sockets: Sockets
) -> None:
    chance = random.Random(1)
    finished = []

    async def client_task(number: int) -> None:
        transport, client = await connected_alone(number)
        data = chance.randbytes(chance.randrange(1, 300_000))
        got_back = bytearray()

        async def send() -> None:
            rest = data
            while rest:
                size = chance.randrange(1, 50_000)
                await client.send_all(rest[:size])
                rest = rest[size:]

        async with trio.open_nursery() as nursery:
            nursery.start_soon(echo, transport, chance.choice([100, 5000, 1 << 19]))
            nursery.start_soon(send)
            while len(got_back) < len(data):
                got_back.extend(await client.receive_some())
            nursery.cancel_scope.cancel()
        assert got_back == data
        transport.abort()
        finished.append(number)

    async def connected_alone(
        number: int,
    ) -> tuple[TLSTransport, trio.SSLStream[trio.SocketStream]]:
        ours, stream = sockets()
        transport = TLSTransport(ours, THERE, HERE, engine)
        client = trio.SSLStream(stream, client_context)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(transport.handshake)
            nursery.start_soon(client.do_handshake)
        return transport, client

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(client_task, number)
    assert sorted(finished) == list(range(20))
    assert empty(engine)


# Of a record that can't be decrypted, in the words of several versions of OpenSSL.
SPOILED = "bad record mac|decryption failed|record layer failure"


async def test_a_request_in_the_last_flight_of_the_handshake_is_not_lost(
    engine: TLSEngine, client_context: ssl.SSLContext, sockets: Sockets
) -> None:
    transport, _client = await raw_connected(engine, client_context, sockets, b"GET /derp")
    assert await receive(transport, 9) == b"GET /derp"
    transport.abort()


async def test_records_in_any_pieces_while_others_read(
    engine: TLSEngine, client_context: ssl.SSLContext, sockets: Sockets
) -> None:
    one, first = await raw_connected(engine, client_context, sockets)
    two, second = await raw_connected(engine, client_context, sockets)
    view = memoryview(bytearray(1 << 18))
    ciphertext = first.encrypt(b"a" * 1000) + first.encrypt(b"b" * 1000)
    received = b""
    for start in range(0, len(ciphertext), 333):
        await first.stream.send_all(ciphertext[start : start + 333])
        await second.stream.send_all(second.encrypt(b"other"))
        await one.wait_readable()
        count = one.read_into(view)
        assert count >= 0
        received += view[:count]
        assert await receive(two, 5) == b"other"
    assert received == b"a" * 1000 + b"b" * 1000
    one.abort()
    two.abort()


async def test_a_spoiled_record_ends_its_connection_only(
    engine: TLSEngine, client_context: ssl.SSLContext, sockets: Sockets
) -> None:
    spoiled, bad = await raw_connected(engine, client_context, sockets)
    other, good = await raw_connected(engine, client_context, sockets)
    ciphertext = bytearray(bad.encrypt(b"x" * 100))
    ciphertext[50] ^= 1
    await bad.stream.send_all(bytes(ciphertext) + bad.encrypt(b"more"))
    await spoiled.wait_readable()
    with pytest.raises(TLSFailed, match=SPOILED):
        spoiled.read_into(memoryview(bytearray(1000)))
    assert empty(engine)
    await good.stream.send_all(good.encrypt(b"fine"))
    assert await receive(other, 4) == b"fine"
    spoiled.abort()
    other.abort()


async def test_data_in_front_of_a_spoiled_record_is_not_lost(
    engine: TLSEngine, client_context: ssl.SSLContext, sockets: Sockets
) -> None:
    transport, client = await raw_connected(engine, client_context, sockets)
    await client.stream.send_all(client.encrypt(b"good") + b"\x17\x03\x03\x00\x20" + bytes(32))
    view = memoryview(bytearray(1000))
    await transport.wait_readable()
    assert transport.read_into(view) == 4
    for _ in range(2):
        await transport.wait_readable()
        with pytest.raises(TLSFailed, match=SPOILED):
            transport.read_into(view)
    assert empty(engine)
    transport.abort()


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05hello", bytes(1000), b"\xff" * 50]
)
async def test_what_is_no_tls_is_refused_with_a_reason(
    engine: TLSEngine, sockets: Sockets, garbage: bytes
) -> None:
    ours, client = sockets()
    transport = TLSTransport(ours, THERE, HERE, engine)
    await client.send_all(garbage)
    with pytest.raises(TLSFailed) as caught:
        await transport.handshake()
    assert "\n" not in str(caught.value)
    assert empty(engine)
    transport.abort()


async def test_leaving_during_the_handshake(
    engine: TLSEngine, client_context: ssl.SSLContext, sockets: Sockets
) -> None:
    ours, stream = sockets()
    transport = TLSTransport(ours, THERE, HERE, engine)
    client = RawClient(client_context, stream)
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.do_handshake()
    await stream.send_all(client.outgoing.read()[:50])
    await stream.aclose()
    with pytest.raises(PeerVanished, match="during the TLS handshake"):
        await transport.handshake()
    transport.abort()


async def test_close_notify_is_the_end_and_stays_it(
    engine: TLSEngine, client_context: ssl.SSLContext, sockets: Sockets
) -> None:
    transport, client = await raw_connected(engine, client_context, sockets)
    ciphertext = client.encrypt(b"last words")
    with pytest.raises(ssl.SSLError):
        client.tls.unwrap()
    await client.stream.send_all(ciphertext + client.outgoing.read())
    view = memoryview(bytearray(1000))
    await transport.wait_readable()
    assert transport.read_into(view) == 10
    for _ in range(2):
        await transport.wait_readable()
        assert transport.read_into(view) == -1
    assert empty(engine)
    transport.abort()


async def test_closing_says_goodbye(
    engine: TLSEngine, client_context: ssl.SSLContext, sockets: Sockets
) -> None:
    transport, client = await connected(engine, client_context, sockets)
    transport.write(b"bye")
    transport.close()
    assert await client.receive_some() == b"bye"
    # Without close_notify this would be an error.
    assert await client.receive_some() == b""
    assert empty(engine)


async def test_what_the_socket_does_not_take_is_kept_and_flushed(
    engine: TLSEngine, client_context: ssl.SSLContext, sockets: Sockets
) -> None:
    transport, client = await connected(engine, client_context, sockets)
    data = random.Random(3).randbytes(2_000_000)
    transport.write(data)
    assert transport.buffered > 0
    assert empty(engine)
    received = bytearray()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transport.flush)
        while len(received) < len(data):
            received.extend(await client.receive_some())
    assert received == data
    assert transport.buffered == 0
    transport.abort()


async def test_a_new_context_is_for_new_connections(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext, sockets: Sockets
) -> None:
    engine = TLSEngine(server_context)
    before, old = await connected(engine, client_context, sockets)
    engine.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # it has no certificate
    ours, stream = sockets()
    transport = TLSTransport(ours, THERE, HERE, engine)
    client = RawClient(client_context, stream)
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.do_handshake()
    await stream.send_all(client.outgoing.read())
    with pytest.raises(TLSFailed):
        await transport.handshake()
    await old.send_all(b"still here")
    assert await receive(before, 10) == b"still here"
    before.abort()
    transport.abort()
