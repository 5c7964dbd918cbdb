"""A mesh peer that stops reading, or a relay that we are linked to: nobody here must notice."""

import contextlib
import itertools
import json
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.mesh import MESH_KEY, Client, Clients, all_running, mesh, varz
from tests.interop.rawderp import PATIENCE, Key, SilentError, Wire
from tests.interop.relay import Relay, TestCA
from tests.support.derp import (
    CLIENT_INFO,
    FORWARD_PACKET,
    MAGIC,
    PEER_GONE,
    PEER_PRESENT,
    PING,
    PONG,
    SERVER_INFO,
    SERVER_KEY,
    WATCH_CONNS,
    frame,
)
from tests.support.waiting import until

SMALL = 4096
"""Bytes that the kernel of who is stalled takes, about."""
OVERFLOWS = 'derp_packets_dropped{reason="queue_head",kind="other"}'
ROUNDS = 30
IN_FLIGHT = 16
"""Packets: less than what the Go derper queues for a client."""


def overflow(relay: Relay, sender: Client, to: Key) -> None:
    """Send to somebody who does not read until packets are dropped for it."""

    def dropped() -> bool:
        for _ in range(500):
            sender.send(to, bytes(1400))
        sender.settle()
        return varz(relay)[OVERFLOWS] > 0

    until("packets are dropped", dropped)


def live_on(relay: Relay, clients: Clients, sender: Client, stalled: Key) -> None:
    """Have others come, talk and go meanwhile; nothing of that may be lost."""
    alice, bob = clients.connect(relay, "alice"), clients.connect(relay, "bob")
    for number in range(ROUNDS):
        for _ in range(IN_FLIGHT):
            sender.send(stalled, bytes(1400))
        packets = [bytes([number, n]) * 500 for n in range(IN_FLIGHT)]
        for packet in packets:
            alice.send(bob.key, packet)
        for packet in packets:
            assert bob.take_packet() == (alice.key.public, packet)
        with contextlib.closing(clients.connect(relay, "carol")) as carol:
            carol.send(bob.key, b"came")
            assert bob.take_packet() == (carol.key.public, b"came")
            bob.send(carol.key, b"welcome")
            assert carol.take_packet() == (bob.key.public, b"welcome")
        # It is told once only, however often she comes back.
        if number == 0:
            bob.take()
    assert varz(relay)["derp_sclient_write_timeouts"] == 0


def test_a_watcher_that_stops_reading_holds_up_nobody(
    under_test: list[str], test_ca: TestCA, tmp_path: Path, clients: Clients
) -> None:
    with all_running(mesh(tmp_path, test_ca, {"ours": under_test})) as (relay,):
        stalled = clients.connect(relay, "stalled", mesh_key=MESH_KEY, receive_buffer=SMALL)
        stalled.frame(WATCH_CONNS)
        sender = clients.connect(relay, "sender")
        overflow(relay, sender, stalled.key)
        live_on(relay, clients, sender, stalled.key)
        assert varz(relay)["derp_watchers"] == 1
        # It wakes up, and learns what is true by now.
        present = set()
        last = clients.connect(relay, "last").key.public
        while last not in present:
            kind, payload = stalled.take()
            if kind == PEER_PRESENT:
                present.add(payload[:32])
            elif kind == PEER_GONE:
                present.discard(payload[:32])
        names = ("stalled", "sender", "alice", "bob", "last")
        assert present == {Key.named(name).public for name in names}


