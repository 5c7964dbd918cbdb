"""When a worker hangs, and what only looks like it. Times are a test's clock; nothing waits."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from derp.errors import RPCFailed
from derp.workers.watchdog import HUNG_AFTER, PING_EVERY, Activity, activity, until_hung

Clock = trio.testing.MockClock


class Worker:
    """One that answers pings while it is not `stuck`, and uses `share` of a CPU."""

    def __init__(self, *, ready: bool = False, share: float = 0.0) -> None:
        self.ready = ready
        self.share = share
        self.pings = 0
        self.freed = trio.Event()
        self.freed.set()
        self.loses_control = False

    def stick(self) -> None:
        self.freed = trio.Event()

    async def ping(self) -> None:
        self.pings += 1
        if self.loses_control:
            raise RPCFailed("no answer")
        await self.freed.wait()

    def look(self) -> Activity:
        return Activity(self.ready, self.share * trio.current_time())

    async def lasts(self, seconds: float) -> float | None:
        """Return after how many seconds it hangs; None where it does not so soon."""
        began = trio.current_time()
        with trio.move_on_after(seconds):
            await until_hung(self.ping, self.look)
            return trio.current_time() - began
        return None


def test_the_bound_is_what_the_documentation_says() -> None:
    assert 2.0 <= HUNG_AFTER <= 5.0
    text = (Path(__file__).parents[2] / "docs/scaling.md").read_text("utf-8")
    assert f"no answer for {HUNG_AFTER:.0f} seconds" in text


@pytest.mark.slow
async def test_one_that_answers_does_not_hang(autojump_clock: Clock) -> None:
    worker = Worker()
    assert await worker.lasts(3600) is None
    assert worker.pings == pytest.approx(3600 / PING_EVERY, abs=2)


async def test_one_that_stops_hangs_after_the_bound(autojump_clock: Clock) -> None:
    worker = Worker()
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def stop() -> None:
            await trio.sleep(100)
            worker.stick()

        lasted = await worker.lasts(3600)
    assert lasted is not None
    assert HUNG_AFTER - PING_EVERY <= lasted - 100 <= HUNG_AFTER + PING_EVERY


async def test_one_that_can_not_be_asked_hangs(autojump_clock: Clock) -> None:
    worker = Worker()
    worker.loses_control = True
    assert await worker.lasts(3600) == HUNG_AFTER


async def test_one_that_spins_hangs(autojump_clock: Clock) -> None:
    worker = Worker(ready=True, share=1.0)
    worker.stick()
    assert await worker.lasts(3600) == HUNG_AFTER


async def test_a_turn_that_ends_before_the_bound(autojump_clock: Clock) -> None:
    """As often as it may be: a long garbage collection, very many clients that leave at once."""
    worker = Worker(ready=True, share=1.0)

    async def work() -> None:
        while True:
            worker.stick()
            await trio.sleep(HUNG_AFTER - 2 * PING_EVERY)
            worker.freed.set()
            await trio.testing.wait_all_tasks_blocked()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work)
        assert await worker.lasts(600) is None
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("others", [1, 3, 9])
async def test_one_that_waits_for_a_cpu(autojump_clock: Clock, others: int) -> None:
    """Only the time that it is given counts; where it is given none, it may be well."""
    worker = Worker(ready=True, share=1 / (1 + others))
    worker.stick()
    assert await worker.lasts(3600) == pytest.approx(HUNG_AFTER * (1 + others), abs=PING_EVERY)
    worker.share = 0.0
    assert await worker.lasts(3600) is None


@pytest.mark.parametrize("answers", [True, False])
async def test_a_machine_that_was_suspended(mock_clock: Clock, answers: bool) -> None:
    """The clock goes on without the supervisor; it leaves the worker time after each such gap."""
    worker = Worker()
    hung = trio.Event()

    async def watch() -> None:
        await until_hung(worker.ping, worker.look)
        hung.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        for _ in range(20):
            await trio.testing.wait_all_tasks_blocked()
            worker.stick()
            # The worker was busy for a moment, when all were suspended.
            for _ in range(5):
                mock_clock.jump(PING_EVERY)
                await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(3600)
            await trio.testing.wait_all_tasks_blocked()
            assert not hung.is_set()
            if answers:
                worker.freed.set()
                await trio.testing.wait_all_tasks_blocked()
            else:
                break
        for _ in range(round(HUNG_AFTER / PING_EVERY)):
            mock_clock.jump(PING_EVERY)
            await trio.testing.wait_all_tasks_blocked()
        assert hung.is_set() is not answers
        nursery.cancel_scope.cancel()


async def test_a_supervisor_that_seldom_runs_blames_nobody(mock_clock: Clock) -> None:
    worker = Worker()
    worker.stick()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(until_hung, worker.ping, worker.look)
        for _ in range(1000):
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(2 * PING_EVERY)
        assert nursery.child_tasks
        nursery.cancel_scope.cancel()


@contextmanager
def process(program: str) -> Iterator[int]:
    child = subprocess.Popen(
        [sys.executable, "-c", f"print(flush=True); {program}"], stdout=subprocess.PIPE
    )
    with child:
        try:
            assert child.stdout is not None
            child.stdout.readline()
            yield child.pid
        finally:
            child.kill()


@pytest.mark.slow
@pytest.mark.usefixtures("patience")
def test_the_activity_of_a_process() -> None:
    with process("import time; time.sleep(60)") as pid:
        while activity(pid).ready:
            pass
        before = activity(pid)
        os.kill(pid, signal.SIGSTOP)
        os.waitid(os.P_PID, pid, os.WSTOPPED)
        assert activity(pid) == before
    with process("[0 for _ in iter(int, 1)]") as pid:
        while not activity(pid).ready:
            pass
        before = activity(pid)
        while activity(pid).cpu < before.cpu + 0.05:
            pass


@pytest.mark.parametrize("text", ["", "1 (python", "1 (a) R b) S 1", "1 (x) R" + " x" * 40])
def test_a_process_that_can_not_be_looked_at(tmp_path: Path, text: str) -> None:
    assert activity(7, tmp_path) == Activity()
    task = tmp_path / "7" / "task" / "7"
    task.mkdir(parents=True)
    (task / "stat").write_text(text)
    assert activity(7, tmp_path) == Activity()


def test_a_name_is_no_state(tmp_path: Path) -> None:
    task = tmp_path / "7" / "task" / "7"
    task.mkdir(parents=True)
    words = "R 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 1 0 1 1 1"
    (task / "stat").write_text(f"7 (a) S (b)) {words}\n")
    assert activity(7, tmp_path) == Activity(True, 300 / os.sysconf("SC_CLK_TCK"))
