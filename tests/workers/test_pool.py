"""The processes of a pool, which here are other programs: how they are started, kept and ended."""

import sys
from collections.abc import Sequence
from functools import partial
from typing import cast

import pytest
import trio
from trio.testing import MockClock

from derp.files.ratelimit import NO_LIMIT
from derp.workers import pool as pools
from derp.workers import watchdog
from derp.workers.handover import Handover
from derp.workers.pool import WorkerPool
from tests.support.waiting import until_async

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("patience")]

WORKER = """
import os, sys, socket, trio
from derp.workers.rpc import RPC, receive_first
sock = socket.socket(fileno=int(sys.argv[2]))
what = receive_first(sock)["index"], *sys.argv[3:]

async def main():
    rpc = RPC(sock)
    well = trio.Event()

    async def stop(_):
        scope.cancel()

    async def say(_):
        return what

    rpc.handlers |= {"worker.stop": stop, "say": say, "worker.ping": say}
    if "mute" in what:
        del rpc.handlers["worker.ping"]
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rpc.run)
            await rpc.call("worker.ready")
            if "brief" in what:
                os._exit(3)

trio.run(main)
"""


def handover(index: int) -> Handover:
    return Handover(
        code="",
        index=index,
        workers=2,
        node_key=bytes(32),
        mesh_key=None,
        worker_key=bytes(32),
        main=(),
        plain=(),
        stun=(),
        peer_socket=2,
        peer_addresses=(),
        rate_limit=NO_LIMIT,
        has_admission=False,
        has_policy=False,
        certificates=None,
    )


def pool(
    monkeypatch: pytest.MonkeyPatch, program: Sequence[str], *arguments: str, size: int = 1
) -> WorkerPool:
    monkeypatch.setattr(pools, "_PROGRAM", program)
    return WorkerPool(size, arguments, handover)


SPEAKS = (sys.executable, "-c", WORKER)
SLEEPS = ("sh", "-c", "exec sleep 60", "sh")


until = partial(until_async, "the workers are as wanted")


def reasons(caplog: pytest.LogCaptureFixture, message: str) -> list[str]:
    found = [record for record in caplog.records if record.getMessage() == message]
    return [record.__dict__["fields"]["reason"] for record in found]


async def test_each_is_asked_and_all_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    made = pool(monkeypatch, SPEAKS, "-a", ":1", size=3)
    async with trio.open_nursery() as nursery:
        for slot in made.slots:
            nursery.start_soon(made.keep, slot, {})
        for slot in made.slots:
            await slot.started.wait()
        expected = {index: [index, "-a", ":1"] for index in range(3)}
        assert await made.call_all("say") == expected
        assert all(status.alive and status.pid for status in made.statuses())
        await made.stop()
    assert await made.call_all("say") == {}
    assert not any(status.alive or status.restarts for status in made.statuses())


async def test_one_that_never_serves_is_not_started_anew(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Though it is gone before it has taken its setup."""
    made = pool(monkeypatch, ("false",))
    await made.keep(made.slots[0], {})
    assert reasons(caplog, "a worker did not start") == ["exit code 1"]
    assert not made.slots[0].has_served
    assert made.slots[0].started.is_set()


async def test_a_program_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = pool(monkeypatch, ("/nonexistent/python",))
    await made.keep(made.slots[0], {})
    expected = ["it can't be started (no such file or directory)"]
    assert reasons(caplog, "a worker did not start") == expected


async def test_one_that_ends_again_and_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pools, "FIRST_DELAY", 0.001)
    made = pool(monkeypatch, SPEAKS, "brief")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.keep, made.slots[0], {})
        await until(lambda: made.slots[0].restarts >= 3)
        await made.stop()
    assert set(reasons(caplog, "a worker ended, and is started anew")) == {"exit code 3"}


async def test_a_stop_while_one_waits_to_be_started_anew(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pools, "FIRST_DELAY", 3600.0)
    monkeypatch.setattr(pools, "LONGEST_DELAY", 3600.0)
    made = pool(monkeypatch, SPEAKS, "brief")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.keep, made.slots[0], {})
        await until(lambda: made.slots[0].restarts)
        await made.stop()
    assert made.slots[0].restarts == 1
    assert "is killed" not in caplog.text


async def test_one_that_does_not_stop_is_killed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pools, "STOP_TIMEOUT", 0.2)
    made = pool(monkeypatch, SLEEPS)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.keep, made.slots[0], {})
        await until(lambda: made.slots[0].process)
        await made.stop()
    assert "a worker does not end, and is killed" in caplog.text


async def test_a_drain_is_waited_for(autojump_clock: MockClock) -> None:
    class Unending:
        def kill(self) -> None:
            killed.append(trio.current_time() - start)
            slot.ended.set()

    killed: list[float] = []
    made = WorkerPool(1, (), handover, drain_time=60.0)
    (slot,) = made.slots
    slot.process = cast("trio.Process", Unending())
    start = trio.current_time()
    await made.stop()
    assert killed == [pools.STOP_TIMEOUT + 60.0]


async def test_one_that_does_not_come_to_serve(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pools, "START_TIMEOUT", 0.1)
    made = pool(monkeypatch, SLEEPS)
    await made.keep(made.slots[0], {})
    assert reasons(caplog, "a worker did not start") == ["it hung"]


async def test_one_that_answers_no_longer_is_started_anew(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watchdog, "PING_EVERY", 0.05)
    monkeypatch.setattr(watchdog, "HUNG_AFTER", 0.1)
    made = pool(monkeypatch, SPEAKS, "mute")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.keep, made.slots[0], {})
        await until(lambda: made.slots[0].restarts)
        await made.stop()
    assert reasons(caplog, "a worker ended, and is started anew")[0] == "it hung"


async def test_the_end_of_the_pool_leaves_workers_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a fault ends the supervisor, they lose their connection first, and may drain."""
    made = pool(monkeypatch, SPEAKS)
    ended: list[int | None] = []

    async def keep() -> None:
        try:
            await made.keep(made.slots[0], {})
        finally:
            ended.append(process.returncode)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep)
        await made.slots[0].started.wait()
        process = made.slots[0].process
        assert process is not None
        nursery.cancel_scope.cancel()
    # Not by a signal.
    assert ended[0] is not None
    assert ended[0] >= 0
