"""One checker for several workers, with their clients, over calls between them."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import nacl.public
import pytest
import trio
import trio.testing

from derp.admission.allowlist import AllowList
from derp.admission.checker import Checker
from derp.admission.model import Outcome, Question, Verdict
from derp.admission.refusals import merged
from derp.admission.sources import Sources
from derp.errors import NotAdmitted
from derp.metrics import Metrics
from derp.session import recheck
from derp.session.state import RelayState
from derp.wire.keys import node_public_text
from derp.workers import admission as workers_admission
from derp.workers.admission import (
    KEYS_AT_ONCE,
    SupervisorAdmission,
    WorkerAdmission,
    WorkerRechecks,
)
from tests.peers import Peer
from tests.relays import Relay, running
from tests.support.threads import run_at_once
from tests.workers.ends import Line, Pool, lost_call

Clock = trio.testing.MockClock
QUESTION = Question(bytes(range(32)), "192.0.2.1")


class Source:
    """Admits whom it knows, after a while; counts how many ask at once."""

    name = "tailscaled"

    def __init__(self) -> None:
        self.known: set[bytes] = set()
        self.away = False
        self.takes = 0.0
        self.asked: list[bytes] = []
        self.at_once = 0
        self.most = 0

    async def ask(self, question: Question) -> Verdict:
        self.asked.append(question.key)
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            await trio.sleep(self.takes)
        finally:
            self.at_once -= 1
        if self.away:
            return Verdict(Outcome.UNREACHABLE, self.name, "away; start it")
        if question.key in self.known:
            return Verdict(Outcome.ALLOWED, self.name)
        return Verdict(Outcome.REFUSED, self.name, "not known")


class Cluster:
    """Two workers, each a relay, and what they have in common."""

    def __init__(self, listing: AllowList | None = None, *, by_url: bool = False) -> None:
        self.source = Source()
        self.metrics = Metrics()
        tailscaleds, urls = ([], [self.source]) if by_url else ([self.source], [])
        self.admission = Checker(
            self.metrics,
            Sources(allowlist=listing, tailscaleds=tailscaleds, urls=urls),
        )
        self.pool = Pool(None, None)
        self.shared = SupervisorAdmission(self.admission, self.pool)
        self.wake, self._woken = trio.open_memory_channel[None](1)
        self.lines = [Line(self.shared.handlers) for _ in range(2)]
        self.relays: list[Relay] = []

    @asynccontextmanager
    async def run(self, every: float = 0.0) -> AsyncIterator["Cluster"]:
        async with AsyncExitStack() as stack:
            nursery = await stack.enter_async_context(trio.open_nursery())
            self.admission.ask_in(nursery)
            for index, line in enumerate(self.lines):
                judge = WorkerAdmission(line.call)

                def guard(state: RelayState, judge: WorkerAdmission = judge) -> None:
                    state.admission = judge

                relay = await stack.enter_async_context(running(guard))
                self.relays.append(relay)
                dismissals = WorkerRechecks(relay.state, judge, every, self.pool.size)
                self.pool.workers[index] = dismissals.handlers
                nursery.start_soon(dismissals.run)
            nursery.start_soon(self.shared.keep, self._woken)
            await trio.testing.wait_all_tasks_blocked()
            self.source.asked.clear()
            yield self
            nursery.cancel_scope.cancel()

    def key(self) -> nacl.public.PrivateKey:
        key = nacl.public.PrivateKey.generate()
        self.source.known.add(bytes(key.public_key))
        return key

    def clients(self) -> list[int]:
        return [len(relay.hub.members) for relay in self.relays]


async def refusal(relay: Relay, peer: Peer) -> str:
    end = await relay.end_of(peer)
    assert isinstance(end, NotAdmitted)
    return str(end)


async def knock(relay: Relay, key: nacl.public.PrivateKey) -> Peer:
    peer = relay.connect(key=key)
    await peer.receive()
    await peer.end.send(peer.client_info(relay.state.public_key))
    return peer


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> None:
    run_at_once(monkeypatch)


@pytest.mark.parametrize(
    "verdict",
    [
        Verdict(Outcome.ALLOWED, "file"),
        Verdict(Outcome.LATE, "headscale", "down \N{SNOWMAN}", failed_open=True),
        Verdict(Outcome.REFUSED, "tailscaled", "no"),
        Verdict(Outcome.NO_ROOM, "the checker", "too many"),
    ],
)
async def test_a_verdict_comes_as_it_was_given(verdict: Verdict) -> None:
    class Given:
        def recently_allowed(self, key: bytes) -> bool:
            return False

        async def admit(self, question: Question, *, without_asking: bool) -> Verdict:
            assert question == QUESTION
            return verdict

        async def recheck(self, question: Question) -> Verdict:
            assert question == QUESTION
            return verdict

    shared = SupervisorAdmission(Given(), Pool())  # type: ignore[arg-type]
    remote = WorkerAdmission(Line(shared.handlers).call)
    assert await remote.admit(QUESTION) == verdict
    assert await remote.recheck(QUESTION) == verdict


async def test_where_the_supervisor_can_t_be_asked_nobody_is_admitted() -> None:
    remote = WorkerAdmission(lost_call())
    for verdict in (await remote.admit(QUESTION), await remote.recheck(QUESTION)):
        assert not verdict.admitted
        assert not verdict.authoritative
        assert not verdict.cacheable
        assert "can't be asked" in verdict.reason
        assert "\n" not in verdict.reason


async def test_one_memory_and_one_count_for_all_workers(autojump_clock: Clock) -> None:
    async with Cluster().run() as cluster:
        one, two = cluster.relays
        key, stranger = cluster.key(), nacl.public.PrivateKey.generate()
        for relay in (one, two):
            await relay.login(key=key)
            peer = await knock(relay, stranger)
            assert "is refused by tailscaled: not known" in await refusal(relay, peer)
        assert cluster.source.asked == [bytes(key.public_key), bytes(stranger.public_key)]
        counted = {what: n for what, n in cluster.metrics.admission_verdicts.items() if n}
        assert counted == {
            "allowed": 1,
            "remembered_allowed": 1,
            "refused": 1,
            "remembered_refused": 1,
        }
        assert [relay.metrics.admission_verdicts for relay in (one, two)] == [{}, {}]
        noted = [relay.state.refusals.latest() for relay in (one, two)]
        (found,) = merged([each for some in noted for each in some])
        assert (found.key, found.count) == (bytes(stranger.public_key), 2)
        assert (found.source, found.reason) == ("tailscaled", "not known")


async def test_who_asks_the_same_at_two_workers_shares_the_answer(autojump_clock: Clock) -> None:
    async with Cluster().run() as cluster:
        cluster.source.takes = 2.0
        key = cluster.key()
        async with trio.open_nursery() as nursery:
            for relay in cluster.relays:
                nursery.start_soon(lambda relay=relay: relay.login(key=key))
        assert trio.current_time() == 2.0
        assert len(cluster.source.asked) == 1


async def test_a_worker_that_loses_its_supervisor_admits_nobody_and_ends_nobody(
    autojump_clock: Clock,
) -> None:
    async with Cluster().run(every=300.0) as cluster:
        relay = cluster.relays[0]
        await relay.login(key=cluster.key())
        cluster.lines[0].lost = True
        peer = await knock(relay, cluster.key())
        assert "the supervisor of the workers" in await refusal(relay, peer)
        await trio.sleep(1000.0)
        assert cluster.clients() == [1, 0]


async def test_all_workers_ask_again_about_their_clients(autojump_clock: Clock) -> None:
    async with Cluster().run(every=300.0) as cluster:
        keys = [cluster.key(), cluster.key()]
        peers = [
            (relay, await relay.login(key=key))
            for relay, key in zip(cluster.relays, keys, strict=True)
        ]
        stays = await cluster.relays[0].login(key=cluster.key())
        cluster.source.known -= {bytes(key.public_key) for key in keys}
        for relay, peer in peers:
            assert "no longer admitted by tailscaled" in await refusal(relay, peer)
        assert trio.current_time() == 300.0
        assert [member.key for member in cluster.relays[0].hub.members] == [stays.key]
        assert cluster.clients() == [1, 0]


async def test_together_workers_ask_no_more_side_by_side_than_one(autojump_clock: Clock) -> None:
    async with Cluster().run(every=300.0) as cluster:
        for relay in cluster.relays:
            for _ in range(recheck.CONCURRENCY):
                await relay.login(key=cluster.key())
        cluster.source.takes, cluster.source.most = 1.0, 0
        await trio.sleep_until(350.0)
        assert 1 < cluster.source.most <= recheck.CONCURRENCY
        assert len(cluster.source.asked) == 4 * recheck.CONCURRENCY


async def test_more_workers_than_questions_leave_one_to_each(autojump_clock: Clock) -> None:
    async with running() as relay:
        assert WorkerRechecks(relay.state, WorkerAdmission(lost_call()), 0, 40)._concurrency == 1


@pytest.fixture
def listed(tmp_path: Path, threads: None) -> Cluster:
    return Cluster(AllowList(tmp_path / "nodes", {}))


def write(cluster: Cluster, *keys: nacl.public.PrivateKey) -> None:
    listing = cluster.admission.sources.allowlist
    assert listing is not None
    lines = [node_public_text(bytes(key.public_key)) for key in keys]
    listing.path.write_text("\n".join(lines))


async def test_who_is_no_longer_listed_is_ended_at_every_worker(
    autojump_clock: Clock, listed: Cluster
) -> None:
    one, two, stays = (nacl.public.PrivateKey.generate() for _ in range(3))
    write(listed, one, two, stays)
    async with listed.run() as cluster:
        cluster.wake.send_nowait(None)
        await trio.sleep(1.0)
        cluster.source.away = True
        peers = []
        for relay in cluster.relays:
            for key in (one, two, stays):
                peers.append((relay, await relay.login(key=key)))  # noqa: PERF401
        write(cluster, stays)
        cluster.wake.send_nowait(None)
        for relay, peer in peers:
            if peer.key != bytes(stays.public_key):
                assert "no longer admitted" in await refusal(relay, peer)
        assert cluster.clients() == [1, 1]


async def test_a_worker_that_is_late_is_told_again(autojump_clock: Clock, listed: Cluster) -> None:
    key = nacl.public.PrivateKey.generate()
    write(listed, key)
    async with listed.run() as cluster:
        cluster.wake.send_nowait(None)
        await trio.sleep(1.0)
        peer = await cluster.relays[1].login(key=key)
        cluster.pool.late = {1}
        write(cluster, nacl.public.PrivateKey.generate())
        cluster.wake.send_nowait(None)
        await trio.sleep(2.0)
        assert cluster.clients() == [0, 1]
        cluster.pool.late = set()
        assert "no longer admitted" in await refusal(cluster.relays[1], peer)


async def test_a_worker_that_is_gone_is_not_told_for_ever(
    autojump_clock: Clock, listed: Cluster
) -> None:
    write(listed, nacl.public.PrivateKey.generate())
    async with listed.run() as cluster:
        cluster.wake.send_nowait(None)
        await trio.sleep(1.0)
        cluster.pool.workers[1] = None
        cluster.pool.said.clear()
        write(cluster, nacl.public.PrivateKey.generate())
        cluster.wake.send_nowait(None)
        await trio.sleep(100.0)
        assert [what for what, _ in cluster.pool.said] == ["admission.removed"] * 3


async def test_a_long_list_is_told_in_pieces(autojump_clock: Clock) -> None:
    pool = Pool({"admission.removed": nothing})
    keys = {number.to_bytes(32) for number in range(2 * KEYS_AT_ONCE + 1)}
    await SupervisorAdmission(Checker(Metrics(), Sources()), pool).notify_removed(keys)
    bodies = [body for _, body in pool.said]
    assert [len(body) for body in bodies] == [KEYS_AT_ONCE, KEYS_AT_ONCE, 1]
    assert {bytes.fromhex(key) for body in bodies for key in body} == keys


async def nothing(_: object) -> None:
    """Answer."""


async def test_a_slow_source_holds_up_no_later_change(
    autojump_clock: Clock, listed: Cluster
) -> None:
    one, two = (nacl.public.PrivateKey.generate() for _ in range(2))
    write(listed, one, two)
    async with listed.run() as cluster:
        relay = cluster.relays[0]
        cluster.wake.send_nowait(None)
        await trio.sleep(1.0)
        peers = [await relay.login(key=key) for key in (one, two)]
        cluster.source.takes = 5.0
        write(cluster, two)
        cluster.wake.send_nowait(None)
        await trio.sleep(1.0)
        write(cluster, nacl.public.PrivateKey.generate())
        cluster.wake.send_nowait(None)
        start = trio.current_time()
        for peer in peers:
            await refusal(relay, peer)
        assert trio.current_time() - start <= 9.0


async def test_a_crowd_that_has_left_is_bounded_and_who_is_known_gets_in(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery
) -> None:
    monkeypatch.setattr(workers_admission, "MAX_WAITING", 20)
    monkeypatch.setattr(workers_admission, "FEW", 5)
    cluster = Cluster()
    cluster.admission.ask_in(nursery)
    remote = WorkerAdmission(cluster.lines[0].call)
    member, other = (Question(bytes([n]) * 32, "192.0.2.1") for n in (1, 2))
    cluster.source.known |= {member.key, other.key}
    assert (await remote.admit(member)).admitted
    cluster.source.takes = 1.0
    async with trio.open_nursery() as crowd:
        for number in range(100, 120):
            crowd.start_soon(remote.admit, Question(number.to_bytes(32), "192.0.2.2"))
        await trio.testing.wait_all_tasks_blocked()
        verdict = await remote.admit(other)
        assert not verdict.admitted
        assert not verdict.authoritative
        assert "too many others wait" in verdict.reason
        assert (await remote.admit(member)).admitted
        elsewhere = Question(member.key, "192.0.2.3")
        assert (await remote.admit(elsewhere)).admitted
    assert (await remote.admit(other)).admitted
    assert cluster.shared._waiting == 0


async def test_a_crowd_of_one_network_leaves_room_for_others(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery
) -> None:
    monkeypatch.setattr(workers_admission, "MAX_WAITING", 20)
    monkeypatch.setattr(workers_admission, "FEW", 5)
    cluster = Cluster()
    cluster.admission.ask_in(nursery)
    remote = WorkerAdmission(cluster.lines[0].call)
    newcomer = Question(bytes(32), "198.51.100.1")
    cluster.source.known.add(newcomer.key)
    cluster.source.takes = 0.1
    async with trio.open_nursery() as crowd:
        for number in range(100, 140):
            crowd.start_soon(remote.admit, Question(number.to_bytes(32), "192.0.2.2"))
        await trio.testing.wait_all_tasks_blocked()
        assert cluster.shared._waiting == 20
        assert (await remote.admit(newcomer)).admitted
        # Many networks with few each find an end, too.
        for number in range(100):
            question = Question((200 + number).to_bytes(32), f"192.0.{number}.1")
            crowd.start_soon(remote.admit, question)
        await trio.testing.wait_all_tasks_blocked()
        assert cluster.shared._waiting <= 30
    assert cluster.shared._waiting == 0
    assert not cluster.shared._by_network


async def test_who_got_in_unasked_is_asked_about_at_its_worker(autojump_clock: Clock) -> None:
    async with Cluster(by_url=True).run() as cluster:
        cluster.source.away = True
        strangers = [(each, await each.login()) for each in cluster.relays]
        stays = await cluster.relays[0].login(key=cluster.key())
        cluster.source.away = False
        begin = trio.current_time()
        for relay, peer in strangers:
            assert "no longer admitted by tailscaled" in await refusal(relay, peer)
        assert trio.current_time() - begin <= recheck.UNVERIFIED_EVERY
        await trio.sleep(1.0)
        assert [member.key for member in cluster.relays[0].hub.members] == [stays.key]
        cluster.source.asked.clear()
        await trio.sleep(100.0)
        assert cluster.source.asked == []
