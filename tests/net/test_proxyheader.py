"""The PROXY header at a socket: what is taken from it, and what stays."""

import errno
import os
import socket
from collections.abc import AsyncIterator, Iterator
from typing import ClassVar

import pytest
import trio

from derp.errors import PeerVanished
from derp.net.address import Endpoint
from derp.net.prelogin import PreLoginScheduler
from derp.net.proxyheader import receive_header
from derp.wire.proxyprotocol import LOCAL_HEADER, MAX_LINE

LINE = b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 443\r\n"


@pytest.fixture
async def scheduler() -> AsyncIterator[PreLoginScheduler]:
    scheduler = PreLoginScheduler()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scheduler.run)
        yield scheduler
        nursery.cancel_scope.cancel()


@pytest.fixture
def pair() -> "Iterator[tuple[socket.socket, socket.socket]]":
    here, there = socket.socketpair()
    here.setblocking(False)
    with here, there:
        yield here, there


Pair = tuple[socket.socket, socket.socket]


@pytest.mark.parametrize(
    ("header", "client"), [(LINE, Endpoint("192.0.2.7", 40000)), (LOCAL_HEADER, None)]
)
@pytest.mark.parametrize("behind", [b"", b"\x16\3\1", bytes(2 * MAX_LINE)])
async def test_what_follows_stays_in_the_socket(
    scheduler: PreLoginScheduler, pair: Pair, header: bytes, client: Endpoint | None, behind: bytes
) -> None:
    here, there = pair
    there.sendall(header + behind)
    with trio.fail_after(20):
        assert await receive_header(here, scheduler) == client
    there.shutdown(socket.SHUT_WR)
    left = b""
    while data := here.recv(1 << 16):
        left += data
    assert left == behind


async def test_an_end_in_the_middle(scheduler: PreLoginScheduler, pair: Pair) -> None:
    here, there = pair
    there.sendall(LINE[:9])
    there.shutdown(socket.SHUT_WR)
    with trio.fail_after(20), pytest.raises(PeerVanished, match="in the middle of a PROXY header"):
        await receive_header(here, scheduler)


async def test_one_that_is_closed_here(scheduler: PreLoginScheduler, pair: Pair) -> None:
    here, _ = pair
    here.close()
    with pytest.raises(PeerVanished, match="was closed"):
        await receive_header(here, scheduler)


class Failing(socket.socket):
    """A socket that fails at first."""

    errors: ClassVar = [errno.EAGAIN, errno.ECONNRESET]

    def recv(self, size: int, flags: int = 0) -> bytes:
        number = self.errors.pop(0)
        raise OSError(number, os.strerror(number))


async def test_errors_of_the_socket(scheduler: PreLoginScheduler, pair: Pair) -> None:
    """That there is nothing yet is none of them."""
    here, there = pair
    there.sendall(LINE)
    with Failing(fileno=os.dup(here.fileno())) as failing, trio.fail_after(20):
        with pytest.raises(PeerVanished, match="reset"):
            await receive_header(failing, scheduler)
        assert not failing.errors
        scheduler.forget(failing.fileno())
