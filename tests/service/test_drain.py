"""What a relay does to stop, as far as no process is needed for it."""

import socket
from functools import partial

import pytest
import trio
import trio.testing

from derp.errors import RelayStopping
from derp.net.poller import Poller
from derp.relay.health import Conditions, text
from derp.service import drain
from derp.session import turns
from derp.session.client import Client
from tests.peers import PING, PONG, RESTARTING, Peer
from tests.relays import running, with_mesh_key
from tests.support.derp import HEALTH
from tests.turns import counted_turns

Clock = trio.testing.MockClock


async def test_whoever_gets_the_number_of_a_closed_listener_can_lend_it() -> None:
    async with running() as relay:
        poller: Poller = relay.state.poller
        listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
        numbers = {listener.fileno() for listener in listeners}
        for listener in listeners:
            poller.add_urgent(listener.fileno())
        drain.stop_listening(relay.state, listeners)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            assert ours.fileno() in numbers
            poller.busy_tasks += 1
            with trio.move_on_after(0) as scope:
                await poller.register(ours.fileno(), lambda: True, lambda _: None)
            assert scope.cancelled_caught
            poller.busy_tasks -= 1


async def test_relays_are_told_to_come_back_soon_and_clients_to_spread_out(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain.random, "randrange", lambda spread: spread - 1)  # type: ignore[attr-defined]
    async with running(with_mesh_key) as relay:
        peer, client = await relay.mesh_login(), await relay.login()
        relay.state.stopping = True
        await drain.drain(relay.state)
        for who, moment in ((peer, 1000), (client, 1999)):
            kind, payload = await who.receive()
            assert kind == RESTARTING
            assert int.from_bytes(payload[:4]) == moment
            assert int.from_bytes(payload[4:]) == 12_000
        # Health is for people: a relay that stops says so to clients only.
        await peer.send(PING, b"12345678")
        assert (await peer.receive())[0] == PONG


async def test_clients_are_told_in_words_too(autojump_clock: Clock) -> None:
    async with running() as relay:
        client = await relay.login()
        relay.state.stopping = True
        await drain.drain(relay.state)
        assert (await client.receive())[0] == RESTARTING
        kind, payload = await client.receive()
        assert (kind, payload.decode()) == (HEALTH, text(Conditions(stopping=True)))


async def test_other_tasks_run_while_clients_are_told(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And each is told in one write."""
    monkeypatch.setattr(turns, "LOOKS_PER_TURN", 10)
    real = Client.send_control
    async with running() as relay:
        clients = [await relay.login() for _ in range(50)]
        with counted_turns() as counted:

            def counting(client: Client, frame: bytes, *, must: bool = False) -> bool:
                counted.note()
                return real(client, frame, must=must)

            monkeypatch.setattr(Client, "send_control", counting)
            relay.state.stopping = True
            await drain.drain(relay.state)
        assert counted.events.total() == len(clients)
        assert counted.most <= 10
        for client in clients:
            assert [(await client.receive())[0] for _ in range(2)] == [RESTARTING, HEALTH]


async def test_clients_are_ended_one_by_one(autojump_clock: Clock) -> None:
    over, ends = 10.0, []
    async with running(with_mesh_key) as relay:
        peer = await relay.mesh_login()
        clients = [await relay.login() for _ in range(5)]

        async def wait_for_end(client: Peer) -> None:
            await relay.end_of(client)
            ends.append(trio.current_time() - start)

        async with trio.open_nursery() as nursery:
            start = trio.current_time()
            for client in clients:
                nursery.start_soon(wait_for_end, client)
            await drain.drain(relay.state, drain_time=over)
        assert trio.current_time() - start == pytest.approx(over)
        assert ends == pytest.approx([0, 2, 4, 6, 8])
        # Clients are reached through it, to the very end.
        assert [member.can_mesh for member in relay.state.hub.members] == [True]
        assert (await peer.receive())[0] == RESTARTING


async def test_a_client_for_which_something_is_queued_stays(autojump_clock: Clock) -> None:
    async with running() as relay:
        await relay.login(capacity=1 << 10)
        (member,) = relay.state.hub.members
        while member.send_queue is None:
            member.send_control(bytes(1 << 10))
        await drain.drain(relay.state, drain_time=1.0)
        assert not isinstance(member.ending, RelayStopping)


async def test_a_client_that_leaves_meanwhile(autojump_clock: Clock) -> None:
    async with running() as relay:
        clients = [await relay.login() for _ in range(2)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(drain.drain, relay.state, drain_time=10.0))
            await trio.sleep(1)
            for client in clients:
                await client.end.aclose()
        assert not relay.state.hub.members
