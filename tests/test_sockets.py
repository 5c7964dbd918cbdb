"""The sockets of several processes: what comes is spread, and nobody else gets the port."""

import contextlib
import errno
import socket
from collections.abc import Iterator

import pytest

from derp import sockets
from derp.config import Config
from derp.errors import StartError
from derp.sockets import Sockets
from derp.values import Address
from stun.message import build_binding_request

Open = contextlib.ExitStack


@pytest.fixture
def stack() -> Iterator[Open]:
    with contextlib.ExitStack() as made:
        yield made


def config(host: str, port: int = 0) -> Config:
    return Config(dev=True, addr=Address(host, port), stun_port=0)


def accepted(listener: socket.socket) -> int:
    count = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            listener.accept()[0].close()
            count += 1
    return count


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", ""])
def test_what_comes_is_spread(host: str, stack: Open) -> None:
    shared = sockets.open_all(config(host), stack, processes=3)
    to = host or "127.0.0.1"
    found = [
        next(s for s in each.main if (":" in to) == (s.family == socket.AF_INET6))
        for each in shared
    ]
    assert len({sock.getsockname() for sock in found}) == 1
    port = found[0].getsockname()[1]
    for _ in range(150):
        stack.enter_context(socket.create_connection((to, port)))
    counts = [accepted(sock) for sock in found]
    # Of 150, one in a billion times a third gets less than 10.
    assert sum(counts) == 150
    assert min(counts) >= 10


def test_requests_for_stun_are_spread(stack: Open) -> None:
    shared = sockets.open_all(config("127.0.0.1"), stack, processes=2)
    found = [each.stun[0] for each in shared]
    for _ in range(100):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(build_binding_request(bytes(12)), found[0].getsockname())
    counts = [0, 0]
    for number, sock in enumerate(found):
        with contextlib.suppress(BlockingIOError):
            while sock.recv(100):
                counts[number] += 1
    assert sum(counts) == 100
    assert min(counts) >= 10


@pytest.mark.parametrize("processes", [1, 2])
def test_a_port_that_is_shared_is_nobody_elses(processes: int, stack: Open) -> None:
    (first, _) = sockets.open_all(config("127.0.0.1"), stack, processes=2)
    port = first.main[0].getsockname()[1]
    with pytest.raises(StartError, match="the port is in use by another program"):
        sockets.open_all(config("127.0.0.1", port), stack, processes=processes)


def test_a_socket_that_can_t_be_shared(stack: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: socket.socket) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(sockets, "join", refuse)
    with pytest.raises(StartError, match=r"can't share 127\.0\.0\.1:\d+ between workers: Too many"):
        sockets.open_all(config("127.0.0.1"), stack, processes=2)


def test_one_process_shares_nothing(stack: Open) -> None:
    (alone,) = sockets.open_all(config("127.0.0.1"), stack)
    assert isinstance(alone, Sockets)
    for sock in alone.all:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) == 0
