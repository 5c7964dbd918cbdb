"""A relay whose wall clock is wrong, or is set while it runs.

The clock is that of the relay's process alone, moved by a small library that is preloaded into it.
"""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.interop.golang import HERE
from tests.interop.issuing import INTERNAL_ERROR, acme_relay, hang_up, issued, shake_with
from tests.interop.pebble import Pebble
from tests.interop.relay import running
from tests.support.waiting import until

HOUR = 60 * 60

SetClock = Callable[[int], None]


@pytest.fixture
def clock(tmp_path: Path) -> tuple[list[str], SetClock]:
    """A prefix for a command whose clock can be set, and what sets it, in hours from now."""
    if not (compiler := shutil.which("cc")):
        pytest.skip("no C compiler here to make a clock that can be set")
    library, file = tmp_path / "clock.so", tmp_path / "clock"
    source = HERE / "stepped_clock.c"
    command = [compiler, "-Wall", "-Werror", "-shared", "-fPIC", "-o", library, source, "-ldl"]
    subprocess.run(command, timeout=60, check=True)

    def set_clock(hours: int) -> None:
        changed = file.with_suffix(".new")
        changed.write_text(f"{hours * HOUR}\n")
        changed.replace(file)

    prefix = ["env", f"LD_PRELOAD={library}", f"STEPPED_CLOCK={file}"]
    set_clock(-1000)
    tell = [*prefix, sys.executable, "-c", "import time; print(time.time())"]
    told = subprocess.run(tell, capture_output=True, text=True, timeout=30, check=True).stdout
    if float(told) > time.time() - 999 * HOUR:
        pytest.skip("this Python's clock can't be set: it does not come from the C library")
    set_clock(0)
    return prefix, set_clock


def test_it_is_wrong_and_then_it_is_set(
    under_test: list[str],
    authority: Pebble,
    tmp_path: Path,
    clock: tuple[list[str], SetClock],
) -> None:
    """Nothing is ordered by a clock that can't be right, nor before the time has come by it."""
    prefix, set_clock = clock
    set_clock(48)
    relay = acme_relay(*(under_test, tmp_path, authority, "time.test", "127.0.0.51"), prefix=prefix)
    with running(relay):
        relay.wait_for_log("no certificate yet.*set the clock")
        assert shake_with(relay).alert == INTERNAL_ERROR
        assert authority.orders == 0
        set_clock(0)
        hang_up(relay)
        old = issued(relay, authority)

        authority.suggest(old.chain[0], hours=13)
        for hours in (-20, 12, -1):
            asked = authority.asked_when
            set_clock(hours)
            hang_up(relay)
            until("it asks when to renew", lambda before=asked: authority.asked_when > before)
            assert shake_with(relay).chain == old.chain
        set_clock(14)
        hang_up(relay)
        issued(relay, authority, other_than=old.chain[0])
        assert authority.orders == 2
