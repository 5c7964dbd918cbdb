"""Who is told that clients come and go, over memory transports: mesh peers that watch."""

import ipaddress
import random
from collections.abc import AsyncIterator

import nacl.public
import pytest
import trio
import trio.testing

from derp.errors import WatcherTooSlow, WriteTimeout
from derp.net.address import Endpoint
from derp.relay.presencequeue import MAX_FRAMES_TAKEN
from derp.session.client import UPDATE_SLACK, Client
from derp.session.state import RelayState
from tests.memory_transport import CLIENT, MemoryTransport
from tests.peers import FORWARD, GONE, PRESENT, WATCH, Peer, disco, frame
from tests.relays import MESH_KEY, Relay, running, with_mesh_key

REGULAR, MESH_PEER, PROBER, NOT_IDEAL = 1, 2, 4, 8

Clock = trio.testing.MockClock
Told = tuple[bytes, str, int, int]
"""Key, address, port and flags."""


@pytest.fixture
async def relay(autojump_clock: Clock) -> AsyncIterator[Relay]:
    async with running(with_mesh_key) as relay:
        yield relay


def told_of(payload: bytes) -> Told:
    assert len(payload) == 51
    address = ipaddress.IPv6Address(payload[32:48])
    host = str(address.ipv4_mapped or address)
    return payload[:32], host, int.from_bytes(payload[48:50]), payload[50]


def present(peer: Peer, flags: int = REGULAR, client: Endpoint = CLIENT) -> Told:
    return peer.key, client.host, client.port, flags


async def came(watcher: Peer) -> Told:
    kind, payload = await watcher.receive()
    assert kind == PRESENT, f"frame of type {kind:#x}"
    return told_of(payload)


async def went(watcher: Peer) -> bytes:
    kind, payload = await watcher.receive()
    assert (kind, payload[32:]) == (GONE, b"\x00")
    return payload[:32]


async def watching(relay: Relay, count: int, **options: object) -> tuple[Peer, set[Told]]:
    """Log in a mesh peer that watches; return what it is told first, of so many clients."""
    watcher = await relay.mesh_login(**options)
    await watcher.send(WATCH)
    return watcher, {await came(watcher) for _ in range(count)}


async def test_a_new_watcher_is_told_of_all_clients_and_itself(
    autojump_clock: Clock, relay: Relay
) -> None:
    a, b = await relay.login(), await relay.login()
    watcher, told = await watching(relay, 3)
    assert told == {present(a), present(b), present(watcher, MESH_PEER)}
    await watcher.ping()
    assert len(relay.state.presence.watchers) == 1


async def test_every_change_is_told_in_its_order(autojump_clock: Clock, relay: Relay) -> None:
    watcher, _ = await watching(relay, 1)
    a = await relay.login()
    b = await relay.login()
    assert await came(watcher) == present(a)
    assert await came(watcher) == present(b)
    await a.end.aclose()
    assert await went(watcher) == a.key
    again = await relay.login(key=a.private)
    assert await came(watcher) == present(again)
    again.end.abort()
    assert await went(watcher) == a.key
    await watcher.ping()


async def test_watchers_are_told_of_each_other(autojump_clock: Clock, relay: Relay) -> None:
    first, _ = await watching(relay, 1)
    second, told = await watching(relay, 2)
    assert told == {present(first, MESH_PEER), present(second, MESH_PEER)}
    assert await came(first) == present(second, MESH_PEER)
    client = await relay.login()
    assert await came(first) == await came(second) == present(client)
    await first.end.aclose()
    assert await went(second) == first.key
    assert len(relay.state.presence.watchers) == 1
    await client.end.aclose()
    assert await went(second) == client.key


async def test_a_mesh_peer_that_does_not_watch_is_told_nothing(
    autojump_clock: Clock, relay: Relay
) -> None:
    mesh_peer, client = await relay.mesh_login(), await relay.login()
    other = await relay.login()
    await other.end.aclose()
    await relay.end_of(other)
    await mesh_peer.ping()
    await client.ping()
    assert not relay.state.presence.watchers


async def test_watching_twice_is_watching_once(autojump_clock: Clock, relay: Relay) -> None:
    watcher, _ = await watching(relay, 1)
    await watcher.send(WATCH)
    await watcher.end.send(frame(WATCH, b"") * 100)
    await watcher.ping()
    client = await relay.login()
    assert await came(watcher) == present(client)
    await watcher.ping()
    await watcher.end.aclose()
    await relay.end_of(watcher)
    assert not relay.state.presence.watchers


async def test_the_relay_itself_is_told_nothing(autojump_clock: Clock, relay: Relay) -> None:
    """It finds its own key in the greeting, and leaves."""
    await relay.login()
    itself = await relay.mesh_login(key=relay.state.private_key)
    await itself.send(WATCH)
    await relay.login()
    await itself.ping()
    assert not relay.state.presence.watchers


