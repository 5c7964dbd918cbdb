"""Workers that knock at each other's doors: unix sockets, for real."""

import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable

import nacl.public
import pytest
import trio
import trio.testing

from derp.errors import ConnectionEnd, NoLink
from derp.mesh.keeper import Keeper
from derp.metrics import DropReason
from derp.net.tcp import TCPTransport
from derp.session.state import RelayState
from derp.workers import links
from tests.patience import PATIENCE
from tests.peers import Peer
from tests.relays import Relay
from tests.workers.workers import WORKER_KEY


def make_door() -> tuple[socket.socket, bytes]:
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    door.bind("")
    door.listen()
    return door, door.getsockname()


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE):
        while not condition():
            await trio.testing.wait_all_tasks_blocked(0.002)


class House:
    """The doors of all workers, as their parent holds them."""

    def __init__(self, count: int) -> None:
        self.private = nacl.public.PrivateKey.generate()
        made = [make_door() for _ in range(count)]
        self.doors = [door for door, _ in made]
        self.addresses = [address for _, address in made]

    @contextlib.asynccontextmanager
    async def worker(
        self, number: int, worker_key: bytes = WORKER_KEY
    ) -> AsyncIterator[tuple[Relay, list[Keeper]]]:
        async with trio.open_nursery() as nursery:
            state = RelayState(self.private, nursery, write_timeout=2.0)
            state.become_worker(number, worker_key)
            nursery.start_soon(state.timers.run)
            nursery.start_soon(state.poller.run)
            async with trio.open_nursery() as connections:
                door = self.doors[number]
                connections.start_soon(links.accept_workers, door, state, connections)
                keepers = links.keepers(state, self.addresses, number)
                for keeper in keepers:
                    connections.start_soon(keeper.run)
                yield Relay(state, connections), keepers
                connections.cancel_scope.cancel()
            assert state.poller.busy_tasks == 0
            nursery.cancel_scope.cancel()

    def close(self) -> None:
        for door in self.doors:
            door.close()


@pytest.fixture
def house() -> House:
    return House(2)


@pytest.fixture(autouse=True)
def closed(house: House) -> object:
    yield
    house.close()


async def exchange(a: Peer, b: Peer, packets: int = 20) -> None:
    for number in range(packets):
        await a.send_packet(b.key, b"%d" % number)
        assert await b.receive_packet() == (a.key, b"%d" % number)


async def test_packets_between_workers(house: House) -> None:
    assert all(address.startswith(b"\0") for address in house.addresses)
    async with house.worker(0) as (here, (keeper,)), house.worker(1) as (there, _):
        assert keeper.name == "worker 1"
        a, b = await here.login(), await there.login()
        await until(lambda: here.hub.key_count == there.hub.key_count == 2)
        assert isinstance(keeper.link, links.WorkerLink)
        assert isinstance(keeper.link.transport, TCPTransport)
        assert str(keeper.link.transport.remote) == "worker:1"
        await exchange(a, b)
        await exchange(b, a)
        await a.end.aclose()
        await until(lambda: there.hub.key_count == 1)
        assert (await b.receive())[1][:32] == a.key


async def test_a_stream_between_workers_arrives(house: House) -> None:
    """More than a unix socket holds, so that packets wait, and gather on the other side."""
    count, size = 400, 30_000
    async with house.worker(0) as (here, _), house.worker(1) as (there, _):
        a, b = await here.login(capacity=1 << 22), await there.login(capacity=1 << 25)
        await until(lambda: here.hub.key_count == there.hub.key_count == 2)
        received = 0
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:

                async def send() -> None:
                    for number in range(count):
                        await a.send_packet(b.key, number.to_bytes(4, "big") + bytes(size))

                nursery.start_soon(send)
                while received < count - here.dropped(DropReason.QUEUE_HEAD):
                    source, packet = await b.receive_packet()
                    assert source == a.key
                    assert len(packet) == size + 4
                    received += 1
        assert received > count / 2
        assert there.metrics.packets_sent == received
        assert here.metrics.packets_received == count


async def test_a_dialler_waits_while_a_worker_is_restarted(house: House) -> None:
    async with house.worker(0) as (here, (keeper,)):
        a = await here.login()
        async with house.worker(1) as (there, _):
            await there.login()
            await until(lambda: here.hub.key_count == 2)
        await until(lambda: here.hub.key_count == 1)
        async with house.worker(1) as (there, _):
            b = await there.login()
            await until(lambda: here.hub.key_count == there.hub.key_count == 2)
            await exchange(a, b)
        assert keeper.trouble in {"", "closed"} or "reset" in keeper.trouble


