"""Workers of one relay: from outside they look like one."""

import itertools
import json
import random

import nacl.public
import pytest
import trio
import trio.testing
from trio.testing import wait_all_tasks_blocked

from derp.errors import ClosedByMesh, LoginRefused, NotPermitted
from derp.mesh.link import IDLE_TIMEOUT
from derp.metrics import DropReason, Metrics
from derp.net.address import Endpoint
from derp.session.client import UPDATE_SLACK
from derp.wire.trains import Train
from tests.memory_transport import CLIENT, memory_pair
from tests.peers import (
    CLOSE,
    FORWARD,
    GONE,
    KEEP_ALIVE,
    PING,
    PONG,
    PRESENT,
    RECV,
    WATCH,
    Peer,
    disco,
    frame,
)
from tests.relays import MESH_KEY, Relay
from tests.workers.workers import WORKER_KEY, Workers, workers

Clock = trio.testing.MockClock
ELSEWHERE = b"\x55" * 32
ABSENT = b"\x77" * 32
FIRST, SECOND = Endpoint("192.0.2.1", 1), Endpoint("192.0.2.2", 2)


async def settle() -> None:
    await wait_all_tasks_blocked()


async def watching(relay: Relay, count: int) -> tuple[Peer, dict[bytes, tuple[bytes, int]]]:
    """Log in a mesh peer that watches; return it, and the addresses of so many clients."""
    watcher = await relay.mesh_login()
    await watcher.send(WATCH)
    return watcher, dict([await came(watcher) for _ in range(count)])


async def came(watcher: Peer) -> tuple[bytes, tuple[bytes, int]]:
    """Return key, address and port of who has come."""
    kind, payload = await watcher.receive()
    assert kind == PRESENT, f"frame of type {kind:#x}"
    assert len(payload) == 51
    return payload[:32], (payload[44:48], int.from_bytes(payload[48:50], "big"))


async def went(watcher: Peer) -> bytes:
    kind, payload = await watcher.receive()
    assert (kind, payload[32:]) == (GONE, b"\x00")
    return payload[:32]


def where(client: Endpoint) -> tuple[bytes, int]:
    return bytes(map(int, client.host.split("."))), client.port


# --- packets


async def test_clients_of_different_workers_reach_each_other(autojump_clock: Clock) -> None:
    async with workers(3) as found:
        peers = [await relay.login() for relay in found.relays]
        await settle()
        for a, b in itertools.permutations(peers, 2):
            await a.send_packet(b.key, b"from one to another")
            assert await b.receive_packet() == (a.key, b"from one to another")


async def test_a_hop_between_workers_is_not_counted(autojump_clock: Clock) -> None:
    async with workers() as found:
        a, b = [await relay.login() for relay in found.relays]
        await settle()
        for number in range(10):
            await a.send_packet(b.key, bytes(number))
            await b.receive_packet()
        await a.send_packet(b.key, disco(100))
        await b.receive_packet()
        assert found.total("packets_received") == found.total("packets_sent") == 11
        assert found.total("bytes_received") == found.total("bytes_sent") == 145
        assert found.total("packets_forwarded_in") == found.total("packets_forwarded_out") == 0
        assert found.drops() == {}


async def test_no_worker_is_a_client_of_another(autojump_clock: Clock) -> None:
    async with workers() as found:
        await trio.sleep(100)
        fresh = Metrics()
        for relay in found.relays:
            assert len(relay.state.presence.worker_watchers) == 1
            assert len(relay.state.worker_links) == 1
            assert not relay.hub.members
            assert not relay.state.presence.watchers
            assert len(relay.state.timers.round_trips) == 0
            for name in ("accepts", "got_ping", "sent_pong", "unknown_frames", "tcp_rtt"):
                assert getattr(relay.metrics, name) == getattr(fresh, name), name
            assert relay.metrics.mesh_update_batch_size.sum == 0
            assert sum(relay.metrics.mesh_update_batch_size.counts) == 0