@pytest.mark.parametrize(
    ("prober", "not_ideal", "flags"),
    [
        (False, False, REGULAR),
        (True, False, PROBER),
        (False, True, NOT_IDEAL),
        (True, True, PROBER | NOT_IDEAL),
    ],
)
@pytest.mark.parametrize("mesh", [False, True])
async def test_watchers_are_told_the_flags_of_a_client(
    autojump_clock: Clock, relay: Relay, prober: bool, not_ideal: bool, flags: int, mesh: bool
) -> None:
    info = {"meshKey": MESH_KEY.hex()} if mesh else {}
    watcher, _ = await watching(relay, 1)
    client = await relay.connect(not_ideal=not_ideal).log_in(isProber=prober, **info)
    if mesh:
        flags = flags & ~REGULAR | MESH_PEER
    assert await came(watcher) == present(client, flags)
    other, told = await watching(relay, 3)
    assert present(client, flags) in told
    assert await came(watcher) == present(other, MESH_PEER)


@pytest.mark.parametrize("host", ["192.0.2.99", "2001:db8::7", "::1", "fe80::1", "255.255.255.255"])
@pytest.mark.parametrize("port", [1, 443, 65535])
async def test_watchers_are_told_the_address_of_a_client(
    autojump_clock: Clock, relay: Relay, host: str, port: int
) -> None:
    watcher, _ = await watching(relay, 1)
    client = await relay.login(client=Endpoint(host, port))
    assert await came(watcher) == (client.key, host, port, REGULAR)
    _, told = await watching(relay, 3)
    assert (client.key, host, port, REGULAR) in told


async def test_of_duplicates_watchers_are_told_each_join_and_the_last_leave(
    autojump_clock: Clock, relay: Relay
) -> None:
    watcher, _ = await watching(relay, 1)
    key = nacl.public.PrivateKey.generate()
    first, second = Endpoint("192.0.2.1", 1), Endpoint("192.0.2.2", 2)
    a = await relay.login(key=key, client=first)
    assert await came(watcher) == present(a, client=first)
    b = await relay.login(key=key, client=second)
    assert await came(watcher) == present(b, client=second)
    await a.ping()
    other, told = await watching(relay, 3)
    # The one that gets the packets.
    assert present(a, client=first) in told
    assert await came(watcher) == present(other, MESH_PEER)
    await b.end.aclose()
    await relay.end_of(b)
    await watcher.ping()
    await other.ping()
    await a.end.aclose()
    assert await went(watcher) == await went(other) == a.key


async def test_a_mesh_peer_that_is_connected_twice_is_told_twice(
    autojump_clock: Clock, relay: Relay
) -> None:
    """The network lost one connection, and neither end has noticed."""
    old, _ = await watching(relay, 1)
    new, _ = await watching(relay, 1, key=old.private)
    assert (await came(old))[0] == old.key
    client = await relay.login()
    assert await came(old) == await came(new) == present(client)
    old.end.abort()
    await relay.end_of(old)
    await client.end.aclose()
    assert await went(new) == client.key
    assert len(relay.state.presence.watchers) == 1


async def test_updates_are_counted_as_the_go_derper_does(
    autojump_clock: Clock, relay: Relay
) -> None:
    batches, loops = relay.metrics.mesh_update_batch_size, relay.metrics.mesh_update_loop_count
    for _ in range(4):
        await relay.login()
    await watching(relay, 5)
    assert (sum(batches.counts), batches.sum) == (1, 5)
    client = await relay.login()
    await client.end.aclose()
    await relay.end_of(client)
    assert (sum(batches.counts), batches.sum) == (3, 7)
    assert (sum(loops.counts), loops.sum) == (3, 3)
    assert relay.metrics.peer_gone_disconnected_frames == 1


class Belief:
    """What a watcher that has read everything takes for the truth."""

    def __init__(self, watcher: Peer, told: set[Told]) -> None:
        self.watcher = watcher
        self.present = {each[0]: each for each in told}
        self.frames = 0

    async def read(self) -> bytes:
        """Read one frame; return whom it is about."""
        kind, payload = await self.watcher.receive()
        self.frames += 1
        if kind == PRESENT:
            self.present[payload[:32]] = told_of(payload)
        else:
            assert (kind, payload[32:]) == (GONE, b"\x00")
            self.present.pop(payload[:32], None)
        return payload[:32]

    async def read_until(self, key: bytes) -> None:
        while await self.read() != key:
            pass


