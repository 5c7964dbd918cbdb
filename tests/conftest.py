"""For all tests: how hypothesis works, which tests are quick, and how suites share a machine."""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

# A busy machine must not fail a test that is right.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("default")
settings.register_profile("brief", max_examples=10, stateful_step_count=20)
settings.register_profile("quick", max_examples=3, stateful_step_count=10)

HERE = Path(__file__).parent
LONGEST_FIRST = ("container", "soak", "interop", "browser", "field")
QUICK = 0.25
"""Seconds that a quick test may compute and wait; more on a busy machine."""

started: list[str] = []
"""The processes that the test at hand has started."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--quick",
        action="store_true",
        help="all tests but those marked slow; fail those that start processes or take long",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("quick"):
        sys.addaudithook(note_process)


def note_process(event: str, arguments: tuple[object, ...]) -> None:
    if event in {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn"}:
        started.append(event if event.startswith("os.") else str(arguments[0]))


def own_seconds() -> float:
    """Return the time that this thread has had for itself: what others took is left out."""
    _ran, queued, _slices = Path("/proc/thread-self/schedstat").read_text().split()
    return time.monotonic() - int(queued) / 1e9


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    started.clear()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    began = own_seconds()
    done = yield
    if item.config.getoption("quick"):
        if started:
            pytest.fail(f"starts {started[0]}: mark it slow", pytrace=False)
        busy = max(1.0, os.getloadavg()[0] / len(os.sched_getaffinity(0)))
        if (took := own_seconds() - began) > QUICK * busy:
            pytest.fail(f"takes {took:.1f} s: mark it slow, or have it take less", pytrace=False)
    return done


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if HERE / "processes" in item.path.parents:
            item.add_marker("slow")
    if config.getoption("quick"):
        slow = {item for item in items if item.get_closest_marker("slow")}
        config.hook.pytest_deselected(items=list(slow))
        items[:] = [item for item in items if item not in slow]
    # In a process of xdist's, which has no `dist`.
    if config.getoption("loadgroup", default=False):
        longest_first(items)


def longest_first(items: list[pytest.Item]) -> None:
    """Have what takes longest begin first, so that no process waits for it in the end."""

    def place(item: pytest.Item) -> tuple[int, bool]:
        suite = item.path.relative_to(HERE).parts[0]
        order = LONGEST_FIRST.index(suite) if suite in LONGEST_FIRST else len(LONGEST_FIRST)
        return order, item.get_closest_marker("patient") is None

    items.sort(key=place)


class Sharing(LoadScopeScheduling):
    """Has a file's tests run in one process; those of containers, which share an image, in two.

    xdist's own loadgroup finds a test's group in its node ID, where pytest 9.2 lets it write none.
    """

    def _split_scope(self, nodeid: str) -> str:
        path = Path(nodeid.partition("::")[0])
        if path.parent.name != "container":
            return str(path)
        # Both halves wait for the image; more would keep those waiting that need none.
        return "container, second half" if path.name >= "test_p" else "container, first half"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling | None:
    return Sharing(config, log) if config.getvalue("dist") == "loadgroup" else None
