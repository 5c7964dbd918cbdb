"""Relays that are meshed with each other, the Go derper's and ours, and clients of them."""

import json
import os
import socket
import ssl
import struct
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from tests.interop.rawderp import PATIENCE, Key, SilentError, Wire, client_info
from tests.interop.relay import (
    START_TIMEOUT,
    Relay,
    TestCA,
    die_with_parent,
    environment,
    running,
)
from tests.support.derp import (
    HEALTH,
    KEEP_ALIVE,
    MAGIC,
    PING,
    PONG,
    RECV_PACKET,
    RESTARTING,
    SEND_PACKET,
    SERVER_INFO,
    SERVER_KEY,
    UPGRADE,
    frame,
    upgrade_request,
)
from tests.support.waiting import until

MESH_KEY = bytes(range(1, 33))
WRONG_KEY = bytes(range(33, 65))

MESH_PATIENCE = 25.0
"""Seconds until relays are meshed: the Go derper waits for 5 before it dials once more."""


def reach_each_other(derpcheck: Path, ca: TestCA, relays: Sequence[Relay]) -> None:
    """Have a Go client at each relay send to all others: byte for byte, and told of who leaves."""
    done = subprocess.run(
        [derpcheck, "across", *(relay.url for relay in relays)],
        env=environment(SSL_CERT_FILE=str(ca.pem)),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.stdout, done.stderr
    assert json.loads(done.stdout)["ok"], done.stdout


def weather_a_storm(
    derpcheck: Path, ca: TestCA, pair: Sequence[Relay], clients: "Clients", place: int
) -> None:
    """Have a thousand connections come and go at the relay of that place.

    The other one has to know exactly those that stay, and in the end that nobody did.
    """
    stormy, watcher = pair[place], pair[1 - place]
    before = until_quiet(pair)["derp_clients_remote"]
    stay = 40
    with subprocess.Popen(
        [derpcheck, "storm", "-tls", stormy.url, "-n", "1000", "-stay", str(stay)],
        env=environment(SSL_CERT_FILE=str(ca.pem)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=die_with_parent,  # noqa: PLW1509 — no threads here
    ) as storm:
        assert storm.stdout
        keys = [Key(key, b"", bytes.fromhex(key)) for key in json.loads(storm.stdout.readline())]
        assert len(keys) == stay
        remote = before + stay
        until("so many", lambda: varz(watcher)["derp_clients_remote"] == remote)
        # Not only as many, but these.
        client = clients.connect(watcher, "alice")
        for key in keys:
            reach_echo(client, key)
        assert varz(watcher)["derp_clients_remote"] == remote
    until("all are gone", lambda: varz(watcher)["derp_clients_remote"] == before)
    for relay in pair:
        relay.check_alive()


def until_quiet(pair: Sequence[Relay]) -> dict[str, float]:
    """Wait until nobody is connected any more but the links; return the metrics of the first."""
    for relay in pair:
        until("everybody has left", lambda relay=relay: varz(relay)["derp_clients_total"] == 2)
    return varz(pair[0])


def mesh(
    folder: Path,
    ca: TestCA,
    commands: Mapping[str, Sequence[str]],
    keys: Mapping[str, bytes] | None = None,
    *,
    stun: bool = False,
    itself: bool = False,
) -> list[Relay]:
    """Make a relay of each command, not started yet, that dials all others, or also itself.

    `keys` names those that have another mesh key than the others.
    """
    relays = []
    for name, command in commands.items():
        place = folder / name
        place.mkdir()
        ca.issue(place, "localhost")
        (place / "mesh.key").write_text((keys or {}).get(name, MESH_KEY).hex())
        environment = {**os.environ, "SSL_CERT_FILE": str(ca.pem)}
        relays.append(Relay(name, command, place, stun=stun, env=environment))
    for relay in relays:
        others = [other for other in relays if itself or other is not relay]
        # What is dialled is another name than the certificate's: a host may have several.
        entries = ",".join(f"localhost:{other.port}/127.0.0.1" for other in others)
        relay.flags = ["-mesh-psk-file", str(relay.folder / "mesh.key"), "-mesh-with", entries]
    return relays


@contextmanager
def all_running(relays: Sequence[Relay]) -> Iterator[Sequence[Relay]]:
    """Start the relays in this order; the Go derper should be the last, since it is patient."""
    with ExitStack() as stack:
        for relay in relays:
            stack.enter_context(running(relay))
        yield relays


def wait_until_meshed(relays: Sequence[Relay]) -> None:
    """Wait until every relay is watched by all others, which is what their links begin with."""
    for relay in relays:
        until(
            f"{relay.name} is watched by {len(relays) - 1} others",
            lambda relay=relay: varz(relay)["derp_watchers"] == len(relays) - 1,
        )


def varz(relay: Relay) -> dict[str, float]:
    """The relay's metrics, by name and labels."""
    url = f"http://{relay.host}:{relay.http_port}/debug/varz"
    with urllib.request.urlopen(url, timeout=START_TIMEOUT) as page:
        lines = page.read().decode().splitlines()
    pairs = (line.rpartition(" ") for line in lines if line.startswith("derp_"))
    return {name: float(value) for name, _, value in pairs}


def grown(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """What counters have grown by, of those that have."""
    return {
        name: value - before.get(name, 0)
        for name, value in after.items()
        if value != before.get(name, 0)
    }


class Client:
    """A client of one relay, or a mesh peer; see Clients."""

    def __init__(
        self,
        relay: Relay,
        ca: TestCA,
        key: Key,
        *headers: str,
        info: Mapping[str, object],
        receive_buffer: int,
    ) -> None:
        """Log in. `receive_buffer` is how many bytes the kernel is to hold unread, about."""
        self.relay = relay
        self.key = key
        sock = socket.socket()
        sock.settimeout(PATIENCE)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.connect((relay.host, relay.port))
        tls = ssl.create_default_context(cafile=ca.pem)
        self.wire = Wire(tls.wrap_socket(sock, server_hostname="localhost"))
        self.wire.send(upgrade_request(*UPGRADE, "Derp-Fast-Start: 1", *headers))
        kind, payload = self.wire.take_frame()
        assert kind == SERVER_KEY
        assert payload.startswith(MAGIC)
        self.server_key = payload[len(MAGIC) :][:32]
        self.wire.send(client_info(key, {"version": 2, **info}, self.server_key))
        kind, payload = self.wire.take_frame()
        assert kind == SERVER_INFO

    @property
    def address(self) -> tuple[str, int]:
        """Where the relay sees it."""
        host, port = self.wire.sock.getsockname()
        return str(host), int(port)

    def close(self) -> None:
        self.wire.close()

    def frame(self, kind: int, payload: bytes = b"") -> None:
        self.wire.send(frame(kind, payload))

    def send(self, to: Key, packet: bytes) -> None:
        self.frame(SEND_PACKET, to.public + packet)

    def take(self, patience: float = PATIENCE) -> tuple[int, bytes]:
        """The next frame but keep-alives and the like. Raises SilentError, losing nothing."""
        deadline = time.monotonic() + patience
        while True:
            while len(self.wire.buffer) < 5 + self._length():
                self.wire.more(deadline)
            kind = self.wire.buffer[0]
            payload = self.wire.take(5 + self._length())[5:]
            if kind not in {KEEP_ALIVE, RESTARTING, HEALTH}:
                return kind, payload

    def _length(self) -> int:
        if len(self.wire.buffer) < 5:
            return 0
        (length,) = struct.unpack(">I", self.wire.buffer[1:5])
        return int(length)

    def take_packet(self, patience: float = PATIENCE) -> tuple[bytes, bytes]:
        """Source and packet of the next frame, which has to be a packet."""
        kind, payload = self.take(patience)
        assert kind == RECV_PACKET, f"frame of type {kind:#x}: {payload[:40].hex()}"
        return payload[:32], payload[32:]

    def settle(self) -> list[tuple[int, bytes]]:
        """All frames that are under way.

        A ping may overtake what is queued, and the Go derper may answer it ahead of what it already
        had, but not two of them.
        """
        came = []
        for number in (1, 2):
            mark = f"settle{number}\x00".encode()
            self.frame(PING, mark)
            while (got := self.take()) != (PONG, mark):
                came.append(got)
        return came


class Clients(ExitStack):
    """Connects clients, which are closed at the end of the block."""

    def __init__(self, ca: TestCA) -> None:
        super().__init__()
        self.ca = ca

    def connect(
        self,
        relay: Relay,
        name: str,
        *headers: str,
        mesh_key: bytes | None = None,
        receive_buffer: int = 0,
    ) -> Client:
        """Log in with the key of this name; with the mesh key, as a mesh peer."""
        info = {} if mesh_key is None else {"meshKey": mesh_key.hex()}
        key = Key.named(name)
        client = Client(relay, self.ca, key, *headers, info=info, receive_buffer=receive_buffer)
        return self.enter_context(closing(client))


PROBE = b"are you there yet? "


def reach(sender: Client, receiver: Client) -> None:
    """Send a packet until it arrives: relays need a moment to tell each other of a new client."""
    _send_until_it_comes(sender, receiver.key, receiver, sender.key)


def reach_echo(client: Client, echo: Key) -> None:
    """Send a packet until it comes back from `echo`."""
    _send_until_it_comes(client, echo, client, echo)


def _send_until_it_comes(sender: Client, to: Key, receiver: Client, source: Key) -> None:
    mark = PROBE + os.urandom(8)
    deadline = time.monotonic() + MESH_PATIENCE
    while True:
        sender.send(to, mark)
        try:
            while receiver.take(0.1) != (RECV_PACKET, source.public + mark):
                pass
        except SilentError:
            who = f"{sender.key.name} at {sender.relay.name}"
            assert time.monotonic() < deadline, f"{who} does not reach {to.name}"
        else:
            return


def pass_packet(sender: Client, receiver: Client, packet: bytes) -> None:
    """Send a packet, which must arrive whole; probes that come late don't count."""
    sender.send(receiver.key, packet)
    source, got = receiver.take_packet()
    while got.startswith(PROBE):
        source, got = receiver.take_packet()
    assert (source, got) == (sender.key.public, packet)
