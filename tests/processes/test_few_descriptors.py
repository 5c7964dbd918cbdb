"""The whole program near its limit on open files."""

import os
import re
import resource
import socket
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import trio

from derp.net.descriptors import reserve
from tests.patience import PATIENCE
from tests.peers import Peer
from tests.process import Derper, derper
from tests.support.derp import UPGRADE, upgrade_request

LIMIT = 100


class SocketEnd:
    """A blocking socket with the two methods that a Peer needs."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    async def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    async def receive(self) -> bytes:
        return self._socket.recv(1 << 16)


async def client(sock: socket.socket) -> Peer:
    sock.sendall(upgrade_request(*UPGRADE))
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += sock.recv(1)
    return await Peer(SocketEnd(sock)).log_in()  # type: ignore[arg-type]


def connect(port: int, source: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), PATIENCE, (source, 0))


def is_in(sock: socket.socket) -> bool:
    """Ask for a page, and say whether there was an answer."""
    try:
        sock.sendall(b"GET /generate_204 HTTP/1.1\r\nHost: x\r\n\r\n")
        return sock.recv(1 << 16).startswith(b"HTTP/1.1 204 ")
    except ConnectionError:
        return False


@pytest.fixture
async def full(tmp_path: Path) -> "AsyncIterator[tuple[Derper, int, list[socket.socket]]]":
    """Run a relay and fill it with clients, until a newcomer is closed."""
    with ExitStack() as stack:
        relay = stack.enter_context(derper(tmp_path, tls=False, descriptors=LIMIT))
        port = relay.port("HTTP")
        inside: list[socket.socket] = []
        stack.callback(lambda: [sock.close() for sock in inside])
        while is_in(sock := stack.enter_context(connect(port))):
            await client(sock)
            inside.append(sock)
            assert len(inside) < LIMIT
        yield relay, port, inside


async def test_those_who_are_in_are_served(full: tuple[Derper, int, list[socket.socket]]) -> None:
    relay, port, inside = full
    # Two who are in already are replaced, so that their keys are known here.
    leave(relay, inside, 2)
    inside += (connect(port), connect(port))
    a, b = await client(inside[-1]), await client(inside[-2])
    for _ in range(10):
        with connect(port) as sock:
            assert not is_in(sock)
        await a.send_packet(b.key, b"packet")
        assert await b.receive_packet() == (a.key, b"packet")
    leave(relay, inside, 1)
    inside.append(connect(port))
    assert is_in(inside[-1])
    assert relay.stop() == 0
    told = [
        line.partition("level=")[2] for line in relay.log if "cure=" in line and "BBR" not in line
    ]
    assert [line.partition(" cure=")[0] for line in told[1:]] == [
        'warning msg="room for clients gets scarce" open=80 limit=100',
        'warning msg="room for clients gets scarce" open=95 limit=100',
        'warning msg="no room for more clients" open=97 limit=100',
    ]
    assert re.match(r'info msg="not many clients fit" clients=8\d limit=100', told[0])


async def test_there_is_room_again_when_some_have_left(
    full: tuple[Derper, int, list[socket.socket]],
) -> None:
    relay, port, inside = full
    leave(relay, inside, 20)
    inside.append(connect(port))
    assert is_in(inside[-1])
    relay.wait_for('msg="there is room for clients again" open=[0-9]+ limit=100 refused=1$')


async def test_waiting_for_room_takes_no_cpu(
    full: tuple[Derper, int, list[socket.socket]],
) -> None:
    relay, port, inside = full
    # As if the relay itself had used up the reserve: accept fails from now on.
    resource.prlimit(relay.process.pid, resource.RLIMIT_NOFILE, (LIMIT // 2, LIMIT))
    with connect(port) as waiting:
        relay.wait_for('msg="can\'t accept connections" reason="Too many open files" cure=')
        before = cpu(relay.process.pid)
        await trio.sleep(1.0)
        # A tenth is what the tries take where that is slow; all of it is what a loop would.
        assert cpu(relay.process.pid) - before < 0.3
        leave(relay, inside, 5)
        resource.prlimit(relay.process.pid, resource.RLIMIT_NOFILE, (LIMIT, LIMIT))
        assert is_in(waiting)


async def test_one_network_does_not_keep_out_the_others(tmp_path: Path) -> None:
    """It takes all descriptors that there are; who comes from elsewhere logs in all the same."""
    flags = ("-per-network-accept-limit", "0", "-per-network-pending-limit", "0")
    with ExitStack() as stack:
        relay = stack.enter_context(derper(tmp_path, *flags, tls=False, descriptors=LIMIT))
        port = relay.port("HTTP")
        attackers = [stack.enter_context(connect(port, "127.0.1.1")) for _ in range(2 * LIMIT)]
        # By its answer it has taken them all.
        assert is_in(stack.enter_context(connect(port)))
        victims = []
        for n in range(LIMIT // 3):
            victims.append(stack.enter_context(connect(port, f"127.0.{2 + n}.1")))
            await client(victims[-1])
        assert sum(is_open(sock) for sock in attackers) < LIMIT
        # Of what is in reserve there was need for the one from this machine only.
        assert opened(relay) <= LIMIT - reserve(LIMIT) + 1
        refused = [line for line in relay_log(relay) if "no_room" in line]
        assert len(refused) == 2
        assert "127.0.1.1:" in refused[0]
        assert re.search(
            r'msg="refused more" reason="no_room 127.0.1.0/24" connections=\d+ seconds=\d+$',
            refused[1],
        )


@pytest.mark.parametrize(
    ("limits", "most", "reason"),
    [((0, 10), 10, "too_many_pending"), ((1, 0), 20, "too_many_connections")],
)
def test_limits_for_a_network(
    tmp_path: Path, limits: tuple[int, int], most: int, reason: str
) -> None:
    rate, pending = map(str, limits)
    flags = ["-per-network-accept-limit", rate, "-per-network-pending-limit", pending]
    flags += ["-trusted-proxies", "127.0.3.0/30,::2/128"]
    with ExitStack() as stack:
        relay = stack.enter_context(derper(tmp_path, *flags, tls=False))
        port = relay.port("HTTP")

        def admitted(*sources: str) -> int:
            socks = [stack.enter_context(connect(port, source)) for source in sources]
            # By its answer the others have been taken, or closed.
            assert is_in(stack.enter_context(connect(port)))
            return sum(is_open(sock) for sock in socks)

        assert 2 <= admitted(*["127.0.1.1", "127.0.1.99"] * 30) <= most
        assert admitted("127.0.2.1", "127.0.2.2") == 2
        assert admitted(*["127.0.3.1"] * 60) == 60
        assert admitted(*["127.0.0.1"] * 60) == 60
        told = relay_log(relay)
        assert sum(f'reason="{reason}: ' in line for line in told) == 1
        assert sum(f'reason="{reason} 127.0.1.0/24" connections=' in line for line in told) == 1


def relay_log(relay: Derper) -> list[str]:
    assert relay.stop() == 0
    return relay.log


def is_open(sock: socket.socket) -> bool:
    sock.setblocking(False)
    try:
        return sock.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


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
