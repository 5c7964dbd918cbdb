"""The end of a self-signed certificate, with days that pass in no time."""

from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from certs import manual
from certs.pair import Pair
from certs.tasks import expiry
from certs.tasks.clock import wall_clock
from certs.tasks.plan import CertificateSpec
from certs.tasks.status import Status

Clock = trio.testing.MockClock
ADDRESS = ip_address("192.0.2.7")
DAY = 86400.0
CHECK_EVERY = 6 * 3600.0
"""Longer than in earnest, since thousands of looks take their time even with a clock that jumps."""


class Kept:
    """The task, with a watch that finds at once what was written."""

    def __init__(self, certificate: CertificateSpec, nursery: trio.Nursery, time: object) -> None:
        self.time = time(wall_clock())  # type: ignore[operator]
        self.certificate = certificate
        pair = manual.load(certificate.files, ["192.0.2.7"], self.time())
        self.first = pair
        self.status = Status(certificate, pair)
        self.announced: list[Pair] = []
        look, looks = trio.open_memory_channel[None](1)
        nursery.start_soon(self._watch, looks)
        nursery.start_soon(
            expiry.replace_when_expired,
            ADDRESS,
            self.status,
            look,
            self.announced.append,
            self.time,
        )

    async def _watch(self, looks: trio.MemoryReceiveChannel[None]) -> None:
        async for _ in looks:
            pair = manual.load(self.certificate.files, ["192.0.2.7"], self.time(), make=False)
            self.status.succeeded(pair)


@pytest.fixture
async def kept(
    autojump_clock: Clock,
    nursery: trio.Nursery,
    certificate: CertificateSpec,
    make_time: type,
    threads_take_no_time: None,
    monkeypatch: pytest.MonkeyPatch,
) -> Kept:
    monkeypatch.setattr(expiry, "CHECK_EVERY", CHECK_EVERY)
    return Kept(certificate, nursery, make_time)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if "expires soon" in r.getMessage()]


async def test_nothing_is_logged_or_replaced_for_eleven_months(
    autojump_clock: Clock, kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    await trio.sleep(333 * DAY)
    assert caplog.records == []
    assert kept.status.pair is kept.first


async def test_it_warns_every_day_of_the_last_month(
    autojump_clock: Clock, kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    await trio.sleep(360 * DAY)
    assert 25 <= len(warnings(caplog)) <= 27
    assert kept.status.pair is kept.first


async def test_it_is_replaced_when_it_has_expired_and_not_before(
    autojump_clock: Clock, kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    left = kept.first.not_after - kept.time()
    await trio.sleep(left.total_seconds() - 1)
    assert kept.status.pair is kept.first
    await trio.sleep(CHECK_EVERY + 2)
    (new,) = kept.announced
    assert new is kept.status.pair
    assert new.pin != kept.first.pin
    assert any(
        f"has the new CertName {new.pin}" in r.getMessage() and r.levelname == "ERROR"
        for r in caplog.records
    )
    await trio.sleep(300 * DAY)
    assert len(kept.announced) == 1


async def test_a_clock_that_is_set_is_noticed_at_the_next_check(
    autojump_clock: Clock, kept: Kept
) -> None:
    await trio.sleep(DAY)
    kept.time.step(timedelta(days=400))
    await trio.sleep(CHECK_EVERY + 1)
    assert len(kept.announced) == 1


async def test_a_clock_that_is_set_forward_and_back_leaves_the_pin_as_it_was(
    autojump_clock: Clock, kept: Kept
) -> None:
    kept.time.step(timedelta(days=4000))
    await trio.sleep(CHECK_EVERY + 1)
    assert kept.announced[0].pin != kept.first.pin
    kept.time.step(timedelta(days=-4000))
    await trio.sleep(CHECK_EVERY + 1)
    assert kept.status.pair is kept.announced[1]
    assert kept.announced[1].pin == kept.first.pin
    await trio.sleep(300 * DAY)
    assert len(kept.announced) == 2


@pytest.mark.slow
async def test_a_clock_that_is_set_back_changes_nothing(autojump_clock: Clock, kept: Kept) -> None:
    kept.time.step(timedelta(days=-4000))
    await trio.sleep(100 * DAY)
    assert kept.status.pair is kept.first
    assert kept.announced == []


async def test_a_pair_of_the_operators_is_left_alone(
    autojump_clock: Clock, kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    kept.status.pair = attrs.evolve(kept.first, self_signed=False)
    await trio.sleep(500 * DAY)
    assert caplog.records == []


async def test_a_full_directory_is_logged_and_tried_again(
    autojump_clock: Clock,
    kept: Kept,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    replace = Path.replace

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    await trio.sleep((kept.first.not_after - kept.time()).total_seconds() + 2 * DAY)
    assert kept.status.pair is kept.first
    assert 40 < kept.status.failures < 50
    assert "No space left on device" in kept.status.failure
    monkeypatch.setattr(Path, "replace", replace)
    await trio.sleep(expiry.RETRY_EVERY + CHECK_EVERY)
    assert len(kept.announced) == 1
