"""Isolated clients: who can reach whom, in one process, over workers, and over a mesh."""

import contextlib
import itertools
import logging
from collections.abc import AsyncIterator
from typing import Any

import nacl.public
import pytest
import trio
import trio.testing
from trio.testing import wait_all_tasks_blocked

from derp.admission.model import Outcome, Question, Verdict
from derp.errors import ConnectionEnd, GroupChanged
from derp.mesh.keeper import Keeper
from derp.metrics import DropReason, Metrics
from derp.net.transport import Transport
from derp.policy.model import Entry, Policy
from derp.relay.groups import TAG_LENGTH, tag_of
from derp.session import recheck, serverinfo
from derp.session.client import Client
from derp.session.meshpeer import MeshPeer
from derp.session.serve import serve
from tests.memory_transport import memory_pair
from tests.peers import FORWARD, GONE, PRESENT, RECV, WATCH, Peer, disco
from tests.relays import Relay, running, with_mesh_key
from tests.workers.workers import Workers, workers

Clock = trio.testing.MockClock
A, B = "tailnet:a", "tailnet:b"
NOT_HERE = b"\x01"


class Sources:
    """Admits everybody, each by the source that it is told."""

    def __init__(self) -> None:
        self.of: dict[bytes, str] = {}
        self.is_away = False

    def member(self, source: str) -> nacl.public.PrivateKey:
        key = nacl.public.PrivateKey.generate()
        self.of[bytes(key.public_key)] = source
        return key

    def known(self, question: Question) -> Verdict | None:
        return None

    async def admit(self, question: Question) -> Verdict:
        await trio.lowlevel.checkpoint()
        if self.is_away:
            return Verdict(Outcome.UNREACHABLE, B, "away", failed_open=True)
        return Verdict(Outcome.ALLOWED, self.of.get(question.key, "other"))

    recheck = admit


@pytest.fixture
def sources() -> Sources:
    return Sources()


@contextlib.asynccontextmanager
async def isolating(sources: Sources) -> AsyncIterator[Relay]:
    async with running(with_mesh_key, admission=sources, isolate=True) as relay:
        yield relay


def isolated(relay: Relay, *, disco: bool = False) -> int:
    return relay.dropped(DropReason.ISOLATED, disco=disco)


async def reaches(sender: Peer, receiver: Peer, packet: bytes = b"a packet") -> bool:
    """Return whether a packet comes through; what comes next to the receiver is it, or nothing."""
    await sender.send_packet(receiver.key, packet)
    with trio.move_on_after(1.0):
        kind, payload = await receiver.receive()
        assert (kind, payload) == (RECV, sender.key + packet)
        return True
    return False


# --- one process


async def test_clients_of_one_source_reach_each_other_and_no_others(
    autojump_clock: Clock, sources: Sources
) -> None:
    async with isolating(sources) as relay:
        peers = {
            name: await relay.login(key=sources.member(name[:-1]))
            for name in (f"{A}1", f"{A}2", f"{B}1", f"{B}2")
        }
        for (one, sender), (other, receiver) in itertools.permutations(peers.items(), 2):
            assert await reaches(sender, receiver) == (one[:-1] == other[:-1]), (one, other)
        assert isolated(relay) == 8
        assert relay.metrics.packets_sent == 4
        assert relay.metrics.bytes_dropped[DropReason.ISOLATED, False] == 8 * len(b"a packet")
        assert await reaches(peers[f"{A}1"], peers[f"{A}1"])


async def test_one_of_another_group_looks_like_one_that_is_not_connected(
    autojump_clock: Clock, sources: Sources
) -> None:
    """To a disco packet the same answers come, as often; and nothing when that one leaves."""
    async with isolating(sources) as relay:
        alice, bob = [await relay.login(key=sources.member(group)) for group in (A, B)]
        answers = []
        for key in (bob.key, b"\x77" * 32):
            await trio.sleep(5)
            for _ in range(10):
                await alice.send_packet(key, disco())
            answers.append([await alice.receive() for _ in range(3)])
            await alice.ping()
        theirs, absent = answers
        assert theirs == [(GONE, bob.key + NOT_HERE)] * 3
        assert absent == [(GONE, b"\x77" * 32 + NOT_HERE)] * 3
        assert isolated(relay, disco=True) == 10
        await bob.end.aclose()
        await relay.end_of(bob)
        await alice.ping()
        assert relay.metrics.peer_gone_disconnected_frames == 0


async def test_who_got_packets_is_told_who_left(autojump_clock: Clock, sources: Sources) -> None:
    async with isolating(sources) as relay:
        alice, other, bob = [await relay.login(key=sources.member(g)) for g in (A, A, B)]
        assert await reaches(other, alice)
        assert not await reaches(other, bob)
        await other.end.aclose()
        assert await alice.receive() == (GONE, other.key + b"\x00")
        await bob.ping()


