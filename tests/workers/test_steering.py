"""Steering with workers: whichever process is asked, the supervisor does it, at all of them."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import trio
import trio.testing

from derp.admission.policykeeper import CHANGE_TIMEOUT, PolicyRequest, policy_of
from derp.errors import ClosedByOperator, NotAdmitted, RPCTimeout, SteeringFailed
from derp.http.server import Deadlines
from derp.policy.model import Entry, Policy
from derp.session.state import RelayState
from derp.wire.control import Command
from derp.wire.keys import node_public_text
from derp.workers.policy import APPLY_TIMEOUT, NOTIFY_TRIES, SupervisorPolicy, WorkerPolicy
from derp.workers.rpc import CALL_TIMEOUT, Json
from derp.workers.steering import SupervisorSteering, steer, worker_handlers
from tests.relays import Relay, running, with_mesh_key
from tests.workers.ends import ANSWER_TIMEOUT, Line, Pool, lost_call

Clock = trio.testing.MockClock
BY = "uid 0, pid 7"


class Cluster:
    """Two workers and their supervisor, without -policy and without anybody to ask."""

    def __init__(self) -> None:
        self.pool = Pool(None, None)
        self.to_keeper, self.requests = trio.open_memory_channel[PolicyRequest](1)
        source = policy_of(None)
        self.policy = SupervisorPolicy(source, None, cast("Any", self.pool))
        self.steering = SupervisorSteering(cast("Any", self.pool), self.to_keeper)
        self.relays: list[Relay] = []
        self.line = Line(self.steering.handlers | self.policy.handlers)
        self.steer_by_worker = partial(steer, self.line.call)
        self.parts: list[WorkerPolicy] = []

    async def start(self, index: int, stack: AsyncExitStack, nursery: trio.Nursery) -> None:
        def number(state: RelayState) -> None:
            state.become_worker(index, bytes(32))

        relay = await stack.enter_async_context(running(number))
        part = WorkerPolicy(relay.state, nursery, self.line.call)
        self.pool.workers[index] = worker_handlers(relay.state) | part.in_order
        self.relays.append(relay)
        self.parts.append(part)


@pytest.fixture
async def cluster(autojump_clock: Clock) -> AsyncIterator[Cluster]:
    found = Cluster()

    async def nobody(keys: set[bytes]) -> None:
        pass

    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        for index in range(2):
            await found.start(index, stack, nursery)
        nursery.start_soon(found.policy.keep, found.requests, nobody)
        yield found
        nursery.cancel_scope.cancel()


async def test_workers_that_do_not_answer_are_told_of(
    autojump_clock: Clock, cluster: Cluster
) -> None:
    first = await cluster.relays[0].login()
    cluster.pool.late.add(1)
    found = await cluster.steering.steer(Command("kick", first.key), BY)
    assert found.ended == 1
    assert found.sentence.endswith("keeps it out; worker 1 did not answer: try again")
    with pytest.raises(SteeringFailed, match="is not connected; worker 1 did not answer: try"):
        await cluster.steering.steer(Command("kick", bytes(32)), BY)
    # One that is being restarted has no clients.
    cluster.pool.workers[1] = None
    with pytest.raises(SteeringFailed, match="is not connected; derper clients"):
        await cluster.steering.steer(Command("kick", bytes(32)), BY)


async def test_no_policy_binds_a_relay_of_the_mesh(autojump_clock: Clock, cluster: Cluster) -> None:
    with_mesh_key(cluster.relays[1].state)
    peer = await cluster.relays[1].mesh_login()
    with pytest.raises(SteeringFailed, match="is a relay of the mesh"):
        await cluster.steer_by_worker(Command("deny", peer.key), BY)


async def test_a_key_is_disconnected_at_all_workers(
    autojump_clock: Clock, cluster: Cluster
) -> None:
    one, two = cluster.relays
    first = await one.login()
    second, other = await two.login(key=first.private), await two.login()
    found = await cluster.steer_by_worker(Command("kick", first.key), BY)
    assert found.ended == 2
    assert "is disconnected (2 connections)" in found.sentence
    for relay, peer in ((one, first), (two, second)):
        assert isinstance(await relay.end_of(peer), ClosedByOperator)
    await other.ping()
    with pytest.raises(SteeringFailed, match=r"is not connected; derper clients lists who is$"):
        await cluster.steer_by_worker(Command("kick", first.key), BY)


async def test_a_key_is_denied_and_limited_at_all_workers(
    autojump_clock: Clock, cluster: Cluster
) -> None:
    assert not cluster.policy.is_set
    one, two = cluster.relays
    denied, peer = await one.login(), await two.login()
    found = await cluster.steer_by_worker(Command("deny", denied.key), BY)
    assert found.ended == 1
    assert found.sentence.startswith(f"{node_public_text(denied.key)} is denied (1 connection")
    assert isinstance(await one.end_of(denied), NotAdmitted)
    # A worker that starts is to ask for it.
    assert cluster.policy.is_set
    assert cluster.policy.in_force == one.state.policy == two.state.policy
    await cluster.steer_by_worker(Command("limit", peer.key, "1 MB/s"), BY)
    assert two.state.limit_of(peer.key).bytes_per_second == 1_000_000
    await cluster.steer_by_worker(Command("limit", peer.key, None), BY)
    await cluster.steer_by_worker(Command("allow", denied.key, label="laptop"), BY)
    assert two.state.policy.of(denied.key) == Entry(label="laptop", allowed=True)
    assert two.state.limit_of(peer.key).bytes_per_second == 0
    with pytest.raises(SteeringFailed, match="want a rate such as"):
        await cluster.steer_by_worker(Command("limit", peer.key, "10"), BY)


async def test_what_a_worker_that_answers_late_has_ended_counts_once(
    autojump_clock: Clock, cluster: Cluster
) -> None:
    """The others are told again, since not all have answered, and do nothing then."""
    one, two = cluster.relays
    first = await one.login()
    await two.login(key=first.private)
    cluster.pool.late.add(1)
    found = await cluster.steering.steer(Command("deny", first.key), BY)
    assert found.ended == 1
    await trio.sleep(NOTIFY_TRIES * ANSWER_TIMEOUT)
    assert [what for what, _ in cluster.pool.said].count("policy.changed") == NOTIFY_TRIES


async def test_a_supervisor_that_does_not_answer(autojump_clock: Clock) -> None:
    with pytest.raises(SteeringFailed, match="the supervisor of the workers can't be asked"):
        await steer(lost_call(), Command("deny", bytes(32)), BY)


async def test_a_policy_without_a_file_is_kept(
    autojump_clock: Clock, cluster: Cluster, tmp_path: Path
) -> None:
    """A reload has no file to read."""
    await cluster.steer_by_worker(Command("deny", bytes(32)), BY)
    await cluster.to_keeper.send(None)
    await trio.sleep(100)
    assert cluster.policy.in_force.of(bytes(32)).allowed is False
    assert cluster.policy.in_force != Policy()


async def test_a_worker_that_is_late_keeps_nobody_waiting(
    autojump_clock: Clock, cluster: Cluster
) -> None:
    """And has the change once it answers."""
    peer = await cluster.relays[1].login()
    cluster.pool.late.add(0)
    began = trio.current_time()
    found = await cluster.steer_by_worker(Command("deny", peer.key), BY)
    # Asked whether it serves a relay of the mesh, and then for the change.
    assert trio.current_time() - began <= ANSWER_TIMEOUT + APPLY_TIMEOUT
    assert found.ended == 1
    cluster.pool.late.clear()
    await trio.sleep(2 * ANSWER_TIMEOUT)
    assert cluster.relays[0].state.policy.of(peer.key).allowed is False


def test_whoever_asks_waits_longer_than_who_is_asked() -> None:
    assert APPLY_TIMEOUT < CHANGE_TIMEOUT
    assert ANSWER_TIMEOUT + CHANGE_TIMEOUT < CALL_TIMEOUT < Deadlines().later


async def test_a_supervisor_that_is_late_may_have_done_it(autojump_clock: Clock) -> None:
    async def late(what: str, body: Json = None) -> Json:
        raise RPCTimeout(f"{what} was not answered within 10 s")

    with pytest.raises(SteeringFailed, match="it may have been done"):
        await steer(late, Command("deny", bytes(32)), BY)
