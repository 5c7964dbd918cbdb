"""Quotas of several workers: each worker's share counts for all, and all learn of it."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import nacl.public
import pytest
import trio
import trio.testing

from derp.accounts.counts import Counts, Period
from derp.accounts.keeper import FLUSH_EVERY, Accounts
from derp.accounts.memorysink import MemorySink
from derp.admission.checker import Checker
from derp.admission.policysource import PolicySource
from derp.admission.sources import Sources
from derp.errors import NotAdmitted
from derp.files.ratelimit import RateConfig
from derp.metrics import Metrics
from derp.policy.model import Entry, Policy, Quota
from derp.relay.clones import Clones
from derp.session import accounting, review, serverinfo
from derp.session.state import RelayState
from derp.workers.accounts import SupervisorAccounts, WorkerSink
from derp.workers.admission import SupervisorAdmission, WorkerAdmission
from tests.peers import Peer
from tests.relays import Relay, running
from tests.support.derp import HEALTH, KEEP_ALIVE, SERVER_INFO
from tests.workers.ends import Line, Pool

Clock = trio.testing.MockClock
NOON = 1_796_126_400.0  # 2026-12-01 12:00 UTC
EVERY = FLUSH_EVERY / 2
WITHIN = 2 * FLUSH_EVERY
"""Seconds: a worker's flush, the supervisor's, and the worker's next one."""
KEY = nacl.public.PrivateKey.generate()
PUBLIC = bytes(KEY.public_key)
SLOW = RateConfig(125_000, 70_000)


class Cluster:
    """A supervisor, and two workers whose clients are counted and reviewed."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.wall = NOON
        self.nursery = nursery
        self.accounts = self.make_accounts(MemorySink())
        self.source = PolicySource(Path("policy"), Policy(), self.accounts)
        checker = Checker(Metrics(), Sources(policy=self.source))
        handlers = SupervisorAdmission(checker, Pool()).handlers
        self.line = Line(handlers | SupervisorAccounts(self.accounts).handlers)
        self.relays: list[Relay] = []
        nursery.start_soon(self.accounts.run, trio.lowlevel.checkpoint)

    def make_accounts(self, sink: MemorySink | WorkerSink) -> Accounts:
        return Accounts(sink, EVERY, lambda: self.wall)

    async def start(self, index: int, stack: AsyncExitStack) -> None:
        def prepare(state: RelayState) -> None:
            state.admission = WorkerAdmission(self.line.call)
            state.accounts = state.usage = self.make_accounts(WorkerSink(self.line.call, index))

        relay = await stack.enter_async_context(running(prepare))
        self.relays.append(relay)

        async def collect() -> None:
            await accounting.collect(relay.state)

        assert relay.state.accounts is not None
        self.nursery.start_soon(relay.state.accounts.run, collect)
        self.nursery.start_soon(review.run, relay.state, Clones(1000.0))

    async def put(self, entry: Entry) -> None:
        self.source.policy = Policy({PUBLIC: entry})
        for relay in self.relays:
            await serverinfo.apply_policy(relay.state, self.nursery, self.source.policy)

    def move(self, index: int, size: int) -> None:
        accounts = self.relays[index].state.accounts
        assert accounts is not None
        accounts.add(PUBLIC, Counts(sent=size))


@pytest.fixture
async def cluster(autojump_clock: Clock, nursery: trio.Nursery) -> AsyncIterator[Cluster]:
    found = Cluster(nursery)
    async with AsyncExitStack() as stack:
        for index in range(2):
            await found.start(index, stack)
        yield found


async def told(peer: Peer, kind: int) -> str:
    """The next frame is of this kind, once keep-alives are left out; its text, if any."""
    with trio.fail_after(WITHIN):
        while (frame := await peer.receive())[0] == KEEP_ALIVE:
            pass
    assert frame[0] == kind
    return frame[1].decode(errors="replace")


async def test_the_bytes_at_all_workers_count_at_all_workers(
    autojump_clock: Clock, cluster: Cluster
) -> None:
    await cluster.put(Entry(quota=Quota(100_000, Period.DAY, SLOW)))
    peers = [await relay.login(key=KEY) for relay in cluster.relays]
    await trio.sleep(WITHIN)
    cluster.move(0, 50_000)
    await trio.sleep(WITHIN)
    cluster.move(1, 50_000)
    for peer in peers:
        await told(peer, SERVER_INFO)
        assert "is slowed down to 1 Mbit/s until 2026-12-02" in await told(peer, HEALTH)
    cluster.wall += 86_400
    for peer in peers:
        await told(peer, SERVER_INFO)
    await trio.sleep(WITHIN)
    for relay in cluster.relays:
        (client,) = relay.hub.members
        assert (client.bucket, client.health) == (None, "")


async def test_who_is_over_quota_is_refused_at_a_worker_that_has_not_seen_it(
    autojump_clock: Clock, cluster: Cluster
) -> None:
    await cluster.put(Entry(quota=Quota(100_000, Period.DAY, None)))
    peer = await cluster.relays[0].login(key=KEY)
    cluster.move(0, 100_000)
    end = await cluster.relays[0].end_of(peer)
    assert "over its quota for this day" in str(end)
    for relay in cluster.relays:
        back = relay.connect(key=KEY)
        await back.receive()
        await back.end.send(back.client_info(relay.state.public_key))
        assert isinstance(await relay.end_of(back), NotAdmitted)
        said = await told(back, HEALTH)
        assert said.endswith("quota of 100 kB/day here, and is refused until 2026-12-02 00:00 UTC")
    cluster.wall += 86_400
    await trio.sleep(WITHIN)
    for relay in cluster.relays:
        await relay.login(key=KEY)