async def test_what_a_worker_is_told_is_not_counted(autojump_clock: Clock) -> None:
    async with workers(capacity=100) as found:
        for relay in found.relays * 20:
            await relay.login()
        await settle()
        for relay in found.relays:
            assert relay.hub.key_count == 40
            assert sum(relay.metrics.mesh_update_batch_size.counts) == 0


async def test_an_idle_link_lasts(autojump_clock: Clock) -> None:
    async with workers() as found:
        links = dict(found.links)
        await trio.sleep(5 * IDLE_TIMEOUT)
        assert found.links == links
        assert not found.ends


async def test_a_packet_for_nobody_is_dropped_once(autojump_clock: Clock) -> None:
    async with workers() as found:
        a = await found.relays[0].login()
        await a.send_packet(ABSENT, b"packet")
        await a.ping()
        assert found.drops() == {"unknown_dest": 1}


async def test_a_packet_that_comes_too_late_is_dropped_where_its_client_was(
    autojump_clock: Clock,
) -> None:
    async with workers() as found:
        here = found.relays[0]
        (peer,) = here.state.presence.worker_watchers
        link = found.links[1, 0]
        await link.send(frame(FORWARD, ELSEWHERE + ABSENT + b"one") * 3)
        await link.send(frame(FORWARD, ELSEWHERE + ABSENT + disco()))
        await settle()
        assert here.dropped(DropReason.UNKNOWN_DEST) == 3
        assert here.dropped(DropReason.UNKNOWN_DEST, disco=True) == 1
        assert found.drops() == {"unknown_dest": 4}
        assert found.total("packets_forwarded_in") == 0
        assert found.total("peer_gone_not_here_frames") == 0
        assert not peer.ending


async def test_what_comes_from_a_worker_goes_to_no_other(autojump_clock: Clock) -> None:
    async with workers(3) as found:
        client = await found.relays[2].login()
        await settle()
        await found.links[1, 0].send(frame(FORWARD, ELSEWHERE + client.key + b"around"))
        await settle()
        assert found.drops() == {"unknown_dest": 1}
        await client.ping()


async def test_what_another_relay_forwards_makes_one_hop(autojump_clock: Clock) -> None:
    async with workers(3) as found:
        outside = await found.relays[0].mesh_login()
        clients = [await relay.login() for relay in found.relays]
        await settle()
        for client in clients:
            packets = frame(FORWARD, ELSEWHERE + client.key + b"one")
            packets += frame(FORWARD, ELSEWHERE + client.key + b"and two")
            await outside.end.send(packets)
            assert await client.receive_packet() == (ELSEWHERE, b"one")
            assert await client.receive_packet() == (ELSEWHERE, b"and two")
        assert found.total("packets_forwarded_in") == 6
        assert found.total("packets_sent") == 6
        await outside.end.send(frame(FORWARD, ELSEWHERE + ABSENT + b"none"))
        await outside.ping()
        assert found.drops() == {"unknown_dest_on_fwd": 1}


class Outside:
    """A link to another relay."""

    def __init__(self) -> None:
        self.packets = 0

    def forward(self, train: Train, packets: int, *_: object) -> None:
        self.packets += packets


async def test_a_worker_comes_before_another_relay(autojump_clock: Clock) -> None:
    async with workers() as found:
        here, there = found.relays
        outside = Outside()
        a, b = await here.login(), await there.login()
        here.hub.add_forwarder(b.key, outside)  # type: ignore[arg-type]
        here.hub.add_forwarder(ELSEWHERE, outside)  # type: ignore[arg-type]
        await settle()
        await a.send_packet(b.key, b"packet")
        assert await b.receive_packet() == (a.key, b"packet")
        await a.send_packet(ELSEWHERE, b"packet")
        await a.ping()
        assert outside.packets == 1
        assert found.total("packets_forwarded_out") == 1
        for key in (b.key, ELSEWHERE):
            here.hub.remove_forwarder(key, outside)  # type: ignore[arg-type]


