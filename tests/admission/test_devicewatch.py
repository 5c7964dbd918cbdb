"""A list of devices kept up to date: who goes is asked about, and the rest is told and kept."""

import errno
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from derp.admission.checker import Checker
from derp.admission.devicelist import POLL_EVERY
from derp.admission.devicewatch import SAVE_EVERY, DeviceWatch
from derp.admission.model import Question
from derp.admission.sources import Sources
from derp.devices.kept import KeptList
from derp.devices.model import Devices
from derp.metrics import Metrics
from tests.admission.devicelists import AWAY, EPOCH, Fetcher, make_list
from tests.support.threads import run_at_once

Clock = trio.testing.MockClock
ALICE, BOB = Question(b"a" * 32, "192.0.2.1"), Question(b"b" * 32, "192.0.2.2")
NAME = "tailnet:example.com"
TWO_MINUTES = 120.0


class Rechecks:
    """What was to be asked about, and when."""

    def __init__(self) -> None:
        self.keys: list[set[bytes]] = []
        self.times: list[float] = []
        self.takes = 0.0

    async def __call__(self, keys: set[bytes]) -> None:
        self.keys.append(keys)
        self.times.append(trio.current_time())
        await trio.sleep(self.takes)


@pytest.fixture
def rechecks() -> Rechecks:
    return Rechecks()


@pytest.fixture
def _no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock would jump while one works."""
    run_at_once(monkeypatch)


def start(nursery: trio.Nursery, fetcher: Fetcher, rechecks: Rechecks, **more: Any) -> Checker:
    source = make_list(fetcher, **more)
    checker = Checker(Metrics(), Sources(devices=[source]))
    nursery.start_soon(DeviceWatch(checker, source).run, rechecks)
    return checker


def lines(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, Any]]:
    return [each.__dict__["fields"] for each in caplog.records if each.msg == event]


async def test_who_is_deleted_goes_within_two_minutes(
    autojump_clock: Clock, nursery: trio.Nursery, rechecks: Rechecks
) -> None:
    """And is not let in by what is remembered."""
    checker = start(nursery, fetcher := Fetcher(ALICE.key, BOB.key), rechecks)
    await trio.sleep(1)
    assert (await checker.admit(BOB)).admitted
    del fetcher.devices[BOB.key]
    deleted = trio.current_time()
    await trio.sleep(TWO_MINUTES)
    assert rechecks.keys == [{BOB.key}]
    assert rechecks.times[0] - deleted < TWO_MINUTES
    assert not (await checker.admit(BOB)).admitted
    assert (await checker.admit(ALICE)).admitted


@pytest.mark.parametrize("is_away", [False, True])
async def test_who_expires_goes_within_two_minutes(
    autojump_clock: Clock, nursery: trio.Nursery, rechecks: Rechecks, is_away: bool
) -> None:
    """While the API is away, too."""
    fetcher = Fetcher(ALICE.key)
    fetcher.devices[BOB.key] = EPOCH + 300
    checker = start(nursery, fetcher, rechecks)
    await trio.sleep(1)
    fetcher.failure = AWAY if is_away else None
    fetcher.takes = 29.0
    await trio.sleep(250)
    assert rechecks.keys == []
    await trio.sleep_until(300 + TWO_MINUTES)
    assert rechecks.keys == [{BOB.key}]
    assert not (await checker.admit(BOB)).admitted


async def test_who_goes_while_others_are_asked_about_comes_next(
    autojump_clock: Clock, nursery: trio.Nursery, rechecks: Rechecks
) -> None:
    """In one more round, however many lists there were meanwhile; who is back stays."""
    keys = [bytes([number]) * 32 for number in range(5)]
    fetcher = Fetcher(*keys)
    start(nursery, fetcher, rechecks)
    rechecks.takes = 10 * POLL_EVERY
    for number, key in enumerate(keys):
        await trio.sleep_until(POLL_EVERY * number + 1)
        del fetcher.devices[key]
    await trio.sleep(POLL_EVERY)
    fetcher.devices[keys[2]] = math.inf
    await trio.sleep(20 * POLL_EVERY)
    assert rechecks.keys == [{keys[0]}, {keys[1], keys[3], keys[4]}]


async def test_nobody_goes_while_the_api_is_away(
    autojump_clock: Clock, nursery: trio.Nursery, rechecks: Rechecks
) -> None:
    """Nor once the list counts no longer: clients stay where a source can't be asked."""
    checker = start(nursery, fetcher := Fetcher(ALICE.key), rechecks, keep=600)
    await trio.sleep(1)
    fetcher.failure = AWAY
    await trio.sleep(1200)
    assert not (await checker.recheck(ALICE)).authoritative
    assert rechecks.keys == []