async def test_without_isolation_nothing_is_different(
    autojump_clock: Clock, sources: Sources
) -> None:
    """No class, no count and no frame of its own."""
    async with running(with_mesh_key, admission=sources) as relay:
        alice, bob = [await relay.login(key=sources.member(group)) for group in (A, B)]
        assert await reaches(alice, bob)
        assert (DropReason.ISOLATED, False) not in relay.metrics.packets_dropped
        watcher = await relay.mesh_login()
        assert {type(member) for member in relay.hub.members} == {Client, MeshPeer}
        await watcher.send(WATCH)
        for _ in range(3):
            kind, payload = await watcher.receive()
            assert (kind, len(payload)) == (PRESENT, 51)


async def test_drops_are_shown_from_the_start(sources: Sources) -> None:
    metrics = Metrics()
    async with running(isolate=True, metrics=metrics):
        assert metrics.packets_dropped[DropReason.ISOLATED, True] == 0


async def test_a_mesh_peer_reaches_all_and_all_reach_it(
    autojump_clock: Clock, sources: Sources
) -> None:
    async with isolating(sources) as relay:
        peer = await relay.mesh_login()
        for group in (A, B):
            client = await relay.login(key=sources.member(group))
            assert await reaches(peer, client)
            assert await reaches(client, peer)


async def test_the_log_names_the_source(
    autojump_clock: Clock, sources: Sources, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "derper")
    async with isolating(sources) as relay:
        await relay.login(key=sources.member(A))
        await relay.mesh_login()
    said = [each.__dict__["fields"] for each in caplog.records if each.msg == "joined"]
    assert [each.get("source") for each in said] == [A, None]


# --- groups that change


def policy(**groups: Peer) -> Policy:
    return Policy({peer.key: Entry(group=group) for group, peer in groups.items()})


async def test_the_policy_puts_keys_into_groups(autojump_clock: Clock, sources: Sources) -> None:
    """Also into that of a source; it counts for who is connected, who has to log in again."""
    async with isolating(sources) as relay:
        alice, bob, carol = [await relay.login(key=sources.member(g)) for g in (A, B, B)]
        entries = {alice.key: Entry(group="friends"), bob.key: Entry(group="friends")}
        relay_policy = Policy({**entries, carol.key: Entry(group=B, label="carol")})
        async with trio.open_nursery() as nursery:
            await serverinfo.apply_policy(relay.state, nursery, relay_policy)
        for peer in (alice, bob):
            assert isinstance(await relay.end_of(peer), GroupChanged)
        alice, bob = [await relay.login(key=peer.private) for peer in (alice, bob)]
        assert await reaches(alice, bob)
        assert not await reaches(carol, bob)
        # The group of a source can be named, too.
        async with trio.open_nursery() as nursery:
            await serverinfo.apply_policy(relay.state, nursery, policy(**{A: bob}))
        assert isinstance(await relay.end_of(alice), GroupChanged)
        assert isinstance(await relay.end_of(bob), GroupChanged)
        alice, bob = [await relay.login(key=peer.private) for peer in (alice, bob)]
        assert await reaches(alice, bob)


async def test_who_is_admitted_by_another_source_has_to_log_in_again(
    autojump_clock: Clock, sources: Sources
) -> None:
    async with isolating(sources) as relay:
        alice, bob = [await relay.login(key=sources.member(A)) for _ in range(2)]
        keys = [alice.key, bob.key]
        sources.of[bob.key] = B
        await recheck.recheck(relay.state, sources, keys)
        assert isinstance(await relay.end_of(bob), GroupChanged)
        bob = await relay.login(key=bob.private)
        assert not await reaches(alice, bob)
        # A source that can't be asked changes nothing.
        sources.is_away = True
        await recheck.recheck(relay.state, sources, keys)
        await alice.ping()
        await bob.ping()


# --- workers


@contextlib.asynccontextmanager
async def isolating_workers(sources: Sources, count: int = 2) -> AsyncIterator[Workers]:
    async with workers(count, admission=sources, isolate=True) as found:
        yield found


async def test_over_workers(autojump_clock: Clock, sources: Sources) -> None:
    async with isolating_workers(sources) as found:
        peers = {
            (group, place): await relay.login(key=sources.member(group))
            for place, relay in enumerate(found.relays)
            for group in (A, B)
        }
        await wait_all_tasks_blocked()
        for (one, sender), (other, receiver) in itertools.permutations(peers.items(), 2):
            assert await reaches(sender, receiver) == (one[0] == other[0]), (one, other)
        assert found.drops() == {"isolated": 8}
        here, there = peers[A, 0], peers[B, 1]
        await here.send_packet(there.key, disco())
        assert await here.receive() == (GONE, there.key + NOT_HERE)


async def test_a_client_that_comes_back_to_another_worker_in_another_group(
    autojump_clock: Clock, sources: Sources
) -> None:
    async with isolating_workers(sources) as found:
        first, second = found.relays
        alice = await first.login(key=sources.member(A))
        bob = await second.login(key=sources.member(A))
        await wait_all_tasks_blocked()
        assert await reaches(alice, bob)
        await bob.end.aclose()
        await second.end_of(bob)
        sources.of[bob.key] = B
        bob = await second.login(key=bob.private)
        await wait_all_tasks_blocked()
        assert not await reaches(alice, bob)
        sources.of[bob.key] = A
        again = await second.login(key=bob.private)
        await wait_all_tasks_blocked()
        assert await reaches(alice, again)