async def test_a_lost_link_is_logged_unless_the_relay_stops(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "derper")
    async with house.worker(0) as (here, (keeper,)):
        async with house.worker(1):
            await until(lambda: keeper.link is not None)
        await until(lambda: keeper.link is None)
        (record,) = [r for r in caplog.records if r.getMessage() == "link lost"]
        assert record.levelno == logging.WARNING
        assert record.__dict__["fields"]["other"] == "worker 1"
        async with house.worker(1):
            await until(lambda: keeper.link is not None)
            caplog.clear()
            here.state.stopping = True
        await until(lambda: keeper.link is None)
        assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


async def test_another_secret_is_refused_on_either_side(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        house.worker(0) as (here, (keeper,)),
        house.worker(1, bytes(31) + b"x") as (there, _),
    ):
        await until(lambda: keeper.trouble != "")
        assert keeper.trouble.startswith("it refuses the login")
        await until(lambda: "refused a login that is no worker's" in caplog.text)
        assert not here.state.worker_links
        assert not there.state.worker_links
        assert here.metrics.connection_ends["login_refused"] == 0


async def test_another_users_process_is_refused(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = os.geteuid()
    async with house.worker(0) as (here, _):
        monkeypatch.setattr(os, "geteuid", lambda: user + 1)
        knocking = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with knocking:
            knocking.setblocking(False)
            knocking.connect(house.addresses[0])
            with trio.fail_after(PATIENCE):
                await trio.lowlevel.wait_readable(knocking)
            assert knocking.recv(100) == b""
        monkeypatch.undo()
        knocking = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with knocking:
            knocking.setblocking(False)
            knocking.connect(house.addresses[0])
            with trio.fail_after(PATIENCE):
                await trio.lowlevel.wait_readable(knocking)
            assert knocking.recv(100).startswith(b"\x01")
        assert not here.state.presence.worker_watchers


@pytest.mark.parametrize("said", [b"", b"\x02\0\0\0\x01x", b"GET / HTTP/1.1\r\n\r\n", bytes(500)])
async def test_garbage_on_the_workers_socket_does_no_harm(house: House, said: bytes) -> None:
    async with house.worker(0) as (here, _), house.worker(1) as (there, _):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as knocking:
            knocking.connect(house.addresses[0])
            knocking.send(said)
        a, b = await here.login(), await there.login()
        await until(lambda: here.hub.key_count == there.hub.key_count == 2)
        await exchange(a, b)
        assert here.metrics.accepts == 1
        assert not any(here.metrics.connection_ends.values())


async def test_a_bug_ends_one_connection_only_and_is_logged(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with house.worker(0):

        async def fail(*_: object) -> None:
            await trio.lowlevel.checkpoint()
            raise ZeroDivisionError

        monkeypatch.setattr("derp.workers.links.serve_worker", fail)
        async with house.worker(1):
            await until(lambda: "a worker's connection was ended by a bug" in caplog.text)


async def test_a_workers_socket_that_is_closed() -> None:
    door, address = make_door()
    door.close()
    with pytest.raises(NoLink, match="it can't be dialled: connection refused"):
        await links.dial_worker(address, 1)


async def test_a_workers_socket_with_a_full_backlog() -> None:
    door, address = make_door()
    door.listen(0)
    waiting = []
    try:
        transport, _ = await links.dial_worker(address, 1)
        waiting.append(transport)
        with pytest.raises(NoLink, match="it can't be dialled: resource temporarily unavailable"):
            await links.dial_worker(address, 1)
    finally:
        for transport in waiting:
            transport.close()
        door.close()


async def test_a_process_that_is_no_worker_is_not_shown_the_secret(house: House) -> None:
    async with house.worker(0) as (_, (keeper,)):
        house.doors[1].setblocking(False)
        await trio.lowlevel.wait_readable(house.doors[1])
        sock, _ = house.doors[1].accept()
        with sock:
            other = bytes(nacl.public.PrivateKey.generate().public_key)
            sock.send(b"\x01\0\0\0\x28" + bytes.fromhex("44455250f09f9491") + other)
            await until(lambda: keeper.trouble != "")
            assert keeper.trouble == "the greeting is not that of a worker of this relay"
            assert sock.recv(1000) == b""


async def test_an_ended_connection_is_no_error(house: House) -> None:
    async with house.worker(0) as (here, (keeper,)), house.worker(1) as (there, _):
        await until(lambda: keeper.link is not None and bool(there.state.worker_links))
        (peer,) = here.state.presence.worker_watchers
        peer.end(ConnectionEnd("for the test"))
        await until(lambda: not here.state.presence.worker_watchers)
        await until(lambda: bool(here.state.presence.worker_watchers))
        a, b = await here.login(), await there.login()
        await until(lambda: here.hub.key_count == there.hub.key_count == 2)
        await exchange(b, a)
