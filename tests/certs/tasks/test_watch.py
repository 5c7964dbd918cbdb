"""The watch over a certificate's files, with a clock that jumps."""

import ipaddress
import logging
import ssl
from datetime import UTC, datetime
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from certs.errors import CertificateError, UnusablePairError
from certs.files import PairFiles
from certs.pair import Pair
from certs.parse import make_pair
from certs.selfsigned import make_self_signed
from certs.tasks import watch
from certs.tasks.plan import CertificateSpec
from certs.tasks.presenter import LocalPresenter
from certs.tasks.status import Status
from certs.tasks.watch import CHECK_EVERY
from tests.support.threads import run_at_once

Clock = trio.testing.MockClock


def a_pair() -> Pair:
    chain, key = make_self_signed(ipaddress.ip_address("192.0.2.7"), datetime.now(UTC))
    return make_pair(chain, key, chain_from="test", key_from="test")


class Source:
    """PairChanges whose checks find what a test says."""

    def __init__(self) -> None:
        self.finds: list[Pair | CertificateError | None] = []
        self.looks: list[bool] = []
        self.looked = trio.Event()

    def check(self, _now: object, _current: Pair, *, at_once: bool = False) -> Pair | None:
        self.looks.append(at_once)
        self.looked.set()
        self.looked = trio.Event()
        found = self.finds.pop(0) if self.finds else None
        if isinstance(found, CertificateError):
            raise found
        return found


@attrs.define
class Contexts:
    """What the listeners serve."""

    context: object = None

    def install(self, names: tuple[str, ...], context: object) -> None:
        assert names == ("192.0.2.7",)
        self.context = context


class Task:
    def __init__(self, nursery: trio.Nursery) -> None:
        self.pair = a_pair()
        self.source = Source()
        files = PairFiles(Path("crt"), Path("key"))
        self.status = Status(CertificateSpec(("192.0.2.7",), files), self.pair)
        self.contexts = Contexts()
        self.refuse: CertificateError | None = None
        self.wake, woken = trio.open_memory_channel[None](1)
        send, receive = trio.open_memory_channel[watch.NamedContext](1)
        nursery.start_soon(
            watch.watch,
            self.source,  # type: ignore[arg-type]
            self.make,
            self.status,
            woken,
            send,
        )
        here = LocalPresenter(self.contexts)  # type: ignore[arg-type]
        nursery.start_soon(watch.install, self.contexts, receive, here)  # type: ignore[arg-type]

    def make(self, pair: Pair) -> ssl.SSLContext:
        if self.refuse is not None:
            raise self.refuse
        return pair  # type: ignore[return-value]

    async def looked(self, times: int) -> None:
        with trio.fail_after(1000):
            while len(self.source.looks) < times:
                await self.source.looked.wait()
        await trio.testing.wait_all_tasks_blocked()


@pytest.fixture
async def task(
    autojump_clock: Clock, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> Task:
    run_at_once(monkeypatch)
    return Task(nursery)


async def test_it_checks_from_time_to_time(autojump_clock: Clock, task: Task) -> None:
    start = trio.current_time()
    await task.looked(4)
    assert 4 * CHECK_EVERY <= trio.current_time() - start < 5 * CHECK_EVERY
    assert task.source.looks == [False] * 4
    assert task.contexts.context is None


async def test_it_checks_at_once_when_woken(autojump_clock: Clock, task: Task) -> None:
    task.wake.send_nowait(None)
    await task.looked(1)
    assert task.source.looks == [True]


async def test_a_new_pair_is_served(autojump_clock: Clock, task: Task) -> None:
    new = a_pair()
    task.source.finds = [None, new]
    await task.looked(2)
    assert task.contexts.context is new
    assert task.status.pair is new
    assert task.status.replaced == 1
    assert task.status.replaced_at is not None
    assert task.status.failures == 0


async def test_a_new_pair_sets_the_changed_event(autojump_clock: Clock, task: Task) -> None:
    changed = task.status.changed
    task.source.finds = [None, a_pair()]
    await task.looked(1)
    assert not changed.is_set()
    await task.looked(2)
    assert changed.is_set()
    assert not task.status.changed.is_set()


async def test_the_first_pair_is_awaited_in_silence(
    autojump_clock: Clock, task: Task, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    task.status.pair = None
    task.wake.send_nowait(None)
    await task.looked(1)
    assert caplog.records == []


async def test_a_check_on_request_that_finds_nothing_new_says_so(
    autojump_clock: Clock, task: Task, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    task.wake.send_nowait(None)
    await task.looked(2)
    assert task.source.looks == [True, False]
    (record,) = caplog.records
    assert record.getMessage() == "the certificate has not changed"


async def test_a_pair_that_cant_be_served_is_logged_and_the_task_goes_on(
    autojump_clock: Clock, task: Task, caplog: pytest.LogCaptureFixture
) -> None:
    new = a_pair()
    task.source.finds = [UnusablePairError("x.key: damaged"), new]
    await task.looked(1)
    assert task.contexts.context is None
    assert task.status.failures == 1
    assert task.status.failure == "x.key: damaged"
    assert task.status.pair is task.pair
    assert [record.getMessage() for record in caplog.records] == [
        "the old certificate stays in force"
    ]
    await task.looked(2)
    assert task.contexts.context is new


async def test_a_pair_that_openssl_does_not_take_is_not_in_force(
    autojump_clock: Clock, task: Task
) -> None:
    task.refuse = UnusablePairError("too weak")
    task.source.finds = [a_pair()]
    await task.looked(1)
    assert task.status.failure == "too weak"
    assert task.status.pair is task.pair
    assert task.contexts.context is None
