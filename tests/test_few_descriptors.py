"""The whole program near its limit on open files."""

import os
import re
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.patience import PATIENCE
from tests.peers import Peer
from tests.process import Derper, derper

LIMIT = 100
UPGRADE = b"GET /derp HTTP/1.1\r\nHost: x\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\n"


class SocketEnd:
    """A blocking socket with the two methods that a Peer needs."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    async def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    async def receive(self) -> bytes:
        return self._socket.recv(1 << 16)


async def client(sock: socket.socket) -> Peer:
    sock.sendall(UPGRADE)
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += sock.recv(1)
    return await Peer(SocketEnd(sock)).log_in()  # type: ignore[arg-type]


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), PATIENCE)


def is_in(sock: socket.socket) -> bool:
    """Ask for a page, and say whether there was an answer."""
    try:
        sock.sendall(b"GET /generate_204 HTTP/1.1\r\nHost: x\r\n\r\n")
        return sock.recv(1 << 16).startswith(b"HTTP/1.1 204 ")
    except ConnectionError:
        return False


@pytest.fixture
def full(tmp_path: Path) -> "Iterator[tuple[Derper, int, list[socket.socket]]]":
    """Run a relay and fill it with connections, until one is closed."""
    with ExitStack() as stack:
        relay = stack.enter_context(derper(tmp_path, tls=False, descriptors=LIMIT))
        port = relay.port("HTTP")
        inside: list[socket.socket] = []
        stack.callback(lambda: [sock.close() for sock in inside])
        while is_in(sock := stack.enter_context(connect(port))):
            inside.append(sock)
            assert len(inside) < LIMIT
        yield relay, port, inside


async def test_those_who_are_in_are_served(full: tuple[Derper, int, list[socket.socket]]) -> None:
    relay, port, inside = full
    # Two who are in already become clients.
    a, b = await client(inside[0]), await client(inside[1])
    for _ in range(10):
        with connect(port) as sock:
            assert not is_in(sock)
        await a.send_packet(b.key, b"packet")
        assert await b.receive_packet() == (a.key, b"packet")
    leave(relay, inside, 1)
    inside.append(connect(port))
    assert is_in(inside[-1])
    assert relay.stop() == 0
    told = [line.partition("level=")[2] for line in relay.log if "cure=" in line]
    assert [line.partition(" cure=")[0] for line in told[1:]] == [
        'warning msg="room for clients gets scarce" open=80 limit=100',
        'warning msg="room for clients gets scarce" open=95 limit=100',
        'warning msg="no room for more clients" open=97 limit=100',
    ]
    assert re.match(r'info msg="not many clients fit" clients=8\d limit=100', told[0])


def test_there_is_room_again_when_some_have_left(
    full: tuple[Derper, int, list[socket.socket]],
) -> None:
    relay, port, inside = full
    leave(relay, inside, 20)
    inside.append(connect(port))
    assert is_in(inside[-1])
    relay.wait_for('msg="there is room for clients again" open=[0-9]+ limit=100 refused=1$')


def test_waiting_for_room_takes_no_cpu(full: tuple[Derper, int, list[socket.socket]]) -> None:
    relay, port, inside = full
    # As if the relay itself had used up the reserve: accept fails from now on.
    resource.prlimit(relay.process.pid, resource.RLIMIT_NOFILE, (LIMIT // 2, LIMIT))
    with connect(port) as waiting:
        relay.wait_for('msg="can\'t accept connections" reason="Too many open files" cure=')
        before = cpu(relay.process.pid)
        time.sleep(1.0)
        # A tenth is what the tries take where that is slow; all of it is what a loop would.
        assert cpu(relay.process.pid) - before < 0.3
        leave(relay, inside, 5)
        resource.prlimit(relay.process.pid, resource.RLIMIT_NOFILE, (LIMIT, LIMIT))
        assert is_in(waiting)


def leave(relay: Derper, inside: list[socket.socket], number: int) -> None:
    """Close connections, and return when the relay has closed them too."""
    before = opened(relay)
    for _ in range(number):
        inside.pop().close()
    deadline = time.monotonic() + PATIENCE
    while opened(relay) > before - number:
        assert time.monotonic() < deadline


def opened(relay: Derper) -> int:
    return len(list(Path(f"/proc/{relay.process.pid}/fd").iterdir()))


def cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
