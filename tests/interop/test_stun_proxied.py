"""The warning of what hides STUN's clients, with the addresses and routes of a container.

The container has a default gateway, its bridge, from whose address a forwarder sends on what
clients ask; rootlesskit's sends from within the container.
"""

import itertools
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.interop.netns import Namespace, link, skip_unless_possible
from tests.interop.relay import REPO, die_with_parent
from tests.interop.scenarios_stun import USUAL, with_transaction

PATIENCE = 20.0
CONTAINER, BRIDGE, ANOTHER = "10.55.0.2", "10.55.0.1", "10.55.0.9"
CONTAINER6, BRIDGE6, ANOTHER6 = "fd55::2", "fd55::1", "fd55::9"
GATEWAY, OWN = "the default gateway of this machine", "an address of this machine itself"

numbers = itertools.count(1)


class Server:
    """The server in the container, and who asks it."""

    def __init__(self, container: Namespace, bridge: Namespace, *arguments: str) -> None:
        self.container, self.bridge = container, bridge
        self.process = subprocess.Popen(
            [*container.prefix, sys.executable, "-m", "tests.interop.stepped_stun", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPO,
            preexec_fn=die_with_parent,  # noqa: PLW1509 — no threads here
        )
        self.port = int(self._line().removeprefix("port "))
        self.said: list[str] = []

    def _line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().rstrip("\n")

    def jump(self, seconds: float) -> None:
        assert self.process.stdin
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()
        while (line := self._line()) != "jumped":
            assert line, "the server has ended"
            self.said.append(line)

    def client(self, address: str, asked: str, *, inside: bool = False) -> socket.socket:
        """A socket with this address that asks that one."""
        sock = (self.container if inside else self.bridge).udp(address)
        sock.settimeout(PATIENCE)
        sock.connect((asked, self.port))
        return sock

    def ask(self, *clients: socket.socket) -> None:
        for client in clients:
            client.send(with_transaction(USUAL, next(numbers)))
            assert client.recv(100).startswith(b"\x01\x01")

    def ask_for_minutes(self, *clients: socket.socket) -> None:
        """Ask as tailscaled does that is in use."""
        for _ in range(8):
            self.ask(*clients)
            self.jump(23)

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture(params=[()])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    skip_unless_possible("no container's network here")
    container, bridge = Namespace.make(), Namespace.make()
    server = None
    try:
        link(bridge, "bridge", container, "eth0")
        bridge.address("bridge", f"{BRIDGE}/24", f"{ANOTHER}/24", f"{BRIDGE6}/64", f"{ANOTHER6}/64")
        container.address("eth0", f"{CONTAINER}/24", f"{CONTAINER6}/64")
        container.run("ip", "route", "add", "default", "via", BRIDGE)
        container.run("ip", "-6", "route", "add", "default", "via", BRIDGE6)
        server = Server(container, bridge, *request.param)
        yield server
    finally:
        if server is not None:
            server.close()
        container.close()
        bridge.close()


@pytest.mark.parametrize(
    ("address", "asked", "inside", "whose"),
    [
        pytest.param(BRIDGE, CONTAINER, False, GATEWAY, id="bridge"),
        pytest.param(BRIDGE6, CONTAINER6, False, GATEWAY, id="bridge with IPv6"),
        pytest.param(CONTAINER, CONTAINER, True, OWN, id="rootlesskit"),
        pytest.param(CONTAINER6, CONTAINER6, True, OWN, id="rootlesskit with IPv6"),
    ],
)
def test_forwarded(server: Server, address: str, asked: str, inside: bool, whose: str) -> None:
    with (
        server.client(address, asked, inside=inside) as one,
        server.client(address, asked, inside=inside) as other,
    ):
        server.ask_for_minutes(one, other)
    (line,) = server.said
    assert line.startswith(
        f"WARNING STUN requests of different clients come from {address}, {whose}: "
    )


def test_programs_of_this_machine(server: Server) -> None:
    """Its own tailscaled, and a check each half minute."""
    with server.client(CONTAINER, CONTAINER, inside=True) as tailscaled:
        for _ in range(20):
            with server.client(CONTAINER, CONTAINER, inside=True) as check:
                server.ask(tailscaled, check)
                server.jump(30)
    assert not server.said


def test_clients_that_are_seen(server: Server) -> None:
    """One is enough, and the neighbour's two clients are then of no account."""
    with (
        server.client(BRIDGE, CONTAINER) as one,
        server.client(BRIDGE, CONTAINER) as other,
        server.client(ANOTHER, CONTAINER) as seen,
    ):
        server.ask(one, other, seen)
        server.ask_for_minutes(one, other)
    assert not server.said


@pytest.mark.parametrize("server", [("container",)], indirect=True)
@pytest.mark.parametrize("gateway", [BRIDGE, BRIDGE6])
def test_some_clients_that_are_seen(server: Server, gateway: str) -> None:
    """As on Docker's bridge, whose proxy passes on what comes over IPv6 only."""
    asked, seen = (CONTAINER, ANOTHER) if gateway == BRIDGE else (CONTAINER6, ANOTHER6)
    with (
        server.client(gateway, asked) as one,
        server.client(gateway, asked) as other,
        server.client(seen, asked) as direct,
    ):
        server.ask_for_minutes(direct)
        assert not server.said
        server.ask_for_minutes(direct, one, other)
    (line,) = server.said
    assert line.startswith(f"WARNING STUN requests of different clients come from {gateway}, ")


def test_two_clients_at_an_address_of_their_own(server: Server) -> None:
    with (
        server.client(ANOTHER, CONTAINER) as one,
        server.client(ANOTHER, CONTAINER) as other,
    ):
        server.ask_for_minutes(one, other)
    assert not server.said


def test_loopback(server: Server) -> None:
    with (
        server.client("127.0.0.1", "127.0.0.1", inside=True) as one,
        server.client("127.0.0.1", "127.0.0.1", inside=True) as other,
    ):
        server.ask_for_minutes(one, other)
    assert not server.said