async def test_a_worker_that_stalls_keeps_nobody_waiting(autojump_clock: Clock) -> None:
    async with workers(3, capacity=1000) as found:
        here, stalled, other = found.relays
        a, b = await here.login(), await here.login()
        there, fine = await stalled.login(), await other.login()
        await settle()

        # What reads for that worker reads no longer: its buffers fill.
        link = found.links[0, 1]
        link.capacity = link.peer.capacity = 0
        link.peer._inbox.append(bytes(2000))
        for number in range(20):
            await a.send_packet(there.key, bytes(500))
            await a.send_packet(b.key, b"%d" % number)
            assert await b.receive_packet() == (a.key, b"%d" % number)
            await a.send_packet(fine.key, b"%d" % number)
            assert await fine.receive_packet() == (a.key, b"%d" % number)


# --- who is told


async def test_receivers_are_told_that_a_sender_at_another_worker_has_left(
    autojump_clock: Clock,
) -> None:
    async with workers(3) as found:
        a, b, c = [await relay.login() for relay in found.relays]
        await settle()
        await a.send_packet(b.key, b"packet")
        await b.receive_packet()
        await a.end.aclose()
        assert await went(b) == a.key
        await c.ping()
        assert found.total("peer_gone_disconnected_frames") == 1


async def test_a_new_watcher_is_told_of_all_workers_clients(autojump_clock: Clock) -> None:
    async with workers(3) as found:
        clients = {}
        for number, relay in enumerate(found.relays):
            address = Endpoint(f"192.0.2.{number + 1}", number + 1)
            clients[(await relay.login(client=address)).key] = where(address)
        await settle()
        for relay in found.relays:
            watcher, told = await watching(relay, 4 + len(clients) - 3)
            clients[watcher.key] = where(CLIENT)
            assert told == clients
            await settle()
            await watcher.ping()


async def test_a_watcher_is_told_of_joins_and_leaves_at_all_workers(autojump_clock: Clock) -> None:
    async with workers(3) as found:
        watcher, _ = await watching(found.relays[0], 1)
        for relay in found.relays:
            client = await relay.login(client=FIRST)
            assert await came(watcher) == (client.key, where(FIRST))
            await client.end.aclose()
            assert await went(watcher) == client.key
        assert found.total("peer_gone_disconnected_frames") == 3
        histogram = found.relays[0].metrics.mesh_update_batch_size
        assert histogram.sum == 7


async def test_the_kind_of_client_is_told_as_well(autojump_clock: Clock) -> None:
    async with workers() as found:
        watcher, _ = await watching(found.relays[0], 1)
        client = await found.relays[1].connect(not_ideal=True).log_in(isProber=True)
        kind, payload = await watcher.receive()
        assert (kind, payload[:32], payload[50]) == (PRESENT, client.key, 4 | 8)


async def test_a_client_with_several_connections_is_gone_with_the_last(
    autojump_clock: Clock,
) -> None:
    async with workers(3) as found:
        watcher, _ = await watching(found.relays[2], 1)
        a = await found.relays[0].login(client=FIRST)
        assert await came(watcher) == (a.key, where(FIRST))
        b = await found.relays[1].login(client=SECOND, key=a.private)
        assert await came(watcher) == (a.key, where(SECOND))
        late, told = await watching(found.relays[0], 3)
        assert told[a.key] == where(SECOND)
        await came(watcher)
        await a.end.aclose()
        await settle()
        await watcher.ping()
        await late.ping()
        await b.end.aclose()
        assert await went(watcher) == a.key
        assert await went(late) == a.key