async def storm(relay: Relay, changes: int, keys: int) -> set[Told]:
    """Have clients come and go at random; return who is there in the end."""
    choose = random.Random(changes)
    known = [nacl.public.PrivateKey.generate() for _ in range(keys)]
    there: dict[int, tuple[Peer, Endpoint]] = {}
    for change in range(changes):
        number = choose.randrange(keys)
        if number in there:
            peer, _ = there.pop(number)
            peer.end.abort()
            await relay.end_of(peer)
        else:
            client = Endpoint(f"192.0.2.{number}", change + 1)
            there[number] = await relay.login(key=known[number], client=client), client
    return {present(peer, client=client) for peer, client in there.values()}


@pytest.mark.slow
async def test_watchers_know_the_truth_after_a_storm(autojump_clock: Clock, relay: Relay) -> None:
    """However slow they are: of each key one frame waits at most, and none is ever dropped."""
    fast = Belief(*await watching(relay, 1))
    slow = Belief(*await watching(relay, 2, capacity=20))
    asleep = Belief(*await watching(relay, 3, capacity=100))
    keys = 40
    most = 0
    async with trio.open_nursery() as readers:

        async def read_fast() -> None:
            while True:
                await fast.read()

        async def read_slowly() -> None:
            nonlocal most
            while True:
                await trio.sleep(0.001)
                await slow.read()

        readers.start_soon(read_fast)
        readers.start_soon(read_slowly)
        there = await storm(relay, 1000, keys)
        for watcher in relay.state.presence.watchers:
            send_queue = watcher.send_queue
            most = max(most, 0 if send_queue is None else len(send_queue.presence or ()))
        await trio.testing.wait_all_tasks_blocked()
        readers.cancel_scope.cancel()
    assert most > 10
    assert most <= keys
    last = await relay.login()
    truth = there | {present(last), *(present(b.watcher, MESH_PEER) for b in (fast, slow, asleep))}
    for belief in (fast, slow, asleep):
        await belief.read_until(last.key)
        assert set(belief.present.values()) == truth
        await belief.watcher.ping()
    assert fast.frames > 1000
    assert asleep.frames < 3 * keys


@pytest.mark.slow
async def test_a_watcher_that_is_told_of_thousands_at_once_gets_all(
    autojump_clock: Clock, relay: Relay
) -> None:
    """More than may wait of any other control frames."""
    for _ in range(1500):
        await relay.login()
    watcher = await relay.mesh_login(capacity=5000)
    await watcher.send(WATCH)
    belief = Belief(watcher, set())
    while len(belief.present) < 1501:
        await belief.read()
    assert belief.frames == 1501
    assert belief.present.keys() == relay.hub.active.keys()
    batches = relay.metrics.mesh_update_batch_size
    assert batches.sum == 1501
    assert sum(batches.counts) > 1
    await watcher.ping()


async def test_a_client_that_left_and_came_back_while_the_watcher_slept_is_present(
    autojump_clock: Clock, relay: Relay
) -> None:
    watcher, _ = await watching(relay, 1, capacity=10)
    filler, client = await relay.login(), await relay.login()
    client.end.abort()
    await relay.end_of(client)
    again = await relay.login(key=client.private, client=Endpoint("192.0.2.200", 7))
    gone = await relay.login()
    gone.end.abort()
    await relay.end_of(gone)
    assert await came(watcher) == present(filler)
    assert await came(watcher) == (again.key, "192.0.2.200", 7, REGULAR)
    # It was never told that this one had come; a frame for nothing is no harm.
    assert await went(watcher) == gone.key
    await watcher.ping()


