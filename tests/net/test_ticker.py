import time
from pathlib import Path

import pytest
import trio

from derp.net.ticker import Ticker


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_it_ticks_at_its_pace() -> None:
    ticker = Ticker(0.002)
    start = time.perf_counter()
    with trio.fail_after(20):
        for _ in range(10):
            await ticker.tick()
    # Ticks may come late, and then together, but never early.
    assert time.perf_counter() - start >= 0.02
    ticker.close()


async def test_a_tick_that_has_passed_is_not_waited_for() -> None:
    ticker = Ticker(0.001)
    time.sleep(0.01)  # noqa: ASYNC251 -- it ticks while nobody waits
    with trio.fail_after(20):
        await ticker.tick()
    ticker.close()


def test_closed_it_holds_no_descriptor() -> None:
    before = open_files()
    ticker = Ticker(0.5)
    assert open_files() == before + 1
    ticker.close()
    assert open_files() == before


def test_without_descriptors_it_says_so() -> None:
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        with pytest.raises(OSError, match="timerfd_create"):
            Ticker(0.5)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
