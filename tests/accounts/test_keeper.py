"""When counts are written, what happens while they can't be, and what keys have used."""

import logging
from collections.abc import Iterable
from pathlib import Path

import pytest
import trio
import trio.testing

from derp.accounts.counts import Counts, Period, next_period
from derp.accounts.file import AccountsFile
from derp.accounts.filesink import FileSink
from derp.accounts.keeper import FLUSH_EVERY, FLUSH_WAIT, LATE, STOP_TIMEOUT, Accounts
from derp.accounts.memorysink import MemorySink
from derp.accounts.unwritten import Unwritten
from derp.errors import AccountsFailed

Clock = trio.testing.MockClock
MIDNIGHT = 1_796_169_600.0  # 2026-12-02 00:00 UTC
NOON = MIDNIGHT - 43_200
KEY, OTHER_KEY = bytes(range(32)), bytes(range(1, 33))


class Store:
    """A sink in memory, that can be out of order."""

    name = "a store"
    is_shared = False

    def __init__(self) -> None:
        self.rows: dict[tuple[str, bytes], Counts] = {}
        self.writes: list[float] = []
        self.trouble = ""
        self.takes = 0.0
        self.closed = False

    async def write(self, unwritten: Unwritten, today: str, wanted: Iterable[bytes]) -> dict:
        self.writes.append(trio.current_time())
        await trio.sleep(self.takes)
        if self.trouble:
            raise AccountsFailed(self.trouble, "mend it")
        for day, key, counts in unwritten:
            self.rows[day, key] = self.rows.get((day, key), Counts()).plus(counts)
        return {key: self.used(key, today) for key in wanted}

    def used(self, key: bytes, today: str) -> tuple[int, int]:
        of_day = self.rows.get((today, key), Counts()).bytes
        month = today[:7]
        rows = self.rows.items()
        return of_day, sum(c.bytes for (day, k), c in rows if k == key and day[:7] == month)

    async def close(self) -> None:
        self.closed = True


class Running:
    """Accounts that run by a clock of the test, and a client that moves a byte a second."""

    def __init__(self, store: Store, start: float) -> None:
        self.store = store
        self.start = start
        self.step = 0.0
        self.accounts = Accounts(store, FLUSH_EVERY, self.wall)
        self._counted = 0.0

    def wall(self) -> float:
        return self.start + self.step + trio.current_time()

    async def collect(self) -> None:
        now = trio.current_time()
        if moved := round(now - self._counted):
            self.accounts.add(KEY, Counts(sent=moved))
        self._counted = now


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
async def running(autojump_clock: Clock, nursery: trio.Nursery, store: Store) -> Running:
    made = Running(store, NOON)
    nursery.start_soon(made.accounts.run, made.collect)
    return made


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "accounts" in record.name]


async def test_counts_are_written_every_ten_seconds(
    autojump_clock: Clock, running: Running, store: Store
) -> None:
    await trio.sleep(35)
    assert store.writes == pytest.approx([0, 10, 20, 30])
    assert store.rows == {("2026-12-01", KEY): Counts(sent=30)}


async def test_nothing_is_written_where_there_is_nothing(
    autojump_clock: Clock, nursery: trio.Nursery, store: Store
) -> None:
    async def nothing() -> None:
        await trio.lowlevel.checkpoint()

    nursery.start_soon(Accounts(store).run, nothing)
    await trio.sleep(1000)
    # The first write, of nothing, examines the file.
    assert store.writes == [0.0]


async def test_a_day_ends_at_midnight(
    autojump_clock: Clock, nursery: trio.Nursery, store: Store
) -> None:
    running = Running(store, MIDNIGHT - 15)
    nursery.start_soon(running.accounts.run, running.collect)
    await trio.sleep(31)
    assert store.rows == {
        ("2026-12-01", KEY): Counts(sent=15),
        ("2026-12-02", KEY): Counts(sent=10),
    }
    assert running.accounts.used(KEY, Period.DAY) == 10
    assert running.accounts.used(KEY, Period.MONTH) == 25


async def test_a_clock_that_is_set_back_or_on_loses_nothing(
    autojump_clock: Clock, running: Running, store: Store
) -> None:
    for step in (-86_400.0, 0.0, 86_400.0 * 400, -1e9, 0.0):
        running.step = step
        await trio.sleep(25)
    running.accounts._stop.set()
    await trio.sleep(1)
    moved = sum(counts.sent for counts in store.rows.values())
    assert moved == round(running._counted)
    assert {day for day, _ in store.rows} >= {"2026-11-30", "2026-12-01", "2028-01-05"}
    assert running.accounts.used(KEY, Period.DAY) == store.rows["2026-12-01", KEY].sent


