"""The root nursery, in processes of its own: one that does not end is ended."""

import subprocess
import sys
from pathlib import Path

import pytest
import trio

from derp.service.rootnursery import open_root_nursery

ROOT = Path(__file__).parents[2]

PROGRAM = """
import threading, trio
from derp.service.rootnursery import open_root_nursery

async def main():
    async with open_root_nursery({timeout}) as nursery:
        nursery.start_soon(trio.to_thread.run_sync, threading.Event().wait, {seconds})
        await trio.testing.wait_all_tasks_blocked()
        {then}

import trio.testing
trio.run(main)
print("ended by itself")
"""


def ended(**what: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(**what)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("then", ["nursery.cancel_scope.cancel()", "raise OSError('a fault')"])
def test_a_thread_that_never_answers_does_not_keep_the_process(then: str) -> None:
    done = ended(timeout=0.2, seconds=None, then=then)
    assert (done.returncode, done.stdout) == (1, "")


@pytest.mark.slow
def test_one_that_ends_in_time_is_left_alone() -> None:
    done = ended(timeout=30, seconds=0.1, then="nursery.cancel_scope.cancel()")
    assert (done.returncode, done.stdout, done.stderr) == (0, "ended by itself\n", "")


async def test_it_is_open_until_it_is_cancelled(autojump_clock: trio.abc.Clock) -> None:
    with trio.move_on_after(1000) as scope:
        async with open_root_nursery():
            pass
    assert scope.cancelled_caught
