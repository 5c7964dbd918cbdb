"""What is kept for a peer that has not shaken hands, and who is told of it."""

import ssl
import struct
from collections.abc import Callable

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from derp.errors import NoRoom, TLSFailed
from derp.net.tls import HANDSHAKE_READ, HELLO_MEMORY, TLSTransport
from derp.net.tlsengine import TLSEngine
from derp.relay.pending import SPARE
from derp.wire.clienthello import MAX_FLIGHT, is_whole
from tests.net.test_tls_choose import Client, context_for
from tests.net.tls_peer import HERE, THERE, Sockets, empty


def record(kind: int, fragment: bytes) -> bytes:
    return struct.pack(">BBBH", kind, 3, 1, len(fragment)) + fragment


def claim(size: int) -> bytes:
    """The beginning of a ClientHello that says it has `size` bytes."""
    return b"\x01" + size.to_bytes(3, "big") + b"\x03\x03" + bytes(50)


@pytest.fixture
async def handshake(
    engine: TLSEngine, sockets: Sockets
) -> "Callable[[trio.Nursery, Callable[[int], object]], tuple[TLSTransport, trio.SocketStream]]":
    """Starts a handshake that tells how much is kept."""

    def start(
        nursery: trio.Nursery, hold: Callable[[int], object]
    ) -> tuple[TLSTransport, trio.SocketStream]:
        ours, stream = sockets()
        transport = TLSTransport(ours, THERE, HERE, engine)
        nursery.start_soon(transport.handshake, hold)
        return transport, stream

    return start


Start = Callable[[trio.Nursery, Callable[[int], object]], tuple[TLSTransport, trio.SocketStream]]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("pieces", [1, 3])
async def test_an_ordinary_handshake_keeps_what_everybody_may(
    handshake: Start, client_context: ssl.SSLContext, version: ssl.TLSVersion, pieces: int
) -> None:
    client_context.maximum_version = version
    kept: list[int] = []
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            _, stream = handshake(nursery, kept.append)
            client = Client(client_context, stream, "a.example")
            size = -(-len(client.hello) // pieces)
            for start in range(0, len(client.hello), size):
                await stream.send_all(client.hello[start : start + size])
                await wait_all_tasks_blocked()
            await client.finish()
    assert max(kept, default=0) <= SPARE
    assert bool(kept) is (pieces > 1)


@pytest.mark.parametrize(
    "said",
    [
        record(22, claim(60_000)),
        record(22, b"\x01") + record(22, claim(60_000)[1:]),
    ],
)
async def test_what_a_hello_says_of_itself_takes_no_memory(handshake: Start, said: bytes) -> None:
    kept: list[int] = []
    async with trio.open_nursery() as nursery:
        transport, stream = handshake(nursery, kept.append)
        await stream.send_all(said)
        await wait_all_tasks_blocked()
        assert not hasattr(transport, "_ssl")
        assert kept == [2 * len(said)]
        nursery.cancel_scope.cancel()


async def test_a_long_hello_is_kept_and_told(handshake: Start) -> None:
    kept: list[int] = []
    async with trio.open_nursery() as nursery:
        transport, stream = handshake(nursery, kept.append)
        hello = claim(60_000) + bytes(60_000)
        for start in range(0, 56_000, 8000):
            await stream.send_all(record(22, hello[start : start + 8000]))
            await wait_all_tasks_blocked()
        assert not hasattr(transport, "_ssl")
        assert kept[-1] == 2 * 7 * 8005
        nursery.cancel_scope.cancel()


async def test_where_openssl_waits_for_a_hello_it_may_have_all_of_its_memory(
    handshake: Start,
) -> None:
    kept: list[int] = []
    async with trio.open_nursery() as nursery:
        _, stream = handshake(nursery, kept.append)
        await stream.send_all(record(22, claim(131_000)))
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert kept[-1] == HELLO_MEMORY
    assert HELLO_MEMORY >= 2 * (MAX_FLIGHT + HANDSHAKE_READ)


async def test_a_second_hello_may_be_long_too(
    handshake: Start, engine: TLSEngine, client_context: ssl.SSLContext
) -> None:
    """After a HelloRetryRequest OpenSSL reads one that nobody else has looked at."""
    engine.context = context_for("127.0.0.2")
    engine.context.set_ecdh_curve("secp384r1")
    client_context.minimum_version = ssl.TLSVersion.TLSv1_3
    kept: list[int] = []
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            transport, stream = handshake(nursery, kept.append)
            client = Client(client_context, stream)
            await stream.send_all(client.hello)
            await wait_all_tasks_blocked()
            assert kept == [HELLO_MEMORY]
            await client.finish()
    assert transport.tls_version == "TLSv1.3"


@pytest.mark.parametrize("said", [record(22, claim(60_000)), record(22, claim(131_000))])
async def test_whoever_finds_no_room_leaves_nothing_behind(
    engine: TLSEngine, sockets: Sockets, said: bytes
) -> None:
    def refuse(_: int) -> None:
        raise NoRoom("no room")

    ours, stream = sockets()
    transport = TLSTransport(ours, THERE, HERE, engine)
    await stream.send_all(said)
    with pytest.raises(NoRoom):
        await transport.handshake(refuse)
    assert empty(engine)
    transport.close()


async def test_what_comes_behind_the_handshake_is_not_read_with_it(
    handshake: Start, client_context: ssl.SSLContext
) -> None:
    client_context.minimum_version = ssl.TLSVersion.TLSv1_3
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            transport, stream = handshake(nursery, lambda _: None)
            client = Client(client_context, stream)
            await stream.send_all(client.hello)
            await wait_all_tasks_blocked()
            client.incoming.write(await stream.receive_some())
            client.tls.do_handshake()
            client.tls.write(bytes(100_000))
            nursery.start_soon(stream.send_all, client.outgoing.read())
            await wait_all_tasks_blocked()
            assert transport.tls_version is not None
            assert 0 < transport.held <= HANDSHAKE_READ
            view = memoryview(bytearray(1 << 18))
            count = 0
            while count < 100_000:
                await transport.wait_readable()
                count += transport.read_into(view)
            assert transport.held == 0


@pytest.mark.parametrize("cut", [0, 1, 5, 8, 9, 30])
def test_a_hello_is_whole_when_all_of_it_has_come(cut: int) -> None:
    hello = record(22, b"\x01" + (40).to_bytes(3, "big") + bytes(40))
    assert is_whole(hello)
    assert is_whole(memoryview(hello + b"behind"))
    assert not is_whole(hello[: len(hello) - 1 - cut])
    assert not is_whole(hello[:cut])
    assert not is_whole(record(22, b"\x02" + hello[6:]))
    assert not is_whole(record(23, hello[5:]))
    assert not is_whole(record(22, b"\x01" + (41).to_bytes(3, "big") + bytes(40)))


def test_garbage_is_no_whole_hello() -> None:
    assert not is_whole(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert not is_whole(b"\x16\x03\x01\xff\xff\x01" + bytes(70_000))


async def test_garbage_still_hears_openssls_words(engine: TLSEngine, sockets: Sockets) -> None:
    ours, stream = sockets()
    transport = TLSTransport(ours, THERE, HERE, engine)
    await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    with pytest.raises(TLSFailed, match="http request"):
        await transport.handshake()
    transport.close()