class OtherRelay:
    """A relay that one of ours dials: it says what it is told to, and reads when it is asked."""

    KEY = Key.named("the other relay")

    def __init__(self, ca: TestCA, folder: Path) -> None:
        ca.issue(folder, "localhost")
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(folder / "localhost.crt", folder / "localhost.key")
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen()
        self.listener.settimeout(PATIENCE)
        self.port: int = self.listener.getsockname()[1]

    @contextlib.contextmanager
    def linked(self) -> Iterator[Wire]:
        """Accept a link, up to the wish to watch."""
        sock, _ = self.listener.accept()
        sock.settimeout(PATIENCE)
        wire = Wire(self._tls.wrap_socket(sock, server_side=True))
        with contextlib.closing(wire):
            wire.take_until(b"\r\n\r\n")
            wire.send(b"HTTP/1.1 101 \r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\n")
            wire.send(frame(SERVER_KEY, MAGIC + self.KEY.public))
            kind, payload = wire.take_frame()
            assert kind == CLIENT_INFO
            info = json.loads(self.KEY.open(payload[:32], payload[32:]))
            assert info["meshKey"] == MESH_KEY.hex()
            wire.send(frame(SERVER_INFO, self.KEY.seal(payload[:32], b'{"version":2}')))
            while (came := wire.take_frame())[0] != WATCH_CONNS:
                assert came[0] == PING
            yield wire


@pytest.fixture
def other(test_ca: TestCA, tmp_path: Path) -> Iterator[OtherRelay]:
    folder = tmp_path / "other"
    folder.mkdir()
    relay = OtherRelay(test_ca, folder)
    with relay.listener:
        yield relay


def test_a_relay_that_stops_reading_holds_up_nobody(
    under_test: list[str],
    test_ca: TestCA,
    tmp_path: Path,
    clients: Clients,
    other: OtherRelay,
    is_go: bool,
) -> None:
    if is_go:
        pytest.skip("the Go derper has the sender wait, for 5 s")
    (relay,) = mesh(tmp_path, test_ca, {"ours": under_test})
    relay.flags = [*relay.flags[:-1], f"localhost:{other.port}/127.0.0.1"]
    remote = Key.named("remote")
    with all_running([relay]), other.linked() as link:
        address = bytes(10) + b"\xff\xff" + bytes([192, 0, 2, 1])
        link.send(frame(PEER_PRESENT, remote.public + address + b"\x00\x01" + b"\x01"))
        until("it has a client", lambda: varz(relay)["derp_clients_remote"] == 1)
        sender = clients.connect(relay, "sender")
        overflow(relay, sender, remote)
        live_on(relay, clients, sender, remote)
        # It wakes up: what comes are whole frames, and none is lost that is not counted.
        count = read_up_to_mark(link, sender, remote)
        metrics = varz(relay)
        assert count + metrics[OVERFLOWS] == metrics["derp_packets_forwarded_out"]
        sender.send(remote, b"fresh")
        assert take_forwarded(link, sender, remote) == b"fresh"


def read_up_to_mark(link: Wire, sender: Client, to: Key) -> int:
    """Read forwarded packets up to one sent after all others; return how many they are with it.

    A mark that waits for too long behind the others is dropped, as they are: then another is sent.
    """
    deadline = time.monotonic() + PATIENCE
    count = 0
    for number in itertools.count():
        mark = b"mark %d" % number
        sender.send(to, mark)
        while comes(link):
            count += 1
            if (packet := take_forwarded(link, sender, to)) == mark:
                return count
            assert packet == bytes(1400) or packet.startswith(b"mark ")
        if time.monotonic() > deadline:
            break
    pytest.fail("no mark has come")


def comes(link: Wire) -> bool:
    """Whether anything comes soon; it is not taken."""
    if not link.buffer:
        with contextlib.suppress(SilentError):
            link.more(time.monotonic() + 0.2)
    return bool(link.buffer)


def take_forwarded(link: Wire, sender: Client, to: Key) -> bytes:
    """Wait for one forwarded packet; what else is sent on a link does not count."""
    while (came := link.take_frame())[0] == PING:
        link.send(frame(PONG, came[1]))
    head = sender.key.public + to.public
    assert (came[0], came[1][: len(head)]) == (FORWARD_PACKET, head)
    return came[1][len(head) :]