async def test_a_new_device_is_in_at_once(
    autojump_clock: Clock, nursery: trio.Nursery, rechecks: Rechecks
) -> None:
    """A refusal that is remembered does not count for longer than the list."""
    checker = start(nursery, fetcher := Fetcher(ALICE.key), rechecks)
    await trio.sleep(POLL_EVERY - 2)
    assert not (await checker.admit(BOB)).admitted
    fetcher.devices[BOB.key] = math.inf
    assert not (await checker.admit(BOB)).admitted
    assert not (await checker.admit(Question(b"c" * 32, "192.0.2.3"))).admitted
    assert (await checker.admit(BOB)).admitted


async def test_what_the_operator_is_told(
    autojump_clock: Clock,
    nursery: trio.Nursery,
    rechecks: Rechecks,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "derper")
    checker = start(nursery, fetcher := Fetcher(ALICE.key, BOB.key), rechecks, keep=3600)
    await trio.sleep(1)
    (new,) = lines(caplog, "new list of devices")
    assert new == {"source": NAME, "devices": 2, "added": 2, "removed": 0}
    del fetcher.devices[BOB.key]
    await trio.sleep(POLL_EVERY)
    assert lines(caplog, "new list of devices")[1] == {
        "source": NAME,
        "devices": 1,
        "added": 0,
        "removed": 1,
    }
    fetcher.failure = AWAY
    caplog.clear()
    await trio.sleep(3000)
    assert checker.troubles == {NAME: str(AWAY)}
    assert [each.msg for each in caplog.records] == ["can't list devices, so the last list counts"]
    assert lines(caplog, caplog.records[0].msg)[0] == {
        "source": NAME,
        "reason": str(AWAY),
        "until": "2026-09-21T15:14:20Z",
    }
    caplog.clear()
    await trio.sleep(1000)
    assert [each.msg for each in caplog.records] == [
        "can't list devices, so no client is admitted for being one"
    ]
    fetcher.failure = None
    caplog.clear()
    await trio.sleep(2 * POLL_EVERY)
    assert checker.troubles == {}
    assert [each.msg for each in caplog.records] == ["devices are listed again"]


async def test_no_device_at_all(
    autojump_clock: Clock,
    nursery: trio.Nursery,
    rechecks: Rechecks,
    caplog: pytest.LogCaptureFixture,
) -> None:
    start(nursery, fetcher := Fetcher(), rechecks)
    await trio.sleep(10 * POLL_EVERY)
    (said,) = lines(caplog, "no device of the list may use the relay")
    assert said["source"] == NAME
    fetcher.devices[ALICE.key] = math.inf
    await trio.sleep(2 * POLL_EVERY)
    fetcher.devices.clear()
    await trio.sleep(2 * POLL_EVERY)
    assert len(lines(caplog, "no device of the list may use the relay")) == 2


@pytest.mark.usefixtures("_no_threads")
async def test_it_is_kept(
    autojump_clock: Clock,
    nursery: trio.Nursery,
    rechecks: Rechecks,
    tmp_path: Path,
) -> None:
    """At each change, and from time to time, since the file says how old it is."""
    store = KeptList.of(tmp_path, NAME, frozenset())
    start(nursery, fetcher := Fetcher(ALICE.key), rechecks, store=store)
    await trio.sleep(SAVE_EVERY - 1)
    only_alice = {ALICE.key: math.inf}
    assert store.load(EPOCH * 2) == Devices(only_alice, EPOCH)
    await trio.sleep(POLL_EVERY)
    assert store.load(EPOCH * 2) == Devices(only_alice, EPOCH + SAVE_EVERY)
    fetcher.devices[BOB.key] = math.inf
    await trio.sleep(POLL_EVERY)
    both = {**only_alice, BOB.key: math.inf}
    assert store.load(EPOCH * 2) == Devices(both, EPOCH + SAVE_EVERY + POLL_EVERY)


@pytest.mark.usefixtures("_no_threads")
async def test_a_disk_that_is_full_is_told_once(
    autojump_clock: Clock,
    nursery: trio.Nursery,
    rechecks: Rechecks,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = KeptList.of(tmp_path, NAME, frozenset())

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("derp.devices.kept.write_whole", fail)
    checker = start(nursery, Fetcher(ALICE.key), rechecks, store=store)
    await trio.sleep(5 * SAVE_EVERY)
    (said,) = lines(caplog, "the devices can't be kept for a restart")
    assert said["reason"] == "No space left on device"
    assert (await checker.admit(ALICE)).admitted