async def test_a_new_month_begins_at_nothing(
    autojump_clock: Clock, nursery: trio.Nursery, store: Store
) -> None:
    running = Running(store, MIDNIGHT - 86_400 - 15)
    nursery.start_soon(running.accounts.run, running.collect)
    await trio.sleep(12)
    assert running.accounts.used(KEY, Period.MONTH) == 10
    await trio.sleep(3.5)
    assert running.accounts.used(KEY, Period.MONTH) == running.accounts.used(KEY, Period.DAY) == 0
    await trio.sleep(10)
    assert running.accounts.used(KEY, Period.MONTH) == running.accounts.used(KEY, Period.DAY) == 10


async def test_what_cant_be_written_is_kept_and_written_later(
    autojump_clock: Clock, running: Running, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    store.trouble = "the disk is full"
    await trio.sleep(95)
    assert store.rows == {}
    assert running.accounts.used(KEY, Period.DAY) == 90
    store.trouble = ""
    await trio.sleep(10)
    assert store.rows == {("2026-12-01", KEY): Counts(sent=100)}
    assert running.accounts.used(KEY, Period.DAY) == 100
    assert lines(caplog) == [
        "the accounts are kept in memory only",
        "the accounts are written again",
    ]
    assert caplog.records[0].fields == {  # type: ignore[attr-defined]
        "file": "a store",
        "reason": "the disk is full",
        "cure": "mend it",
    }


async def test_usage_counts_what_is_being_written(
    autojump_clock: Clock, running: Running, store: Store
) -> None:
    await trio.sleep(15)
    store.takes = 5.0
    await trio.sleep(7)
    assert running.accounts.used(KEY, Period.DAY) == 20
    running.accounts.add(KEY, Counts(received=3))
    assert running.accounts.used(KEY, Period.DAY) == 23


async def test_what_is_being_written_at_midnight_is_of_the_day_before(
    autojump_clock: Clock, nursery: trio.Nursery, store: Store
) -> None:
    running = Running(store, MIDNIGHT - 15)
    nursery.start_soon(running.accounts.run, running.collect)
    await trio.sleep(14)
    store.takes = 3.0
    await trio.sleep(3)
    assert len(store.writes) == 3
    assert store.rows == {("2026-12-01", KEY): Counts(sent=10)}
    assert [running.accounts.used(KEY, period) for period in Period] == [0, 15]


async def test_usage_of_before_the_start_counts_once_a_key_is_seen(
    autojump_clock: Clock, nursery: trio.Nursery, store: Store
) -> None:
    store.rows = {
        ("2026-12-01", KEY): Counts(sent=100, received=11),
        ("2026-12-01", OTHER_KEY): Counts(sent=7),
    }
    running = Running(store, NOON)
    nursery.start_soon(running.accounts.run, running.collect)
    await trio.sleep(9)
    assert running.accounts.used(KEY, Period.DAY) == 0
    await trio.sleep(2)
    assert running.accounts.used(KEY, Period.DAY) == 121
    assert running.accounts.used(OTHER_KEY, Period.DAY) == 0


async def test_a_write_that_hangs_is_logged_and_delays_no_stop(
    autojump_clock: Clock, running: Running, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    await trio.sleep(5)
    store.takes = 1e6
    await trio.sleep(LATE + 10)
    assert lines(caplog) == ["the accounts are kept in memory only"]
    assert caplog.records[-1].fields["reason"] == "writing takes longer than 60 s"  # type: ignore[attr-defined]
    before = trio.current_time()
    await running.accounts.close()
    assert trio.current_time() - before == STOP_TIMEOUT


async def test_quotas_go_on_while_a_write_hangs(
    autojump_clock: Clock, nursery: trio.Nursery, store: Store
) -> None:
    running = Running(store, MIDNIGHT - 35)
    nursery.start_soon(running.accounts.run, running.collect)
    await trio.sleep(5)
    store.takes = 50.0
    for used in (10, 10 + FLUSH_WAIT + 10, 10 + FLUSH_WAIT + 20):
        await running.accounts.wait_for_flush()
        assert running.accounts.used(KEY, Period.DAY) == used
    await trio.sleep(6)
    assert store.writes == [0.0, 10.0]
    assert running.accounts.today == "2026-12-02"
    assert running.accounts.used(KEY, Period.DAY) == 0
    await running.accounts.wait_for_flush()
    assert running.accounts.used(KEY, Period.MONTH) > 40
    store.takes = 0.0
    await trio.sleep(44)
    moved = round(running._counted)
    assert store.rows["2026-12-01", KEY] == Counts(sent=35)
    assert sum(counts.sent for counts in store.rows.values()) == moved
    assert running.accounts.used(KEY, Period.DAY) == moved - 35
    assert running.accounts.used(KEY, Period.MONTH) == moved


async def test_what_was_found_before_midnight_is_not_of_today(
    autojump_clock: Clock, nursery: trio.Nursery, store: Store
) -> None:
    store.rows = {("2026-12-01", KEY): Counts(sent=1000)}
    running = Running(store, MIDNIGHT - 15)
    nursery.start_soon(running.accounts.run, running.collect)
    await trio.sleep(5)
    store.takes = 8.0
    store.used = lambda key, today: (1010, 1010)  # type: ignore[method-assign]
    await trio.sleep(14)
    assert running.accounts.used(KEY, Period.DAY) == 0
    assert running.accounts.used(KEY, Period.MONTH) == 1015


async def test_at_a_stop_all_is_written(
    autojump_clock: Clock, running: Running, store: Store
) -> None:
    await trio.sleep(17)
    await running.accounts.close()
    assert store.rows == {("2026-12-01", KEY): Counts(sent=17)}
    assert store.closed


async def test_a_stop_in_the_middle_of_a_write_has_the_rest_written(
    autojump_clock: Clock, running: Running, store: Store
) -> None:
    await trio.sleep(9)
    store.takes = 1.0
    await trio.sleep(1.5)
    assert store.writes == [0.0, 10.0]
    running.accounts.add(KEY, Counts(sent=1))
    await running.accounts.close()
    assert store.rows == {("2026-12-01", KEY): Counts(sent=12)}


async def test_whoever_waits_for_a_flush_is_told_of_each(
    autojump_clock: Clock, running: Running, store: Store
) -> None:
    used = []
    for trouble in ("", "the disk is full", ""):
        store.trouble = trouble
        await running.accounts.wait_for_flush()
        used.append(running.accounts.used(KEY, Period.DAY))
    assert used == [10, 20, 30]
    assert trio.current_time() == pytest.approx(30)


async def test_the_current_periods_end_with_the_clock(
    autojump_clock: Clock, running: Running
) -> None:
    for step, day, month in (
        (0.0, "2026-12-02", "2027-01-01"),
        (MIDNIGHT - NOON, "2026-12-03", "2027-01-01"),
        (31 * 86_400.0, "2027-01-02", "2027-02-01"),
        (-86_400.0, "2026-12-01", "2026-12-01"),
    ):
        running.step = step
        await running.accounts.wait_for_flush()
        assert running.accounts.until(Period.DAY) == day
        assert running.accounts.until(Period.MONTH) == month


@pytest.mark.parametrize(
    ("today", "day", "month"),
    [
        ("2028-02-28", "2028-02-29", "2028-03-01"),
        ("2026-01-31", "2026-02-01", "2026-02-01"),
        ("2026-12-31", "2027-01-01", "2027-01-01"),
        ("9999-12-31", "9999-12-31", "9999-12-31"),
    ],
)
def test_the_day_after_a_period(today: str, day: str, month: str) -> None:
    assert (next_period(today, Period.DAY), next_period(today, Period.MONTH)) == (day, month)


async def test_without_a_file_usage_is_known_until_the_end(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    store = Store()
    running = Running(store, MIDNIGHT - 86_400 - 15)
    running.accounts = Accounts(MemorySink(), FLUSH_EVERY, running.wall)
    nursery.start_soon(running.accounts.run, running.collect)
    await trio.sleep(12)
    assert running.accounts.used(KEY, Period.MONTH) == running.accounts.used(KEY, Period.DAY) == 10
    await trio.sleep(3.5)
    assert running.accounts.used(KEY, Period.MONTH) == 0
    await trio.sleep(86_400)
    of_day, of_month = (running.accounts.used(KEY, period) for period in Period)
    assert 0 <= of_day <= 10
    assert of_month == pytest.approx(86_400, abs=11)


async def test_the_file_is_written_in_a_thread(tmp_path: Path) -> None:
    path = tmp_path / "accounts"
    accounts = Accounts(FileSink(path), wall=lambda: NOON)

    async def collect() -> None:
        accounts.add(KEY, Counts(sent=5, received=6))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accounts.run, collect)
        await accounts.close()
        assert accounts.used(KEY, Period.DAY) == 11
    read = AccountsFile(path)
    assert read.write(Unwritten(NOON), "2026-12-01", [KEY]) == {KEY: (11, 11)}
    read.close()
