"""What a client moves: in its last log line, and in the accounts."""

import socket
from collections.abc import Iterable
from typing import Any

import nacl.public
import pytest
import trio
import trio.testing

from derp.accounts.counts import ZERO, Counts
from derp.accounts.keeper import Accounts
from derp.accounts.unwritten import Unwritten
from derp.errors import ConnectionEnd, RelayStopping
from derp.net.tcp import TCPTransport
from derp.net.websocket import WebSocketTransport
from derp.session import accounting
from derp.session.serve import serve
from derp.session.state import RelayState
from tests.memory_transport import CLIENT, SERVER
from tests.peers import SEND, Peer, disco, frame
from tests.relays import MESH_KEY, running, with_mesh_key
from tests.support.ends import StreamEnd


class Sink:
    name = "nowhere"
    is_shared = False

    async def write(self, pending: Unwritten, today: str, wanted: Iterable[bytes]) -> dict:
        return {}

    async def close(self) -> None: ...


@pytest.fixture
def accounts() -> Accounts:
    return Accounts(Sink(), wall=lambda: 1_796_126_400.0)


def counted(accounts: Accounts, key: bytes) -> Counts:
    found = ZERO
    for _, of, counts in accounts._unwritten:
        if of == key:
            found = found.plus(counts)
    return found


def with_accounts(accounts: Accounts) -> Any:
    def prepare(state: RelayState) -> None:
        state.accounts = accounts
        with_mesh_key(state)

    return prepare


class OverTCP:
    """Counts what it sends and receives, which TCP has acknowledged once it was answered."""

    def __init__(self, ours: socket.socket) -> None:
        ours.setblocking(False)
        self.socket = ours
        self.end = StreamEnd(trio.SocketStream(trio.socket.from_stdlib_socket(ours)))
        self.sent = self.received = 0

    async def send(self, data: bytes) -> None:
        self.sent += len(data)
        await self.end.send(data)

    async def receive(self) -> bytes:
        data = await self.end.receive()
        self.received += len(data)
        return data


def pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    theirs.setblocking(False)
    return ours, theirs


@pytest.mark.parametrize("ending", ["close", "reset", "close, then reset", "by the relay"])
async def test_bytes_are_those_that_tcp_has_acknowledged(
    accounts: Accounts, ending: str, nursery: trio.Nursery
) -> None:
    async with running(with_accounts(accounts)) as relay:
        ours, theirs = pair()
        transport, fields = TCPTransport(theirs, CLIENT, SERVER), {}
        ended = trio.Event()

        async def connection() -> None:
            try:
                await serve(relay.state, transport, b"", fields, not_ideal=False)
            except ConnectionEnd as error:
                fields["end"] = error
            transport.close()
            ended.set()

        nursery.start_soon(relay.state.poller.run)
        nursery.start_soon(connection)
        over = OverTCP(ours)
        peer = await Peer(over).log_in()
        other = await relay.login()
        await other.send_packet(peer.key, bytes(500))
        await peer.receive_packet()
        # What the client sends acknowledges what came before.
        for size in (1, 1000, 60_000):
            await peer.send_packet(other.key, bytes(size))
            await other.receive_packet()
        await accounting.collect(relay.state)
        assert counted(accounts, peer.key)[:4] == (over.received, over.sent, 1, 3)
        await peer.ping()
        await peer.send_packet(other.key, b"!")
        await other.receive_packet()
        if ending == "close":
            ours.close()
        elif ending == "reset":
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, *bytes(7)]))
            ours.close()
        elif ending == "close, then reset":
            # As by a client that is closed while packets come; the relay learns of both at once.
            ours.shutdown(socket.SHUT_WR)
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, *bytes(7)]))
            ours.close()
        else:
            (client,) = relay.hub.clients(peer.key)
            client.end(RelayStopping("now"))
        await ended.wait()
        ours.close()
        assert counted(accounts, peer.key)[:4] == (over.received, over.sent, 1, 4)
        assert (fields["sent"], fields["received"]) == (over.received, over.sent)
        assert fields["seconds"] >= 0


async def test_a_websocket_counts_the_bytes_below_it() -> None:
    ours, theirs = pair()
    with ours, theirs:
        below = TCPTransport(theirs, CLIENT, SERVER)
        assert len(WebSocketTransport(below, b"").tcp_info()) == len(below.tcp_info())


async def test_time_and_packets_are_counted_once(
    accounts: Accounts, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(with_accounts(accounts)) as relay:
        one, two = await relay.login(), await relay.login()
        await one.end.send(frame(SEND, two.key + bytes(10)) * 5 + frame(SEND, two.key + disco()))
        await one.ping()
        await trio.sleep(30)
        for _ in range(3):
            await accounting.collect(relay.state)
        await trio.sleep(12.5)
        await one.end.aclose()
        await relay.end_of(one)
        assert counted(accounts, one.key)[2:] == (0, 6, 42_500)
        # A transport without TCP: what it has taken.
        assert counted(accounts, one.key).sent > 0
        await accounting.collect(relay.state)
        assert counted(accounts, two.key).packets_sent == 6


async def test_packets_that_wait_in_a_queue_are_counted_when_they_are_sent(
    accounts: Accounts, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(with_accounts(accounts)) as relay:
        one, two = await relay.login(), await relay.login(capacity=2000)
        for _ in range(10):
            await one.send_packet(two.key, bytes(900))
        await one.ping()
        await accounting.collect(relay.state)
        assert counted(accounts, two.key).packets_sent < 10
        for _ in range(10):
            await two.receive_packet()
        await accounting.collect(relay.state)
        assert counted(accounts, two.key).packets_sent == 10


async def test_a_mesh_peer_has_an_account_like_others(accounts: Accounts) -> None:
    async with running(with_accounts(accounts)) as relay:
        peer, one = await relay.mesh_login(), await relay.login()
        assert relay.state.is_mesh_key(MESH_KEY)
        source = bytes(nacl.public.PrivateKey.generate().public_key)
        await peer.send(0x0A, source + one.key + bytes(30))
        await one.receive_packet()
        await accounting.collect(relay.state)
        assert counted(accounts, peer.key).packets_received == 1


async def test_all_clients_are_collected_in_turns(accounts: Accounts) -> None:
    async with running(with_accounts(accounts)) as relay:
        peers = [await relay.login() for _ in range(accounting.CLIENTS_PER_TURN + 1)]
        with trio.testing.assert_checkpoints():
            await accounting.collect(relay.state)
        assert {key for _, key, _ in accounts._unwritten} == {peer.key for peer in peers}


async def test_without_accounts_the_log_line_still_says_it() -> None:
    fields: dict[str, Any] = {}
    async with running() as relay:
        peer = await relay.login()
        (client,) = relay.hub.clients(peer.key)
        assert set(accounting.left(relay.state, client)) == {"sent", "received", "seconds"}
        assert client.accounted == ZERO
    assert fields == {}
