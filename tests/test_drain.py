"""What a relay does to stop, as far as no process is needed for it."""

import socket

import pytest
import trio
import trio.testing

from derp import drain
from derp.net.poller import Poller
from tests.peers import RESTARTING
from tests.relays import running, with_mesh_key

Clock = trio.testing.MockClock


async def test_whoever_gets_the_number_of_a_closed_listener_can_lend_it() -> None:
    async with running() as relay:
        poller: Poller = relay.server.poller
        listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
        numbers = {listener.fileno() for listener in listeners}
        for listener in listeners:
            poller.add_urgent(listener.fileno())
        drain.stop_listening(relay.server, listeners)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            assert ours.fileno() in numbers
            poller.under_way += 1
            with trio.move_on_after(0) as scope:
                await poller.lend(ours.fileno(), lambda: True, lambda _: None)
            assert scope.cancelled_caught
            poller.under_way -= 1


async def test_relays_are_told_to_come_back_soon_and_clients_to_spread_out(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain.random, "randrange", lambda spread: spread - 1)
    async with running(with_mesh_key) as relay:
        peer, client = await relay.mesh_login(), await relay.login()
        await drain.drain(relay.server)
        for who, moment in ((peer, 1000), (client, 1999)):
            kind, payload = await who.receive()
            assert kind == RESTARTING
            assert int.from_bytes(payload[:4]) == moment
            assert int.from_bytes(payload[4:]) == 12_000