async def test_a_client_that_was_absent_and_joins_is_present(
    autojump_clock: Clock, relay: Relay
) -> None:
    """The answer to a packet overtakes what is told of clients, but nothing newer than itself."""
    watcher, _ = await watching(relay, 1, capacity=30)
    filler = await relay.login()
    client = await relay.login()
    client.end.abort()
    await relay.end_of(client)
    await watcher.end.send(frame(FORWARD, filler.key + client.key + disco()))
    again = await relay.login(key=client.private)
    assert await came(watcher) == present(filler)
    assert await watcher.receive() == (GONE, client.key + b"\x01")
    assert await came(watcher) == present(again)
    await watcher.ping()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The keys of those whose presence was put into a frame."""
    keys = []
    present_frame = Client.present_frame

    def noted(connection: Client) -> bytes:
        keys.append(connection.key)
        return present_frame(connection)

    monkeypatch.setattr(Client, "present_frame", noted)
    return keys


@pytest.mark.slow
async def test_a_new_watcher_costs_nothing_until_it_reads(
    autojump_clock: Clock, relay: Relay, made: list[bytes]
) -> None:
    count = 600
    for _ in range(count):
        await relay.login()
    watcher = await relay.mesh_login(capacity=100)
    made.clear()
    await watcher.send(WATCH)
    await trio.testing.wait_all_tasks_blocked()
    assert 0 < len(made) < count / 2
    assert len({(await came(watcher))[0] for _ in range(count + 1)}) == count + 1
    assert len(made) == count + 1


@pytest.mark.slow
async def test_a_change_before_the_watcher_reads_is_told_as_it_is_then(
    autojump_clock: Clock, relay: Relay
) -> None:
    for _ in range(600):
        await relay.login()
    moves, leaves = await relay.login(), await relay.login()
    watcher = await relay.mesh_login(capacity=100)
    await watcher.send(WATCH)
    await trio.testing.wait_all_tasks_blocked()
    for client in (moves, leaves):
        await client.end.aclose()
        await relay.end_of(client)
    await relay.login(key=moves.private, client=Endpoint("192.0.2.200", 7))
    for _ in range(600):
        await came(watcher)
    assert await came(watcher) == (moves.key, "192.0.2.200", 7, REGULAR)
    assert await went(watcher) == leaves.key
    assert await came(watcher) == present(watcher, MESH_PEER)
    await watcher.ping()


@pytest.mark.slow
async def test_others_have_their_turn_while_a_fast_watcher_is_told_of_all(
    autojump_clock: Clock, relay: Relay, made: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket that takes all at once makes nobody wait for it, so the flush is no checkpoint."""
    flush = MemoryTransport.flush

    async def flush_as_sockets_do(end: MemoryTransport) -> None:
        if end.buffered:
            await flush(end)

    count = 3 * MAX_FRAMES_TAKEN
    for _ in range(count):
        await relay.login()
    watcher = await relay.mesh_login()
    made.clear()
    await watcher.send(WATCH)
    monkeypatch.setattr(MemoryTransport, "flush", flush_as_sockets_do)
    turns = []
    while len(made) <= count:
        before = len(made)
        await trio.lowlevel.checkpoint()
        turns.append(len(made) - before)
    # Two pieces, where it was first in its turn of tasks and then last.
    assert max(turns) <= 2 * MAX_FRAMES_TAKEN


async def test_a_watcher_that_is_too_far_behind_is_ended(
    autojump_clock: Clock, relay: Relay
) -> None:
    """What waits for it would grow with all who come and go, though nobody of them is there."""
    watcher, _ = await watching(relay, 1, capacity=10)
    other, _ = await watching(relay, 2)
    (slow, _) = relay.state.presence.watchers
    most = 2 * len(relay.hub.active) + UPDATE_SLACK
    for number in range(most):
        slow.update(number.to_bytes(32), b"")
        # Who comes and goes again and again counts once.
        slow.update(bytes(32), b"")
    # With those who are there grows what may wait.
    clients = [await relay.login() for _ in range(2)]
    assert [(await came(other))[0] for _ in clients] == [client.key for client in clients]
    for number in range(1, 3):
        slow.update(number.to_bytes(32, "little"), b"")
    assert slow.ending is None
    slow.update(bytes([255]) * 32, b"")
    end = await relay.end_of(watcher)
    assert isinstance(end, WatcherTooSlow)
    assert str(end) == f"more than {most + 4} changes wait for it"
    assert await went(other) == watcher.key
    again, told = await watching(relay, 4, key=watcher.private)
    assert {key for key, *_ in told} == relay.hub.active.keys()
    await again.ping()


async def test_a_watcher_that_takes_nothing_is_gone_after_its_own_timeout(
    autojump_clock: Clock, relay: Relay
) -> None:
    relay.state.send_tasks.write_timeout = 0
    watcher, _ = await watching(relay, 1, capacity=10)
    start = trio.current_time()
    client = await relay.login()
    assert isinstance(await relay.end_of(watcher), WriteTimeout)
    assert 30 <= trio.current_time() - start <= 32
    assert not relay.state.presence.watchers
    await client.ping()


async def test_a_watcher_that_has_failed_hurts_nobody(autojump_clock: Clock, relay: Relay) -> None:
    watcher, _ = await watching(relay, 1)
    other, _ = await watching(relay, 2)
    await came(watcher)
    await trio.testing.wait_all_tasks_blocked()
    # A write to it fails before its own reader, which waits, has noticed anything.
    watcher.end.peer.was_reset = True
    client = await relay.login()
    assert await came(other) == present(client)
    assert await went(other) == watcher.key
    await client.ping()


def test_a_relay_without_mesh_key_has_no_mesh_peers() -> None:
    async def no_key() -> None:
        async with trio.open_nursery() as nursery:
            state = RelayState(nacl.public.PrivateKey.generate(), nursery, write_timeout=2.0)
            for shown in (None, b"", bytes(32), MESH_KEY):
                assert not state.is_mesh_key(shown)
            state.mesh_key = MESH_KEY
            assert state.is_mesh_key(MESH_KEY)
            for shown in (None, b"", bytes(32), MESH_KEY[:-1], MESH_KEY[:-1] + b"x"):
                assert not state.is_mesh_key(shown)

    trio.run(no_key)
