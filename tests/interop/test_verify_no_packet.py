"""No packet of a refused client is ever relayed, however it tries; nor is one for it."""

import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress

import attrs
import pytest

from tests.interop.logins import DEADLINE, REFUSED, dial, hello, log_in, pass_packet, verdict_of
from tests.interop.oracle import REFUSE, Oracle, oracle, url_of
from tests.interop.rawderp import SERVER, EndedError, Key, Wire, client_info
from tests.interop.relay import Relay, TestCA, running, write_key_file
from tests.interop.scenarios_websocket import ASK, WebSocketWire, message
from tests.interop.tailnet import eventually
from tests.support.derp import (
    CLOSE_PEER,
    FORWARD_PACKET,
    KEEP_ALIVE,
    NOTE_PREFERRED,
    PEER_GONE,
    PING,
    PONG,
    SEND_PACKET,
    SERVER_KEY,
    UPGRADE,
    WATCH_CONNS,
    frame,
    upgrade_request,
)

ALICE, BOB = Key.named("alice, who is in"), Key.named("bob, who is in")
INTRUDER = Key.named("one who is out")
ELSEWHERE = "127.0.0.2"
DISCO = "TS💬".encode() + bytes(100)

ASKED = ("wait", 0.3)
"""Seconds: for so long it is not known who the intruder is."""


def everything(key: Key) -> bytes:
    """What a client could want to be relayed, and more."""
    tries = [
        frame(SEND_PACKET, ALICE.public + b"for alice"),
        frame(SEND_PACKET, BOB.public + DISCO),
        frame(SEND_PACKET, BOB.public + bytes(60_000)),
        frame(SEND_PACKET, key.public + b"for myself"),
        frame(FORWARD_PACKET, ALICE.public + BOB.public + b"as if from alice"),
        frame(NOTE_PREFERRED, b"\x01"),
        frame(WATCH_CONNS),
        frame(CLOSE_PEER, ALICE.public),
        frame(PING, b"8 bytes."),
    ]
    return b"".join(tries)


def at_once(wire: Wire, key: Key) -> Wire:
    """Login and packets in one write."""
    wire.send(hello(key, everything(key)))
    return wire


def step_by_step(wire: Wire, key: Key) -> Wire:
    """As an old client: after the answer to the upgrade, and after the server's key."""
    wire.send(upgrade_request(*UPGRADE))
    assert wire.take_response().status == 101
    assert wire.take_frame()[0] == SERVER_KEY
    wire.send(client_info(key, {"version": 2}, SERVER.public) + everything(key))
    return wire


def by_websocket(wire: Wire, key: Key) -> Wire:
    wire.send(upgrade_request(*ASK))
    assert wire.take_response().status == 101
    login = client_info(key, {"version": 2}, SERVER.public)
    wire.send(message(login + everything(key)) + message(everything(key)))
    return WebSocketWire(wire)


@attrs.frozen
class House:
    """A relay with alice and bob in it."""

    relay: Relay
    tls: ssl.SSLContext | None
    server: Oracle
    alice: Wire
    bob: Wire

    def dial(self, source: str = "127.0.0.1") -> Wire:
        return dial(self.relay, self.tls, source)

    def check_quiet(self) -> None:
        """Nothing came to alice and bob, and packets still come."""
        for wire in (self.alice, self.bob):
            wire.send(frame(PING, b"anybody?"))
            while (got := wire.take_frame())[0] == KEEP_ALIVE:
                pass
            assert got == (PONG, b"anybody?")
        pass_packet(self.alice, ALICE, self.bob, BOB)
        pass_packet(self.bob, BOB, self.alice, ALICE)


@pytest.fixture(scope="module", params=["plain", "tls"])
def house(
    under_test: list[str],
    test_ca: TestCA,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("house")
    write_key_file(folder / "derper.key", SERVER.private)
    test_ca.issue(folder, "localhost")
    tls = ssl.create_default_context(cafile=test_ca.pem) if request.param == "tls" else None
    with ExitStack() as stack:
        server = stack.enter_context(oracle(folder))
        server.admit(ALICE, BOB)
        server.say({f"{url_of(ALICE)} {ELSEWHERE}": [ASKED, *REFUSE]})
        flags = ["-verify-client-url", server.url]
        relay = Relay("relay", under_test, folder, tls=tls is not None, flags=flags)
        stack.enter_context(running(relay))
        inside = [stack.enter_context(closing(log_in(relay, key, tls))) for key in (ALICE, BOB)]
        yield House(relay, tls, server, *inside)


ENTER: Sequence[Callable[[Wire, Key], Wire]] = (at_once, step_by_step, by_websocket)


@pytest.mark.parametrize("enter", ENTER)
@pytest.mark.parametrize("asked", [[], [ASKED]], ids=["refused at once", "refused later"])
def test_refused(
    house: House, enter: Callable[[Wire, Key], Wire], asked: Sequence[tuple[str, float]]
) -> None:
    """It sends before, while and after it is refused; and comes again when that is remembered."""
    key = Key.named(f"{enter.__name__} {len(asked)}")
    house.server.admit(key, steps=[*asked, *REFUSE])
    for _ in range(2):
        with closing(house.dial()) as wire, suppress(EndedError):
            entered = enter(wire, key)
            while True:
                entered.send(everything(key))
        house.check_quiet()


def test_nothing_for_it(house: House) -> None:
    """Nothing reaches it while it is not known who it is, and nobody is told that it is there."""
    house.server.admit(INTRUDER, steps=[ASKED, *REFUSE])
    house.server.asked()
    with closing(house.dial()) as wire:
        step_by_step(wire, INTRUDER)
        eventually("the server is asked", DEADLINE, lambda: bool(house.server.asked().questions))
        house.alice.send(frame(SEND_PACKET, INTRUDER.public + DISCO))
        assert house.alice.take_frame() == (PEER_GONE, INTRUDER.public + b"\x01")
        house.bob.send(frame(SEND_PACKET, INTRUDER.public + b"no disco"))
        assert wire.rest() == b""
    house.check_quiet()


def test_duplicate(house: House) -> None:
    """Alice's key is refused from elsewhere, and does her no harm."""
    with closing(house.dial(ELSEWHERE)) as wire:
        wire.send(hello(ALICE, everything(ALICE)))
        # As long as it is not known who that is, what is for alice comes to alice.
        house.check_quiet()
        assert verdict_of(wire) == REFUSED
    house.check_quiet()
    with closing(house.dial(ELSEWHERE)) as wire, suppress(EndedError):
        assert verdict_of(at_once(wire, ALICE)) == REFUSED
    house.check_quiet()


def test_much(house: House, is_go: bool) -> None:
    """What a client sends until it is known waits outside."""
    if is_go:
        pytest.skip("the Go derper's memory is its own affair")
    before = house.relay.peak_memory()
    keys = [Key.named(f"sender of much {number}") for number in range(50)]
    house.server.admit(*keys, steps=[ASKED, *REFUSE])
    with ExitStack() as stack:
        wires = [stack.enter_context(closing(house.dial())) for _ in keys]
        for wire, key in zip(wires, keys, strict=True):
            wire.send(hello(key))
            wire.sock.setblocking(False)
        much = everything(INTRUDER) * 20
        while wires:
            for wire in list(wires):
                try:
                    wire.sock.send(much)
                except (BlockingIOError, ssl.SSLWantWriteError):
                    pass
                except OSError:
                    wires.remove(wire)
    house.check_quiet()
    assert house.relay.peak_memory() - before < 20_000
