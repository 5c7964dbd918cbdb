"""Look-ups that hang: what they hold up, and what not."""

import errno
import socket
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from derp.net.resolver import MAX_THREADS, Resolver
from tests.support.waiting import until_async

FOUND = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 80))]


class NameServer:
    """Says nothing until it is told to."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.says: list[Any] | Exception = FOUND
        self._go = threading.Event()

    def look_up(self, host: bytes, *_: object) -> list[Any]:
        self.asked.append(host)
        assert self._go.wait(60)
        if isinstance(self.says, Exception):
            raise self.says
        return self.says

    def answer(self) -> None:
        self._go.set()


@pytest.fixture
def server() -> Iterator[NameServer]:
    server = NameServer()
    yield server
    server.answer()


until = partial(until_async, "the look-ups are as wanted")


def crowd(nursery: trio.Nursery, name: str = "url.test", size: int = 200) -> None:
    for _ in range(size):
        nursery.start_soon(trio.socket.getaddrinfo, name, 80)


@pytest.mark.slow
async def test_no_look_up_takes_a_thread_that_files_need(server: NameServer) -> None:
    Resolver(server.look_up).install()
    async with trio.open_nursery() as nursery:
        for number in range(100):
            crowd(nursery, f"url{number}.test", 3)
        await until(lambda: len(server.asked) == MAX_THREADS)
        with trio.fail_after(60):
            assert await trio.to_thread.run_sync(lambda: "read") == "read"
        assert trio.to_thread.current_default_thread_limiter().borrowed_tokens == 0
        nursery.cancel_scope.cancel()


async def test_equal_look_ups_are_one(server: NameServer) -> None:
    resolver = Resolver(server.look_up)
    resolver.install()
    async with trio.open_nursery() as nursery:
        crowd(nursery)
        await until(lambda: server.asked == [b"url.test"])
        server.answer()
    assert server.asked == [b"url.test"]
    assert await trio.socket.getaddrinfo("url.test", 80) == FOUND
    assert len(server.asked) == 2


async def test_who_gives_up_leaves_the_look_up_to_the_next(server: NameServer) -> None:
    Resolver(server.look_up).install()
    for _ in range(3 * MAX_THREADS):
        with trio.move_on_after(0.001):
            await trio.socket.getaddrinfo("url.test", 80)
    assert server.asked == [b"url.test"]
    server.answer()
    assert await trio.socket.getaddrinfo("url.test", 80) == FOUND


async def test_other_names_wait_for_room_and_then_get_theirs(server: NameServer) -> None:
    Resolver(server.look_up).install()
    names = [f"url{number}.test" for number in range(3 * MAX_THREADS)]
    found = []

    async def look_up(name: str) -> None:
        found.append(await trio.socket.getaddrinfo(name, 80))

    async with trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(look_up, name)
            nursery.start_soon(look_up, name)
        await until(lambda: len(server.asked) == MAX_THREADS)
        await trio.testing.wait_all_tasks_blocked()
        assert len(server.asked) == MAX_THREADS
        server.answer()
    assert sorted(server.asked) == sorted(name.encode() for name in names)
    assert found == [FOUND] * 6 * MAX_THREADS


async def test_nothing_stays_of_those_who_waited_for_room_and_left(server: NameServer) -> None:
    resolver = Resolver(server.look_up)
    resolver.install()
    async with trio.open_nursery() as nursery:
        for number in range(3 * MAX_THREADS):
            crowd(nursery, f"url{number}.test", 3)
        await until(lambda: len(server.asked) == MAX_THREADS)
        nursery.cancel_scope.cancel()
    assert len(resolver._look_ups) == MAX_THREADS
    server.answer()
    await until(lambda: not resolver._look_ups)
    assert len(server.asked) == MAX_THREADS


async def test_each_who_waits_gets_an_error_of_its_own(server: NameServer) -> None:
    Resolver(server.look_up).install()
    server.says = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    errors = []

    async def look_up() -> None:
        with pytest.raises(socket.gaierror) as caught:
            await trio.socket.getaddrinfo("url.test", 80)
        errors.append(caught.value)

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(look_up)
        await until(lambda: server.asked == [b"url.test"])
        server.answer()
    assert len({id(error) for error in errors}) == 10
    assert {(error.errno, error.strerror) for error in errors} == {
        (socket.EAI_NONAME, "Name or service not known")
    }


async def test_addresses_are_not_looked_up(server: NameServer) -> None:
    Resolver(server.look_up).install()
    assert await trio.socket.getaddrinfo("192.0.2.1", 80, type=socket.SOCK_STREAM) == FOUND
    assert server.asked == []


async def test_connecting_by_name(server: NameServer) -> None:
    Resolver(server.look_up).install()
    server.says = OSError(errno.EIO, "what a C library may say")
    server.answer()
    with pytest.raises(OSError, match="what a C library may say"):
        await trio.open_tcp_stream("url.test", 80)


def test_a_run_ends_though_a_look_up_hangs(server: NameServer) -> None:
    async def main() -> None:
        Resolver(server.look_up).install()
        with trio.move_on_after(0.01):
            await trio.socket.getaddrinfo("url.test", 80)

    trio.run(main)
    assert server.asked == [b"url.test"]
    server.answer()


async def test_the_c_library_itself() -> None:
    Resolver().install()
    found = await trio.socket.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)
    assert {sockaddr[0] for *_, sockaddr in found} & {"127.0.0.1", "::1"}


async def test_where_there_are_no_more_threads(
    server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container with a limit: each look-up fails, and later ones are made again."""
    resolver = Resolver(server.look_up)

    def no_thread(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(trio.lowlevel, "start_thread_soon", no_thread)
        for _ in range(2 * MAX_THREADS):
            with pytest.raises(socket.gaierror, match="no thread"):
                await resolver.getaddrinfo(b"a.example", 80)
    server.answer()
    assert await resolver.getaddrinfo(b"a.example", 80) == FOUND