async def test_that_a_key_is_taken_back_and_forth_is_told_to_no_watcher(
    autojump_clock: Clock,
) -> None:
    async with workers(3) as found:
        a = await found.relays[0].login()
        b = await found.relays[1].login(key=a.private)
        await settle()
        watcher, _ = await watching(found.relays[2], 2)
        for _ in range(5):
            for peer in (a, b):
                await trio.sleep(1)
                await peer.ping()
        await settle()
        await watcher.ping()


@pytest.mark.slow
async def test_a_worker_that_is_lost_takes_its_clients_along(autojump_clock: Clock) -> None:
    async with workers(3) as found:
        here, _, lost = found.relays
        a = await here.login()
        gone = [await lost.login() for _ in range(600)]
        moved = await lost.login()
        watcher, told = await watching(here, 603)
        assert len(told) == 603
        await gone[0].send_packet(a.key, b"packet")
        await a.receive_packet()
        found.cut(0, 2)
        assert {await went(watcher) for _ in range(601)} == {p.key for p in (*gone, moved)}
        assert await went(a) == gone[0].key
        await watcher.ping()
        await a.ping()
        assert here.hub.key_count == 2
        # It is back.
        found.down.clear()
        assert {(await came(watcher))[0] for _ in range(601)} == {p.key for p in (*gone, moved)}
        await a.send_packet(moved.key, b"again")
        assert await moved.receive_packet() == (a.key, b"again")


async def test_a_client_that_is_back_before_the_watcher_reads_has_not_left(
    autojump_clock: Clock,
) -> None:
    async with workers() as found:
        here, lost = found.relays
        watcher, _ = await watching(here, 1)
        clients = [await lost.login() for _ in range(3)]
        for _ in clients:
            await came(watcher)
        watcher.end.peer.capacity = watcher.end.capacity = 0
        filler = await here.login()
        found.cut(0, 1)
        await settle()
        back = await here.login(key=clients[1].private, client=FIRST)
        await settle()
        watcher.end.capacity = watcher.end.peer.capacity = 1 << 20
        watcher.end._signal()
        watcher.end.peer._signal()
        told = {payload[:32]: kind for kind, payload in [await watcher.receive() for _ in range(4)]}
        assert told == {
            filler.key: PRESENT,
            back.key: PRESENT,
            clients[0].key: GONE,
            clients[2].key: GONE,
        }
        await watcher.ping()


async def test_the_bound_on_a_watchers_updates_grows_with_all_clients(
    autojump_clock: Clock,
) -> None:
    async with workers() as found:
        here, there = found.relays
        watcher, _ = await watching(here, 1)
        for _ in range(10):
            await there.login()
            await came(watcher)
        (slow,) = here.state.presence.watchers
        watcher.end.peer.capacity = watcher.end.capacity = 0
        slow.send_control(b"more than fits")
        for number in range(UPDATE_SLACK + 22):
            slow.update(number.to_bytes(32, "big"), b"")
        assert slow.ending is None
        slow.update(b"\xff" * 32, b"")
        assert slow.ending is not None


# --- closing


@pytest.mark.parametrize("at", [0, 1, 2])
async def test_a_mesh_peer_closes_a_client_of_any_worker(autojump_clock: Clock, at: int) -> None:
    async with workers(3) as found:
        outside = await found.relays[0].mesh_login()
        victim = await found.relays[at].login()
        other = await found.relays[at].login()
        await settle()
        await outside.send(CLOSE, victim.key)
        assert isinstance(await found.relays[at].end_of(victim), ClosedByMesh)
        await other.ping()


async def test_a_client_is_closed_at_all_workers_once(autojump_clock: Clock) -> None:
    async with workers(3) as found:
        first = await found.relays[0].login()
        peers = [first, *[await r.login(key=first.private) for r in found.relays[1:]]]
        outside = await found.relays[1].mesh_login()
        await settle()
        await outside.send(CLOSE, first.key)
        for relay, peer in zip(found.relays, peers, strict=True):
            assert isinstance(await relay.end_of(peer), ClosedByMesh)
        again = await found.relays[2].login(key=first.private)
        await settle()
        await again.ping()


