"""One policy for several workers, with their clients, over calls between them."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import nacl.public
import pytest
import trio
import trio.testing

from derp.admission.checker import Checker
from derp.admission.policysource import PolicySource
from derp.admission.sources import Sources
from derp.errors import NotAdmitted
from derp.metrics import Metrics
from derp.policy.model import Policy
from derp.session.state import RelayState
from derp.wire.keys import node_public_text
from derp.workers.admission import SupervisorAdmission, WorkerAdmission, WorkerRechecks
from derp.workers.policy import AGAIN, SupervisorPolicy, WorkerPolicy
from tests.peers import Peer
from tests.relays import Relay, running
from tests.support.threads import run_at_once
from tests.workers.ends import ANSWER_TIMEOUT, Line, Pool

Clock = trio.testing.MockClock
MBIT = 125_000


class Cluster:
    """Two workers, each a relay, and the supervisor that reads the policy for them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.source = PolicySource(path, Policy())
        self.checker = Checker(Metrics(), Sources(policy=self.source))
        self.pool = Pool(None, None)
        self.admission = SupervisorAdmission(self.checker, self.pool)
        self.policy = SupervisorPolicy(self.source, self.checker, self.pool)
        self.wake, self.woken = trio.open_memory_channel[None](1)
        self.relays: list[Relay] = []
        self.lines: list[Line] = []
        self.workers: list[WorkerPolicy] = []

    async def start(self, index: int, stack: AsyncExitStack, nursery: trio.Nursery) -> None:
        line = Line(self.admission.handlers | self.policy.handlers)
        judge = WorkerAdmission(line.call)

        def guard(state: RelayState) -> None:
            state.admission = judge

        relay = await stack.enter_async_context(running(guard))
        rechecks = WorkerRechecks(relay.state, judge, 0.0, 2)
        nursery.start_soon(rechecks.run)
        worker = WorkerPolicy(relay.state, nursery, line.call)
        self.pool.workers[index] = rechecks.handlers | worker.in_order
        self.relays.append(relay)
        self.lines.append(line)
        self.workers.append(worker)

    async def write(self, *lines: str) -> None:
        self.path.write_text("\n".join(lines))
        self.wake.send_nowait(None)
        await trio.sleep(0.1)


@pytest.fixture
async def cluster(
    autojump_clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Cluster]:
    run_at_once(monkeypatch)
    found = Cluster(tmp_path / "policy.toml")
    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        for index in range(2):
            await found.start(index, stack, nursery)
            await found.workers[index].fetch(trio.Event())
        nursery.start_soon(found.policy.keep, found.woken, found.admission.notify_removed)
        yield found
        nursery.cancel_scope.cancel()


async def told(peer: Peer) -> int:
    _, payload = await peer.receive()
    box = nacl.public.Box(peer.private, nacl.public.PublicKey(peer.server_key))
    return json.loads(box.decrypt(payload)).get("TokenBucketBytesPerSecond", 0)


def entry(peer: Peer) -> str:
    return f'[clients."{node_public_text(peer.key)}"]'


async def test_a_change_counts_at_all_workers(autojump_clock: Clock, cluster: Cluster) -> None:
    peers = [await relay.login() for relay in cluster.relays]
    denied = [await relay.login() for relay in cluster.relays]
    lines = [line for peer in denied for line in (entry(peer), "deny = true")]
    await cluster.write("[defaults]", 'rate = "2 Mbit/s"', *lines)
    for peer in peers:
        assert await told(peer) == 2 * MBIT
    for relay, peer in zip(cluster.relays, denied, strict=True):
        assert isinstance(await relay.end_of(peer), NotAdmitted)
    new = await cluster.relays[1].login()
    assert new.server_info["TokenBucketBytesPerSecond"] == 2 * MBIT


async def test_who_is_no_longer_allowed_is_asked_about(
    autojump_clock: Clock, cluster: Cluster
) -> None:
    peer = await cluster.relays[1].login()
    await cluster.write("[defaults]", entry(peer), "allow = true")
    cluster.lines[1].asked.clear()
    await cluster.write("[defaults]")
    assert "admission.recheck" in cluster.lines[1].asked
    await peer.ping()


async def test_a_worker_that_starts_has_the_policy_before_its_first_client(
    autojump_clock: Clock, cluster: Cluster
) -> None:
    await cluster.write("[defaults]", "deny = true")
    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        await cluster.start(1, stack, nursery)
        await cluster.workers[-1].fetch(trio.Event())
        assert cluster.relays[-1].state.policy == cluster.source.policy
        nursery.cancel_scope.cancel()


async def test_it_waits_for_it_until_it_is_stopped(autojump_clock: Clock, cluster: Cluster) -> None:
    worker, line = cluster.workers[0], cluster.lines[0]
    line.lost, stop = True, trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.fetch, stop)
        await trio.sleep(10 * AGAIN)
        stop.set()


async def test_no_older_policy_takes_the_place_of_a_newer_one(
    autojump_clock: Clock, cluster: Cluster
) -> None:
    """As where the answer to a worker that starts comes behind a change."""
    (handler,) = cluster.policy.handlers.values()
    before = await handler(None)
    await cluster.write("[defaults]", "deny = true")
    await cluster.workers[0]._changed(before)
    assert cluster.relays[0].state.policy == cluster.source.policy != Policy()


async def test_a_worker_that_is_late_keeps_no_other_from_it(
    autojump_clock: Clock, cluster: Cluster
) -> None:
    cluster.pool.late.add(0)
    peer = await cluster.relays[1].login()
    await cluster.write("[defaults]", 'rate = "2 Mbit/s"')
    assert await told(peer) == 2 * MBIT
    assert cluster.relays[0].state.policy == Policy()
    await trio.sleep(ANSWER_TIMEOUT)
    cluster.pool.late.clear()
    await trio.sleep(ANSWER_TIMEOUT)
    assert cluster.relays[0].state.policy == cluster.source.policy
