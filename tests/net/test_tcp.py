import socket
from collections.abc import Callable

import pytest
import trio

from derp.errors import PeerVanished
from derp.net.address import Endpoint
from derp.net.tcp import RECEIVE_SIZE, TCPTransport

HERE, THERE = Endpoint("127.0.0.1", 443), Endpoint("192.0.2.1", 50000)
Sockets = Callable[[], tuple[socket.socket, trio.SocketStream]]


async def test_bytes_both_ways(sockets: Sockets) -> None:
    ours, client = sockets()
    transport = TCPTransport(ours, THERE, HERE)
    view = memoryview(bytearray(RECEIVE_SIZE))
    async with client:
        await client.send_all(b"hello")
        await transport.wait_readable()
        assert bytes(view[: transport.read_into(view)]) == b"hello"
        assert transport.read_into(view) == 0
        transport.write(b"and back")
        assert transport.buffered == 0
        assert await client.receive_some() == b"and back"
    await transport.wait_readable()
    assert transport.read_into(view) == -1
    transport.close()


async def test_what_the_socket_does_not_take_is_kept_and_flushed(sockets: Sockets) -> None:
    ours, client = sockets()
    transport = TCPTransport(ours, THERE, HERE)
    buffer = bytearray(4 << 20)
    buffer[::1000] = bytes(range(256)) * (len(buffer[::1000]) // 256) + bytes(
        range(len(buffer[::1000]) % 256)
    )
    expected = bytes(buffer)
    transport.write(buffer)
    assert 0 < transport.buffered < len(buffer)
    buffer[:] = bytes(len(buffer))  # the caller's buffer is free for other things at once
    received = bytearray()

    async def receive() -> None:
        while len(received) < len(expected):
            received.extend(await client.receive_some())

    async with client, trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await transport.flush()
    assert received == expected
    assert transport.buffered == 0
    transport.abort()


async def test_a_full_read_is_followed_by_a_checkpoint_and_not_by_a_wait(sockets: Sockets) -> None:
    ours, client = sockets()
    transport = TCPTransport(ours, THERE, HERE)
    async with client:
        await client.send_all(b"12345678")
        view = memoryview(bytearray(4))
        await transport.wait_readable()
        assert transport.read_into(view) == 4
        await transport.wait_readable()
        assert transport.read_into(view) == 4
        # Nothing is there any more, but that is not known yet.
        await transport.wait_readable()
        assert transport.read_into(view) == 0
    transport.abort()


@pytest.mark.parametrize("what", ["wait_readable", "flush"])
async def test_abort_wakes_who_waits(
    sockets: Sockets, what: str, autojump_clock: trio.testing.MockClock
) -> None:
    ours, client = sockets()
    transport = TCPTransport(ours, THERE, HERE)
    if what == "flush":
        transport.write(bytes(4 << 20))

    async def waiter() -> None:
        with pytest.raises(PeerVanished):
            await getattr(transport, what)()

    async with client, trio.open_nursery() as nursery:
        nursery.start_soon(waiter)
        await trio.testing.wait_all_tasks_blocked()
        transport.abort()
        transport.abort()


async def test_closed_sockets_do_not_meet_in_trio(sockets: Sockets) -> None:
    """All closed sockets have the descriptor -1; Trio takes two waits for it as a mistake."""
    transports = []
    for _ in range(3):
        ours, client = sockets()
        transport = TCPTransport(ours, THERE, HERE)
        transport.write(bytes(4 << 20))
        transport.abort()
        transports.append(transport)
        await client.aclose()
    for transport in transports * 2:
        with pytest.raises(PeerVanished):
            await transport.flush()
        with pytest.raises(PeerVanished):
            await transport.wait_readable()


async def test_a_write_behind_something_unsent_keeps_the_order(sockets: Sockets) -> None:
    ours, client = sockets()
    transport = TCPTransport(ours, THERE, HERE)
    transport.write(b"a" * (2 << 20))
    assert transport.buffered
    transport.write(b"bcd")
    received = b""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transport.flush)
        while len(received) < (2 << 20) + 3:
            received += await client.receive_some()
    assert received == b"a" * (2 << 20) + b"bcd"
    transport.abort()


async def test_after_abort_everything_says_that_the_peer_is_gone(sockets: Sockets) -> None:
    ours, client = sockets()
    transport = TCPTransport(ours, THERE, HERE)
    transport.abort()
    with pytest.raises(PeerVanished):
        transport.write(b"x")
    with pytest.raises(PeerVanished):
        transport.read_into(memoryview(bytearray(10)))
    with pytest.raises(PeerVanished):
        await transport.wait_readable()
    await client.aclose()


async def test_a_reset_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
        ours.setblocking(False)
        transport = TCPTransport(ours, THERE, HERE)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        await transport.wait_readable()
        with pytest.raises(PeerVanished, match="reset"):
            transport.read_into(memoryview(bytearray(10)))
        transport.abort()


async def test_tcp_info_is_the_kernels() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
        with client, ours:
            info = TCPTransport(ours, THERE, HERE).tcp_info()
            assert info[0] == 1  # TCP_ESTABLISHED