# --- one key at several workers


async def test_a_client_that_comes_back_at_another_worker_gets_its_packets_there(
    autojump_clock: Clock,
) -> None:
    """Its old connection is half open, and ends only later."""
    async with workers(3) as found:
        old = await found.relays[0].login()
        others = [await relay.login() for relay in found.relays]
        outside = await found.relays[0].mesh_login()
        watcher, _ = await watching(found.relays[2], 6)
        await settle()
        new = await found.relays[1].login(key=old.private)
        await came(watcher)
        await settle()

        async def reaches_the_new_one() -> None:
            for other in others:
                await other.send_packet(new.key, b"packet")
                assert await new.receive_packet() == (other.key, b"packet")
            await outside.end.send(frame(FORWARD, ELSEWHERE + new.key + b"forwarded"))
            assert await new.receive_packet() == (ELSEWHERE, b"forwarded")

        await reaches_the_new_one()
        assert sum(len(relay.hub.active) for relay in found.relays) == 6
        old.end.abort()
        await found.relays[0].end_of(old)
        await settle()
        await reaches_the_new_one()
        await watcher.ping()
        assert [relay.hub.key_count for relay in found.relays] == [6, 6, 6]
        await new.end.aclose()
        assert await went(watcher) == old.key


async def test_the_last_writer_gets_the_packets(autojump_clock: Clock) -> None:
    async with workers(3) as found:
        a = await found.relays[0].login()
        b = await found.relays[1].login(key=a.private)
        senders = [await relay.login() for relay in found.relays]
        await settle()
        for peer in (a, b, a, a, b):
            await trio.sleep(1)
            await peer.ping()
            await settle()
            for sender in senders:
                await sender.send_packet(a.key, b"packet")
                assert await peer.receive_packet() == (sender.key, b"packet")
        assert found.drops() == {}


async def test_a_late_frame_of_the_old_connection_is_made_good_by_the_new_ones_next(
    autojump_clock: Clock,
) -> None:
    async with workers() as found:
        old = await found.relays[0].login()
        new = await found.relays[1].login(key=old.private)
        sender = await found.relays[0].login()
        await settle()
        await old.ping()
        await settle()
        assert found.relays[0].hub.active.keys() == {old.key, sender.key}
        await new.ping()
        await settle()
        await sender.send_packet(new.key, b"packet")
        assert await new.receive_packet() == (sender.key, b"packet")