async def test_watchers_of_workers_are_told_groups(autojump_clock: Clock, sources: Sources) -> None:
    """Also of the clients of the other workers: another relay goes by that."""
    async with isolating_workers(sources) as found:
        keys = [sources.member(group) for group in (A, B)]
        for relay, key in zip(found.relays, keys, strict=True):
            await relay.login(key=key)
        await wait_all_tasks_blocked()
        watcher = await found.relays[0].mesh_login()
        await watcher.send(WATCH)
        seen = {}
        while len(seen) < 3:
            kind, payload = await watcher.receive()
            assert kind == PRESENT
            seen[payload[:32]] = payload[51:]
        for key, group in zip(keys, (A, B), strict=True):
            assert seen[bytes(key.public_key)] == tag_of(group)
        assert seen[watcher.key] == b""
        assert len(tag_of(A)) == TAG_LENGTH


# --- a mesh


@contextlib.asynccontextmanager
async def meshed(sources: Sources, *isolate: bool) -> AsyncIterator[list[Relay]]:
    """Run a relay for each of `isolate`, all of them linked."""
    async with contextlib.AsyncExitStack() as stack:
        relays = [
            await stack.enter_async_context(running(with_mesh_key, admission=sources, isolate=each))
            for each in isolate
        ]
        async with trio.open_nursery() as nursery:
            for one, other in itertools.permutations(relays, 2):
                keeper = Keeper(one.state, "other", _dial(other, nursery))
                nursery.start_soon(keeper.run)
            await wait_all_tasks_blocked()
            yield relays
            nursery.cancel_scope.cancel()


def _dial(other: Relay, nursery: trio.Nursery) -> Any:
    async def connection(there: Transport) -> None:
        with contextlib.suppress(ConnectionEnd):
            await serve(other.state, there, b"", {}, not_ideal=False)
        there.close()

    async def dial() -> tuple[Transport, bytes]:
        await trio.lowlevel.checkpoint()
        here, there = memory_pair(capacity=1 << 20)
        nursery.start_soon(connection, there)
        return here, b""

    return dial


async def test_over_a_mesh(autojump_clock: Clock, sources: Sources) -> None:
    async with meshed(sources, True, True) as relays:
        peers = {
            (group, place): await relay.login(key=sources.member(group))
            for place, relay in enumerate(relays)
            for group in (A, B)
        }
        await wait_all_tasks_blocked()
        for (one, sender), (other, receiver) in itertools.permutations(peers.items(), 2):
            assert await reaches(sender, receiver) == (one[0] == other[0]), (one, other)
        assert [isolated(relay) for relay in relays] == [4, 4]


async def test_a_relay_that_does_not_isolate_can_not_let_its_clients_through(
    autojump_clock: Clock, sources: Sources
) -> None:
    """What it forwards is dropped, whatever the groups: it tells none. Nor is it sent anything."""
    async with meshed(sources, True, False) as (isolating_relay, other):
        here = await isolating_relay.login(key=sources.member(A))
        there = await other.login(key=sources.member(A))
        await wait_all_tasks_blocked()
        assert not await reaches(there, here)
        assert not await reaches(here, there)
        assert isolated(isolating_relay) == 2
        assert isolating_relay.metrics.packets_forwarded_in == 1
        assert isolating_relay.metrics.packets_forwarded_out == 0


async def test_what_is_forwarded_for_another_group_or_from_nobody(
    autojump_clock: Clock, sources: Sources
) -> None:
    async with meshed(sources, True, True) as (relay, other):
        alice = await relay.login(key=sources.member(A))
        bob = await other.login(key=sources.member(B))
        await wait_all_tasks_blocked()
        peer = await relay.mesh_login()
        for source in (bob.key, b"\x77" * 32):
            await peer.send(FORWARD, source + alice.key + b"packet")
        await peer.ping()
        await alice.ping()
        assert isolated(relay) == 2


async def test_groups_of_who_moves_in_a_mesh(autojump_clock: Clock, sources: Sources) -> None:
    """A link notes the group that was told last, and forgets who has gone."""
    async with meshed(sources, True, True) as (relay, other):
        alice = await relay.login(key=sources.member(A))
        bob = await other.login(key=sources.member(B))
        await wait_all_tasks_blocked()
        assert not await reaches(alice, bob)
        sources.of[bob.key] = A
        again = await other.login(key=bob.private)
        await wait_all_tasks_blocked()
        assert await reaches(alice, again)
        (link,) = {*relay.hub.forwarders.best.values()}
        assert link.groups[bob.key] == tag_of(A)
        for peer in (bob, again):
            await peer.end.aclose()
            await other.end_of(peer)
        await wait_all_tasks_blocked()
        assert bob.key not in link.groups


def test_tags() -> None:
    names = [f"tailnet:{number}" for number in range(1000)]
    assert len({tag_of(name) for name in names}) == 1000
    assert tag_of(A) == tag_of(A)
