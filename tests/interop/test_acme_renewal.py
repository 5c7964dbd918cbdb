"""Renewal, seen by those who are connected meanwhile, and by those who come."""

import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Self

import pytest

from tests.interop.issuing import acme_relay, forget_account, hang_up, issued, renewed, shake_with
from tests.interop.pebble import Pebble
from tests.interop.rawderp import PATIENCE, SERVER, Key, Wire, client_info
from tests.interop.relay import Relay, running
from tests.support.derp import (
    KEEP_ALIVE,
    RECV_PACKET,
    SEND_PACKET,
    SERVER_INFO,
    UPGRADE,
    frame,
    upgrade_request,
)
from tests.support.waiting import until

RATE = 1000
"""Packets a second."""
LAST = 2**64 - 1


def login(relay: Relay, key: Key, trust: ssl.SSLContext) -> Wire:
    """A DERP client that trusts whom it is told to."""
    raw = socket.create_connection((relay.host, relay.port), PATIENCE)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    wire = Wire(trust.wrap_socket(raw, server_hostname=relay.hostname))
    wire.send(upgrade_request(*UPGRADE, "Derp-Fast-Start: 1", host=relay.hostname))
    wire.take_frame()
    wire.send(client_info(key, b'{"version":2}', SERVER.public))
    assert wire.take_frame()[0] == SERVER_INFO
    return wire


class Stream:
    """Numbered packets from one client to another, at a steady rate as long as the block runs."""

    def __init__(self, relay: Relay, trust: ssl.SSLContext) -> None:
        self.alice, self.bob = Key.named("alice"), Key.named("bob")
        self.sink = login(relay, self.bob, trust)
        self.source = login(relay, self.alice, trust)
        self.sent = 0
        self.received: list[int] = []
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=run) for run in (self._send, self._receive)]

    def __enter__(self) -> Self:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Send no more, and wait for the last packet."""
        self.stopping.set()
        for thread in self.threads:
            thread.join(2 * PATIENCE)

    def close(self) -> None:
        self.source.close()
        self.sink.close()

    def _send(self) -> None:
        began = time.monotonic()
        while not self.stopping.is_set():
            due = int((time.monotonic() - began) * RATE)
            for number in range(self.sent, due):
                self._packet(number)
            self.sent = max(self.sent, due)
            time.sleep(0.005)
        self._packet(LAST)

    def _packet(self, number: int) -> None:
        payload = struct.pack(">Q", number).ljust(200, b"\0")
        self.source.send(frame(SEND_PACKET, self.bob.public + payload))

    def _receive(self) -> None:
        while True:
            kind, payload = self.sink.take_frame()
            if kind == KEEP_ALIVE:
                continue
            assert kind == RECV_PACKET
            (number,) = struct.unpack_from(">Q", payload, 32)
            if number == LAST:
                return
            self.received.append(number)


@pytest.fixture(scope="module")
def relays(
    under_test: list[str], authority: Pebble, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[str, Relay]]:
    """One for each test, by its host name; started together, for a certificate takes seconds."""
    hosts = {"busy.test": "127.0.0.13", "shared.test": "127.0.0.14", "gone.test": "127.0.0.15"}
    made = {}
    with ExitStack() as stack:
        for name, host in hosts.items():
            folder = tmp_path_factory.mktemp(name)
            relay = acme_relay(under_test, folder, authority, name, host)
            made[name] = stack.enter_context(running(relay))
        yield made


def test_nobody_who_is_connected_notices(relays: Mapping[str, Relay], authority: Pebble) -> None:
    relay = relays["busy.test"]
    old = issued(relay, authority)
    with closing(Stream(relay, authority.trust())) as stream:
        with stream:
            until("packets flow", lambda: len(stream.received) > RATE / 2)
            new = renewed(relay, authority, old.chain[0])
            after = stream.sent
            until("packets flow still", lambda: len(stream.received) > after + RATE / 2)
        assert stream.received == list(range(stream.sent))
    assert new.leaf.public_key() != old.leaf.public_key()


def test_two_relays_share_a_certdir(
    under_test: list[str], relays: Mapping[str, Relay], authority: Pebble, tmp_path: Path
) -> None:
    """While one orders, the other waits, and then takes what there is."""
    one = relays["shared.test"]
    old = issued(one, authority)
    two = acme_relay(
        *(under_test, tmp_path, authority, "shared.test", "127.0.0.16"), certdir=one.certdir
    )
    with running(two), socket.create_server(("127.0.0.17", authority.http_port)) as third:
        assert shake_with(two).chain == old.chain
        before = authority.orders
        # The authority asks a third, who passes it on once both had a try.
        authority.names.point("shared.test", "127.0.0.17")
        third.settimeout(PATIENCE)
        authority.suggest(old.chain[0], hours=-2)
        forget_account(one)
        hang_up(one)
        # From here on the one has the lock, for it is in the midst of its order.
        asking = [third.accept()[0] for _ in range(VALIDATIONS)]
        assert "ordering a certificate" not in two.log
        hang_up(two)
        two.wait_for_log("ordering a certificate")
        for each in asking:
            pass_on(each, (one.host, one.http_port))
        new = issued(one, authority, other_than=old.chain[0])
        assert issued(two, authority, other_than=old.chain[0]).chain == new.chain
        assert authority.orders == before + 1


VALIDATIONS = 3
"""How often pebble asks, at the same time."""


def pass_on(asking: socket.socket, to: tuple[str, int]) -> None:
    """One HTTP request that was made here, and its answer."""
    with asking, socket.create_connection(to, PATIENCE) as there:
        asking.settimeout(PATIENCE)
        there.sendall(asking.recv(65536))
        while answer := there.recv(65536):
            asking.sendall(answer)


def test_the_authority_is_gone_for_a_while(relays: Mapping[str, Relay], authority: Pebble) -> None:
    """From the midst of an order on; and once it is back, it has forgotten who we are."""
    relay = relays["gone.test"]
    old = issued(relay, authority)
    with socket.create_server(("127.0.0.18", authority.http_port)) as silent:
        silent.settimeout(PATIENCE)
        authority.names.point("gone.test", "127.0.0.18")
        authority.suggest(old.chain[0], hours=-2)
        forget_account(relay)
        hang_up(relay)
        with silent.accept()[0]:
            authority.stop()
    relay.wait_for_log("the old certificate stays in force.*gone.test")
    assert shake_with(relay).chain == old.chain
    authority.names.point("gone.test", relay.host)
    authority.start()
    hang_up(relay)
    issued(relay, authority, other_than=old.chain[0])