async def test_two_busy_connections_of_a_key_make_workers_talk_seldom(
    autojump_clock: Clock,
) -> None:
    async with workers() as found:
        a = await found.relays[0].login()
        b = await found.relays[1].login(key=a.private)
        other = await found.relays[0].login()
        await settle()
        before = [found.links[pair].peer.bytes_written for pair in ((0, 1), (1, 0))]
        for _ in range(400):
            await trio.sleep(0.01)
            for peer in (a, b):
                await peer.send_packet(other.key, b"packet")
                await other.receive_packet()
        after = [found.links[pair].peer.bytes_written for pair in ((0, 1), (1, 0))]
        # Four seconds.
        told = [(now - then) // 64 for now, then in zip(after, before, strict=True)]
        assert all(8 <= count <= 17 for count in told), told
        assert found.drops() == {}


async def test_packets_under_way_to_a_passive_connection_are_delivered(
    autojump_clock: Clock,
) -> None:
    async with workers() as found:
        a = await found.relays[0].login()
        b = await found.relays[1].login(key=a.private)
        await settle()
        assert not found.relays[0].hub.active
        await found.links[1, 0].send(frame(FORWARD, ELSEWHERE + a.key + b"late"))
        assert await a.receive_packet() == (ELSEWHERE, b"late")
        await b.ping()


async def test_the_old_connection_takes_over_when_the_new_one_leaves(
    autojump_clock: Clock,
) -> None:
    async with workers(3) as found:
        old = await found.relays[0].login()
        new = await found.relays[1].login(key=old.private)
        sender = await found.relays[2].login()
        watcher, _ = await watching(found.relays[1], 3)
        await settle()
        await sender.send_packet(old.key, b"one")
        assert await new.receive_packet() == (sender.key, b"one")
        await new.end.aclose()
        await settle()
        await sender.send_packet(old.key, b"two")
        assert await old.receive_packet() == (sender.key, b"two")
        await watcher.ping()


async def test_a_lost_link_gives_the_key_back_until_it_is_made_again(
    autojump_clock: Clock,
) -> None:
    async with workers() as found:
        old = await found.relays[0].login()
        new = await found.relays[1].login(key=old.private)
        sender = await found.relays[0].login()
        await settle()
        found.cut(0, 1)
        await settle()
        await sender.send_packet(old.key, b"one")
        assert await old.receive_packet() == (sender.key, b"one")
        found.down.clear()
        await trio.sleep(2)
        await sender.send_packet(old.key, b"two")
        assert await new.receive_packet() == (sender.key, b"two")


async def test_a_login_while_there_was_no_link_is_the_latest_all_the_same(
    autojump_clock: Clock,
) -> None:
    """The worker that it came to did not know that another one had claimed it more than once."""
    async with workers() as found:
        old = await found.relays[0].login()
        other = await found.relays[1].login(key=old.private)
        for peer in (old, other, old, other, old):
            await trio.sleep(1)
            await peer.ping()
        await other.end.aclose()
        await settle()
        for pair in ((0, 1), (1, 0)):
            found.cut(*pair)
        await trio.sleep(2)
        new = await found.relays[1].login(key=old.private)
        found.down.clear()
        await trio.sleep(2)
        sender = await found.relays[0].login()
        await sender.send_packet(new.key, b"packet")
        assert await new.receive_packet() == (sender.key, b"packet")


async def test_duplicates_at_one_worker_and_at_another(autojump_clock: Clock) -> None:
    async with workers() as found:
        here, there = found.relays
        a = await here.login(client=FIRST)
        b = await here.login(key=a.private, client=SECOND)
        c = await there.login(key=a.private)
        sender = await there.login()
        await settle()
        await trio.sleep(1)
        await a.ping()
        await settle()
        for peer in (a, b):
            await sender.send_packet(a.key, b"packet")
            assert await peer.receive_packet() == (sender.key, b"packet")
            await b.ping()
        await b.end.aclose()
        await settle()
        await sender.send_packet(a.key, b"packet")
        assert await a.receive_packet() == (sender.key, b"packet")
        # The other worker has heard where its connection comes from by now.
        watcher, told = await watching(there, 3)
        assert told[a.key] == where(FIRST)
        await a.end.aclose()
        await settle()
        await sender.send_packet(a.key, b"packet")
        assert await c.receive_packet() == (sender.key, b"packet")
        await watcher.ping()


async def test_a_watcher_is_not_told_of_a_passive_connection(
    autojump_clock: Clock,
) -> None:
    """That another worker tells of it is news, after a link was lost, but not the newest."""
    async with workers(3) as found:
        here = found.relays[0]
        old = await found.relays[1].login(client=FIRST)
        watcher, _ = await watching(here, 2)
        await here.login(key=old.private, client=SECOND)
        assert await came(watcher) == (old.key, where(SECOND))
        await settle()
        found.cut(0, 1)
        await trio.sleep(2)
        found.down.clear()
        await trio.sleep(2)
        assert here.hub.other_workers.best.keys() == {old.key}
        await watcher.ping()


async def test_of_duplicates_at_one_worker_the_others_know_the_one_that_stays(
    autojump_clock: Clock,
) -> None:
    async with workers() as found:
        here, there = found.relays
        stays = await here.login(client=FIRST)
        leaves = await here.login(key=stays.private, client=SECOND)
        await settle()
        _, told = await watching(there, 2)
        assert told[stays.key] == where(SECOND)
        await leaves.end.aclose()
        await settle()
        _, told = await watching(there, 3)
        assert told[stays.key] == where(FIRST)


async def test_packets_queued_for_a_lost_worker_are_dropped(autojump_clock: Clock) -> None:
    async with workers() as found:
        a, b = [await relay.login() for relay in found.relays]
        await settle()
        # The other end takes nothing: one frame is half sent, and the others wait.
        link = found.links[0, 1]
        link.peer.capacity = link.capacity = 0
        for _ in range(5):
            await a.send_packet(b.key, bytes(1000))
        await a.ping()
        found.cut(0, 1)
        await settle()
        assert found.total("packets_received") == 5
        assert found.drops() == {"gone_disconnected": 4}


# --- who may be a worker peer


@pytest.mark.parametrize("shown", [WORKER_KEY, MESH_KEY, bytes(32)])
async def test_nobody_becomes_a_worker_by_a_public_port(
    autojump_clock: Clock, shown: bytes
) -> None:
    async with workers() as found:
        relay = found.relays[0]
        client = await relay.login()
        peer = await relay.connect(key=relay.state.private_key).log_in(meshKey=shown.hex())
        await settle()
        assert len(relay.state.presence.worker_watchers) == 1
        assert len(relay.hub.members) == 2
        if shown == MESH_KEY:
            await peer.send(WATCH)
            await peer.ping()
            assert not relay.state.presence.watchers
        else:
            await peer.send(CLOSE, client.key)
            assert isinstance(await relay.end_of(peer), NotPermitted)
        await client.ping()


def info(mesh_key: bytes | None) -> dict[str, str]:
    return {} if mesh_key is None else {"meshKey": mesh_key.hex()}


@pytest.mark.parametrize("shown", [None, MESH_KEY, WORKER_KEY[:-1] + b"x", bytes(32)])
async def test_without_the_secret_nobody_becomes_a_worker_peer(
    autojump_clock: Clock, shown: bytes | None
) -> None:
    async with workers() as found:
        await knocks(found, shown, own_key=True)


async def test_another_key_than_the_relays_is_refused(autojump_clock: Clock) -> None:
    async with workers() as found:
        await knocks(found, WORKER_KEY, own_key=False)


async def knocks(found: Workers, shown: bytes | None, *, own_key: bool) -> None:
    state = found.relays[0].state
    here, there = memory_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(found._serve, state, there)
        peer = Peer(here, state.private_key if own_key else None)
        assert (await peer.receive())[0] == 0x01
        await peer.end.send(peer.client_info(state.public_key, **info(shown)))
        await peer.end.receive_all()
    (end,) = found.ends
    assert isinstance(end, LoginRefused)
    assert str(end) == "it is no worker of this relay"
    assert len(state.presence.worker_watchers) == 1


async def test_a_relay_of_one_worker_lets_no_other_worker_in(autojump_clock: Clock) -> None:
    async with workers(1) as found:
        found.relays[0].state.worker_key = None
        await knocks_in_vain(found)


async def knocks_in_vain(found: Workers) -> None:
    state = found.relays[0].state
    here, there = memory_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(found._serve, state, there)
        peer = Peer(here, state.private_key)
        await peer.receive()
        await peer.end.send(peer.client_info(state.public_key, **info(WORKER_KEY)))
        await peer.end.receive_all()
    assert isinstance(found.ends[0], LoginRefused)


async def test_it_is_the_secret_that_is_shown_and_not_the_mesh_key(autojump_clock: Clock) -> None:
    """Nor is either of them in what is logged or printed of a server."""
    async with workers() as found:
        text = repr(found.relays[0].state)
        for secret in (WORKER_KEY, MESH_KEY):
            assert repr(secret) not in text
            assert secret.hex() not in json.dumps(text)


# --- all together


class Belief:
    """What a watcher takes for the truth."""

    def __init__(self, watcher: Peer, told: dict[bytes, tuple[bytes, int]]) -> None:
        self.watcher = watcher
        self.told = told

    async def read(self) -> None:
        while True:
            kind, payload = await self.watcher.receive()
            if kind == PRESENT:
                self.told[payload[:32]] = (payload[44:48], int.from_bytes(payload[48:50], "big"))
            elif kind == GONE:
                self.told.pop(payload[:32], None)


async def next_frame(peer: Peer) -> tuple[int, bytes]:
    while (found := await peer.receive())[0] == KEEP_ALIVE:
        pass
    return found


class Storm:
    """Clients come, go, speak and move between workers, and links are lost and made again."""

    def __init__(self, found: Workers, keys: int) -> None:
        self.found = found
        self.chance = random.Random(11)
        self.keys = [nacl.public.PrivateKey.generate() for _ in range(keys)]
        self.there: dict[bytes, list[tuple[Relay, Peer]]] = {}

    async def blow(self, steps: int) -> None:
        chance = self.chance
        for step in range(steps):
            private = chance.choice(self.keys)
            connections = self.there.setdefault(bytes(private.public_key), [])
            await self.step(step, private, connections)

    async def step(
        self, step: int, private: nacl.public.PrivateKey, connections: list[tuple[Relay, Peer]]
    ) -> None:
        chance = self.chance
        what = chance.randrange(8)
        if what < 3:
            relay = chance.choice(self.found.relays)
            client = Endpoint("192.0.2.9", step + 1)
            connections.append((relay, await relay.login(key=private, client=client)))
        elif what < 5 and connections:
            relay, peer = connections.pop(chance.randrange(len(connections)))
            peer.end.abort()
            await relay.end_of(peer)
        elif what == 5 and connections:
            await chance.choice(connections)[1].send(0x07, b"\x01")
        elif what == 6:
            await trio.sleep(chance.random() / 3)
        elif step % 10 == 0:
            self.found.cut(*chance.choice(list(self.found.links)))
            await trio.sleep(0.01)
            self.found.down.clear()


@pytest.mark.slow
async def test_after_a_storm_all_know_the_truth(autojump_clock: Clock) -> None:
    async with workers(3, capacity=500) as found:
        beliefs = [
            Belief(*await watching(relay, number + 1)) for number, relay in enumerate(found.relays)
        ]
        storm = Storm(found, keys=15)
        async with trio.open_nursery() as readers:
            for belief in beliefs:
                readers.start_soon(belief.read)
            await storm.blow(600)
            await trio.sleep(3)
            await settle()
            readers.cancel_scope.cancel()
        everybody = {key for key, connections in storm.there.items() if connections}
        assert everybody
        everybody |= {belief.watcher.key for belief in beliefs}
        for relay in found.relays:
            assert set(relay.hub.keys(local=False)) == everybody
            assert relay.hub.key_count == len(everybody)
        active = [key for relay in found.relays for key in relay.hub.active]
        assert sorted(active) == sorted(everybody)
        for belief in beliefs:
            assert belief.told.keys() == everybody
        # Whoever has spoken last gets the packets, from everywhere.
        for key, connections in storm.there.items():
            for _, peer in connections:
                await trio.sleep(1)
                await peer.send(PING, bytes(8))
                assert await next_frame(peer) == (PONG, bytes(8))
                await settle()
                for relay in found.relays:
                    sender = await relay.login()
                    await sender.send_packet(key, b"packet")
                    assert await next_frame(peer) == (RECV, sender.key + b"packet")
                    await sender.end.aclose()
                    assert await next_frame(peer) == (GONE, sender.key + b"\0")
        assert not {"unknown_dest", "unknown_dest_on_fwd"} & found.drops().keys()
