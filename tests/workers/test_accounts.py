"""Accounts of several workers: written by their supervisor, each count once."""

from collections.abc import Iterable

import pytest
import trio
import trio.testing

from derp.accounts.counts import ZERO, Counts, Period
from derp.accounts.keeper import Accounts
from derp.accounts.unwritten import Unwritten
from derp.errors import AccountsFailed, RPCFailed
from derp.workers.accounts import ROWS_AT_ONCE, SupervisorAccounts, WorkerSink
from derp.workers.rpc import Json
from tests.workers.ends import Line

Clock = trio.testing.MockClock
NOON = 1_796_126_400.0
TODAY = "2026-12-01"
KEY = bytes(range(32))


class Store:
    name = "a store"
    is_shared = False

    def __init__(self) -> None:
        self.rows: dict[bytes, Counts] = {}

    async def write(self, unwritten: Unwritten, today: str, wanted: Iterable[bytes]) -> dict:
        for _, key, counts in unwritten:
            self.rows[key] = self.rows.get(key, ZERO).plus(counts)
        return {key: (self.rows[key].bytes,) * 2 for key in wanted if key in self.rows}

    async def close(self) -> None: ...


class Region:
    """A supervisor with its accounts, and workers."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.store = Store()
        self.accounts = Accounts(self.store, 5.0, lambda: NOON)
        self.supervisor = SupervisorAccounts(self.accounts)
        self.line = Line(self.supervisor.handlers)
        self._nursery = nursery
        nursery.start_soon(self.accounts.run, trio.lowlevel.checkpoint)

    def worker(self, index: int, call=None) -> Accounts:
        made = Accounts(WorkerSink(call or self.line.call, index), 5.0, lambda: NOON)
        self._nursery.start_soon(made.run, trio.lowlevel.checkpoint)
        return made


@pytest.fixture
async def region(autojump_clock: Clock, nursery: trio.Nursery) -> Region:
    return Region(nursery)


async def test_the_counts_of_all_workers_are_added(autojump_clock: Clock, region: Region) -> None:
    one, other = region.worker(0), region.worker(1)
    for worker in (one, other):
        worker.add(KEY, Counts(1, 2, 3, 4, 5))
    one.add(bytes(32), Counts(7))
    # What a crash loses at most.
    await trio.sleep(10.1)
    assert region.store.rows == {KEY: Counts(2, 4, 6, 8, 10), bytes(32): Counts(7)}


async def test_each_worker_knows_what_a_key_has_used_at_all(
    autojump_clock: Clock, region: Region
) -> None:
    region.store.rows[KEY] = Counts(100)
    one, other = region.worker(0), region.worker(1)
    for _ in range(4):
        one.add(KEY, Counts(1))
        other.add(KEY, Counts(10))
        await trio.sleep(6)
    await trio.sleep(6)
    assert region.accounts.used(KEY, Period.DAY) == 144
    one.add(KEY, Counts(1))
    await trio.sleep(11)
    # Each connected client has an entry in each message.
    one.add(KEY, ZERO)
    other.add(KEY, ZERO)
    await trio.sleep(6)
    assert other.used(KEY, Period.MONTH) == one.used(KEY, Period.MONTH) == 145


async def test_who_leaves_at_midnight_has_used_nothing_on_the_new_day(
    autojump_clock: Clock, region: Region
) -> None:
    """Also where the supervisor notices the new day later than the worker."""
    worker = region.worker(0)
    worker.add(KEY, Counts(100))
    await trio.sleep(6)
    worker.add(KEY, Counts(1))
    worker._wall = lambda: NOON + 86_400
    await trio.sleep(6)
    region.accounts._wall = worker._wall
    await trio.sleep(30)
    assert [worker.used(KEY, period) for period in Period] == [0, 100]
    worker.add(KEY, Counts(5))
    await trio.sleep(11)
    for accounts in (worker, region.accounts):
        assert [accounts.used(KEY, period) for period in Period] == [5, 106]


async def test_many_keys_are_sent_in_pieces(autojump_clock: Clock, region: Region) -> None:
    worker = region.worker(0)
    for number in range(ROWS_AT_ONCE * 2 + 1):
        worker.add(number.to_bytes(32, "big"), Counts(1))
    await trio.sleep(11)
    assert len(region.store.rows) == ROWS_AT_ONCE * 2 + 1
    assert region.line.asked == ["accounts.add"] * 3


@pytest.mark.parametrize("arrives", [True, False])
async def test_a_message_without_an_answer_is_counted_once(
    autojump_clock: Clock, region: Region, arrives: bool
) -> None:
    """Whether or not the supervisor got it; and what came behind it is not lost."""
    failures = 3

    async def call(what: str, body: Json = None) -> Json:
        nonlocal failures
        if body["number"] == 2 and failures:
            failures -= 1
            if arrives:
                await region.line.call(what, body)
            raise RPCFailed("late")
        return await region.line.call(what, body)

    worker = region.worker(0, call)
    for number in range(ROWS_AT_ONCE * 3):
        worker.add(number.to_bytes(32, "big"), Counts(1))
    await trio.sleep(31)
    assert not failures
    assert len(region.store.rows) == ROWS_AT_ONCE * 3
    assert set(region.store.rows.values()) == {Counts(1)}


async def test_a_worker_that_is_restarted_counts_from_its_first_message(
    autojump_clock: Clock, region: Region
) -> None:
    for _ in range(2):
        worker = region.worker(0)
        worker.add(KEY, Counts(1))
        await worker.close()
    await trio.sleep(6)
    assert region.store.rows == {KEY: Counts(2)}


async def test_a_worker_without_its_supervisor_keeps_its_counts(
    autojump_clock: Clock, region: Region
) -> None:
    worker = region.worker(0)
    worker.add(KEY, Counts(3))
    region.line.lost = True
    await trio.sleep(30)
    assert worker.used(KEY, Period.DAY) == 0 or worker.used(KEY, Period.DAY) == 3
    region.line.lost = False
    await trio.sleep(11)
    assert region.store.rows == {KEY: Counts(3)}


async def test_what_a_lost_call_is_to_the_accounts(autojump_clock: Clock, region: Region) -> None:
    region.line.lost = True
    sink = WorkerSink(region.line.call, 0)
    unwritten = Unwritten(NOON)
    unwritten.add(KEY, Counts(1))
    with pytest.raises(AccountsFailed, match="ended before it answered"):
        await sink.write(unwritten, TODAY, ())
