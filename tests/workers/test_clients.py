"""The list of all workers' clients, a page in each call."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, cast

import pytest
import trio
import trio.testing

from derp.errors import RPCFailed
from derp.service import clients
from derp.session.state import RelayState
from derp.workers.clients import LIST_TIMEOUT, WorkerClients, worker_clients, worker_handlers
from derp.workers.pool import WorkerStatus
from derp.workers.rpc import Json
from tests.relays import Relay, running
from tests.workers.ends import Line, lost_call, through_json

Clock = trio.testing.MockClock


class Pool:
    """Two workers, of whom one may not answer."""

    def __init__(self, *states: RelayState) -> None:
        self.size = len(states)
        self.handlers = [worker_handlers(state) for state in states]
        self.silent: set[int] = set()
        self.restarting: set[int] = set()
        self.takes = 0.0
        """Seconds until an answer."""
        self.pages: list[int] = []

    def statuses(self) -> list[WorkerStatus]:
        return [WorkerStatus(7, 0, index not in self.restarting) for index in range(self.size)]

    async def call_one(self, index: int, what: str, body: Json = None) -> Json:
        await trio.sleep(self.takes)
        if index in self.silent:
            raise RPCFailed("it does not answer")
        answer = through_json(await self.handlers[index][what](through_json(body)))
        self.pages.append(len(answer[0]))
        return answer


@pytest.fixture
async def relays(autojump_clock: Clock) -> AsyncIterator[list[Relay]]:
    def second(state: RelayState) -> None:
        state.become_worker(1, bytes(32))

    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(running(each)) for each in (None, second)]


def make(relays: list[Relay]) -> tuple[Pool, WorkerClients]:
    pool = Pool(*(relay.state for relay in relays))
    return pool, WorkerClients(cast("Any", pool))


async def test_the_clients_of_all_workers_are_listed(
    autojump_clock: Clock, relays: list[Relay], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "CLIENTS_PER_PAGE", 2)
    # Both lists are of the same second, in which a client has connected.
    monkeypatch.setattr("time.time", lambda: 1_800_000_000.0)
    peers = []
    for number in range(5):
        peers.append(await relays[number % 2].login())
        await trio.sleep(1)
    await relays[1].login(key=peers[0].private)
    pool, listed = make(relays)
    listing = await listed.all()
    found = listing.clients
    assert not listing.silent
    assert sorted(pool.pages) == [1, 1, 2, 2]
    assert [status.key for status in found[:3]] == [peers[n].key for n in (0, 2, 4)]
    assert [status.worker for status in found] == [0, 0, 0, 1, 1, 1]
    # One key at two workers.
    assert [status.duplicate for status in found] == [True, False, False, False, False, True]
    assert len({status.connection for status in found}) == 6
    # A worker that is asked for the page gets the same.
    assert await worker_clients(Line(listed.handlers).call, 2) == listing


async def test_the_others_are_listed_where_a_worker_does_not_answer(
    autojump_clock: Clock, relays: list[Relay]
) -> None:
    for relay in relays:
        await relay.login()
    pool, listed = make(relays)
    pool.silent.add(0)
    listing = await listed.all()
    assert [status.worker for status in listing.clients] == [1]
    assert listing.silent == [0]
    # One that is being restarted has no clients.
    pool.restarting.add(0)
    assert not (await listed.all()).silent
    with pytest.raises(RPCFailed):
        await worker_clients(lost_call(), 2)


async def test_slow_workers_are_asked_at_the_same_time_and_not_for_ever(
    autojump_clock: Clock, relays: list[Relay], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "CLIENTS_PER_PAGE", 1)
    for relay in relays:
        for _ in range(2):
            await relay.login()
            await trio.sleep(1)
    pool, listed = make(relays)
    pool.takes = LIST_TIMEOUT / 2 - 0.1
    assert len((await listed.all()).clients) == 4
    pool.takes = LIST_TIMEOUT / 2 + 0.1
    began = trio.current_time()
    listing = await listed.all()
    assert (listing.clients, listing.silent) == ([], [0, 1])
    assert trio.current_time() - began == pytest.approx(LIST_TIMEOUT)
