"""A relay whose wall clock is wrong, or is set while it runs.

The clock is that of the relay's process alone, moved by a small library that is preloaded into it.
"""

from pathlib import Path

import pytest

from tests.interop.issuing import INTERNAL_ERROR, acme_relay, hang_up, issued, shake_with
from tests.interop.pebble import Pebble
from tests.interop.relay import running
from tests.interop.steppedclock import NoClockError, SteppedClock
from tests.support.waiting import until


@pytest.fixture
def clock(tmp_path: Path) -> SteppedClock:
    try:
        return SteppedClock.make(tmp_path)
    except NoClockError as error:
        pytest.skip(str(error))


def test_it_is_wrong_and_then_it_is_set(
    under_test: list[str],
    authority: Pebble,
    tmp_path: Path,
    clock: SteppedClock,
) -> None:
    """Nothing is ordered by a clock that can't be right, nor before the time has come by it."""
    clock.set(48)
    named = "time.test", "127.0.0.51"
    relay = acme_relay(under_test, tmp_path, authority, *named, prefix=clock.prefix)
    with running(relay):
        relay.wait_for_log("no certificate yet.*set the clock")
        assert shake_with(relay).alert == INTERNAL_ERROR
        assert authority.orders == 0
        clock.set(0)
        hang_up(relay)
        old = issued(relay, authority)

        authority.suggest(old.chain[0], hours=13)
        for hours in (-20, 12, -1):
            asked = authority.asked_when
            clock.set(hours)
            hang_up(relay)
            until("it asks when to renew", lambda before=asked: authority.asked_when > before)
            assert shake_with(relay).chain == old.chain
        clock.set(14)
        hang_up(relay)
        issued(relay, authority, other_than=old.chain[0])
        assert authority.orders == 2
