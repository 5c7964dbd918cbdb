"""The task that keeps a certificate current, with an authority that is told what to answer."""

import contextlib
import itertools
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from certs import apart
from certs.acme.ari import RenewalInfo
from certs.acme.authority import Authority
from certs.acme.store import certificate_file
from certs.errors import CertificateFileError, Failure, IssueError
from certs.files import PairFiles
from certs.pair import Pair
from certs.tasks import renewal
from certs.tasks.clock import wall_clock
from certs.tasks.plan import ACMEOptions, CertificateSpec
from certs.tasks.presenter import LocalPresenter
from certs.tasks.renewal import BETWEEN_ORDERS, Renewal
from certs.tasks.status import Status
from derp.net.tlsengine import TLSEngine
from derp.service.tls import ServerContexts

Clock = trio.testing.MockClock
DIRECTORY = "https://ca.example/dir"
HOUR = 3600.0
DAY = 24 * HOUR
LIFE = timedelta(days=90)
CHECK_EVERY = 2 * HOUR
"""Longer than in earnest, since thousands of looks take their time even with a clock that jumps."""


class World:
    """The task under test, the authority it asks, and the watch that finds what it obtained."""

    def __init__(self, tmp_path: Path, make_pair: Callable[[], Pair], time: Any) -> None:
        self.time = time
        self._make_pair = make_pair
        self.orders: list[tuple[float, str, bytes | None]] = []
        """When, by which challenge, in place of which leaf."""
        self.answers: list[Exception] = []
        """To the next orders; then they succeed."""
        self.asked: list[float] = []
        self.suggests: list[RenewalInfo | Exception | None] = []
        """The last one stays."""
        self.is_served = True
        self.ordered = True
        file = certificate_file(tmp_path, "relay.example")
        acme = ACMEOptions(
            authority=Authority(DIRECTORY), profile="", challenges=["http-01", "tls-alpn-01"]
        )
        self.file = file
        self.status = Status(CertificateSpec(("relay.example",), PairFiles(file, file), acme), None)
        self._look, self.looks = trio.open_memory_channel[None](1)
        self.wake, self._wakes = trio.open_memory_channel[None](1)
        self.nursery: trio.Nursery

    def start(self, nursery: trio.Nursery) -> None:
        assert self.status.certificate.acme is not None
        here = LocalPresenter(ServerContexts(TLSEngine(None)))  # type: ignore[arg-type]
        task = Renewal(self.status.certificate.acme, self.status, here, self._look, self.time)
        nursery.start_soon(self._watch)
        nursery.start_soon(task.run, self._wakes)

    async def _watch(self) -> None:
        async for _ in self.looks:
            if self.is_served:
                self.status.succeeded(self.new_pair())

    def new_pair(self) -> Pair:
        now, names = self.time(), ("relay.example",)
        return attrs.evolve(
            self._make_pair(), not_before=now, not_after=now + LIFE, dns_names=names
        )

    def obtain(
        self,
        request: Any,
        kind: str,
        present: object,
        now: datetime,
        *,
        timeout: float,
        replacing: bytes | None,
    ) -> bool:
        assert request.names == ("relay.example",)
        assert now == self.time()
        self.orders.append((trio.current_time(), kind, replacing))
        if self.answers:
            raise self.answers.pop(0)
        return self.ordered

    def renewal_info(self, request: Any, pair: Pair, now: datetime) -> RenewalInfo | None:
        self.asked.append(trio.current_time())
        suggested = self.suggests[0] if len(self.suggests) < 2 else self.suggests.pop(0)
        if isinstance(suggested, Exception):
            raise suggested
        return suggested

    def suggest(self, start: timedelta, end: timedelta, again: float = 6 * HOUR) -> RenewalInfo:
        return RenewalInfo((self.time() + start, self.time() + end), again)

    @property
    def kinds(self) -> list[str]:
        return [kind for _, kind, _ in self.orders]

    def waits(self) -> list[float]:
        times = [when for when, _, _ in self.orders]
        return [b - a for a, b in itertools.pairwise(times)]


@pytest.fixture
async def world(
    autojump_clock: Clock,
    tmp_path: Path,
    a_pair: Callable[[], Pair],
    make_time: type,
    threads_take_no_time: None,
    monkeypatch: pytest.MonkeyPatch,
) -> World:
    world = World(tmp_path, a_pair, make_time(wall_clock()))
    world.suggests = [None]
    monkeypatch.setattr(renewal, "CHECK_EVERY", CHECK_EVERY)
    monkeypatch.setattr(renewal, "obtain", world.obtain)
    monkeypatch.setattr(apart, "renewal_info", world.renewal_info)
    return world


async def test_without_a_certificate_it_orders_at_once(
    autojump_clock: Clock, world: World, nursery: trio.Nursery
) -> None:
    world.start(nursery)
    await trio.sleep(1)
    assert world.orders == [(0.0, "http-01", None)]
    assert world.status.pair is not None
    assert world.status.failures == 0


async def test_a_certificate_is_renewed_at_two_thirds_of_its_lifetime(
    autojump_clock: Clock, world: World, nursery: trio.Nursery
) -> None:
    first = world.status.pair = world.new_pair()
    world.start(nursery)
    await trio.sleep(60 * DAY - 1)
    assert world.orders == []
    await trio.sleep(CHECK_EVERY + 1)
    ((_, _, replacing),) = world.orders
    assert replacing == first.chain_der[0]
    await trio.sleep(60 * DAY)
    assert len(world.orders) == 2


async def test_a_certificate_that_lacks_a_name_is_replaced_at_once(
    autojump_clock: Clock, world: World, nursery: trio.Nursery
) -> None:
    old = world.status.pair = attrs.evolve(world.new_pair(), dns_names=("other.example",))
    world.start(nursery)
    await trio.sleep(1)
    assert world.orders == [(0.0, "http-01", old.chain_der[0])]
    await trio.sleep(DAY)
    assert len(world.orders) == 1


async def test_it_renews_within_the_suggested_window(
    autojump_clock: Clock, world: World, nursery: trio.Nursery
) -> None:
    world.status.pair = world.new_pair()
    world.suggests = [world.suggest(timedelta(days=10), timedelta(days=11)), None]
    world.start(nursery)
    await trio.sleep(10 * DAY)
    assert world.orders == []
    # By now the authority has nothing to suggest, but what it said of this pair was asked again.
    assert len(world.asked) > 1


async def test_a_suggestion_that_changes_counts(
    autojump_clock: Clock, world: World, nursery: trio.Nursery
) -> None:
    world.status.pair = world.new_pair()
    soon = world.suggest(timedelta(days=-2), timedelta(days=-1))
    world.suggests = [world.suggest(timedelta(days=50), timedelta(days=51)), soon, None]
    world.start(nursery)
    await trio.sleep(6 * HOUR - 1)
    assert world.orders == []
    await trio.sleep(2)
    assert len(world.orders) == 1


async def test_renewal_information_is_requested_no_sooner_than_the_authority_wants(
    autojump_clock: Clock, world: World, nursery: trio.Nursery
) -> None:
    world.status.pair = world.new_pair()
    world.suggests = [world.suggest(timedelta(days=50), timedelta(days=51), 12 * HOUR)]
    world.start(nursery)
    await trio.sleep(DAY + 1)
    assert world.asked == pytest.approx([0.0, 12 * HOUR, DAY], abs=CHECK_EVERY)


async def test_an_authority_without_a_suggestion_is_asked_again_in_six_hours(
    autojump_clock: Clock, world: World, nursery: trio.Nursery
) -> None:
    world.status.pair = world.new_pair()
    world.start(nursery)
    await trio.sleep(18 * HOUR + 1)
    assert world.asked == pytest.approx([0, 6 * HOUR, 12 * HOUR, 18 * HOUR], abs=1)


async def test_an_authority_that_can_t_be_asked_is_asked_again_in_an_hour(
    autojump_clock: Clock, world: World, nursery: trio.Nursery
) -> None:
    world.status.pair = world.new_pair()
    world.suggests = [IssueError("down")]
    world.start(nursery)
    await trio.sleep(60 * DAY - 1)
    assert len(world.asked) == pytest.approx(60 * 24, abs=30)
    assert world.orders == []
    assert world.status.failures == 0
    await trio.sleep(CHECK_EVERY + 2)
    assert len(world.orders) == 1


async def test_waits_grow_with_each_failure(
    autojump_clock: Clock, world: World, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    world.answers = [IssueError("no way there")] * 12
    world.start(nursery)
    await trio.sleep(5 * HOUR)
    waits = world.waits()
    for wait, expected in zip(waits, [5, 10, 20, 40, 80, 160, 320, 640], strict=False):
        assert wait == pytest.approx(expected, rel=0.21)
    assert max(waits) <= 1.21 * HOUR
    assert world.status.failures == 12
    assert world.status.failure == "no way there"
    assert world.status.pair is not None
    lines = [record.getMessage() for record in caplog.records]
    assert lines.count("no certificate yet") == 12


async def test_the_old_certificate_stays_in_force_after_a_failure(
    autojump_clock: Clock, world: World, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    first = world.status.pair = world.new_pair()
    world.answers = [IssueError("no way there")] * 3
    world.start(nursery)
    await trio.sleep(60 * DAY + 1)
    assert world.status.pair is first
    assert "the old certificate stays in force" in [r.getMessage() for r in caplog.records]
    await trio.sleep(HOUR)
    assert world.status.pair is not first
    assert len(world.orders) == 4


async def test_a_retry_after_is_honoured(
    autojump_clock: Clock, world: World, nursery: trio.Nursery
) -> None:
    world.answers = [IssueError("rate limit", Failure.REFUSED, 5 * HOUR)]
    world.start(nursery)
    await trio.sleep(5 * HOUR - 1)
    assert len(world.orders) == 1
    await trio.sleep(CHECK_EVERY + 1)
    assert len(world.orders) == 2


async def test_the_other_challenge_is_tried_at_once_but_only_once(
    autojump_clock: Clock, world: World, nursery: trio.Nursery
) -> None:
    world.answers = [IssueError("not reachable", Failure.VALIDATION)] * 4
    world.start(nursery)
    await trio.sleep(2 * HOUR)
    assert world.kinds == ["http-01", "tls-alpn-01"] * 2 + ["http-01"]
    at_once, *later = world.waits()
    assert at_once < 1
    assert later == pytest.approx([240, 480, 960], rel=0.21)


async def test_the_challenge_that_worked_is_the_first_of_the_next_time(
    autojump_clock: Clock, world: World, nursery: trio.Nursery
) -> None:
    world.answers = [IssueError("not reachable", Failure.VALIDATION)]
    world.start(nursery)
    await trio.sleep(61 * DAY)
    assert world.kinds == ["http-01", "tls-alpn-01", "tls-alpn-01"]


async def test_an_order_of_another_process_is_no_failure(
    autojump_clock: Clock, world: World, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    world.answers = [IssueError("busy", Failure.BUSY)] * 3
    world.start(nursery)
    await trio.sleep(30)
    assert len(world.orders) == 4
    assert max(world.waits()) < 7
    assert world.status.failures == 0
    assert [r for r in caplog.records if r.levelname == "ERROR"] == []
    lines = [record.getMessage() for record in caplog.records]
    assert lines.count("waiting for another order") == lines.count("ordering a certificate") == 1


async def test_a_pair_obtained_by_another_process_needs_no_order(
    autojump_clock: Clock, world: World, nursery: trio.Nursery
) -> None:
    world.status.pair = world.new_pair()
    world.start(nursery)
    await trio.sleep(59 * DAY)
    world.status.succeeded(world.new_pair())
    await trio.sleep(59 * DAY)
    assert world.orders == []


async def test_woken_it_tries_at_once(
    autojump_clock: Clock, world: World, nursery: trio.Nursery
) -> None:
    world.answers = [IssueError("no", Failure.REFUSED)]
    world.start(nursery)
    await trio.sleep(1)
    world.wake.send_nowait(None)
    await trio.sleep(1)
    assert len(world.orders) == 2
    assert world.status.pair is not None


async def test_woken_it_still_waits_for_the_retry_after(
    autojump_clock: Clock, world: World, nursery: trio.Nursery
) -> None:
    world.answers = [IssueError("rate limit", Failure.REFUSED, DAY)]
    world.start(nursery)
    for _ in range(10):
        await trio.sleep(HOUR)
        with contextlib.suppress(trio.WouldBlock):
            world.wake.send_nowait(None)
    assert len(world.orders) == 1
    await trio.sleep(DAY)
    assert len(world.orders) == 2


async def test_a_pair_that_comes_while_the_authority_is_asked_is_not_renewed(
    autojump_clock: Clock, world: World, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.status.pair = attrs.evolve(world.new_pair(), not_after=world.time() + timedelta(days=1))

    def ask(*_: object) -> None:
        if world.status.replaced == 0:
            world.status.succeeded(world.new_pair())

    monkeypatch.setattr(apart, "renewal_info", ask)
    world.start(nursery)
    await trio.sleep(DAY)
    assert world.orders == []


async def test_a_pair_that_was_there_already_delays_no_order(
    autojump_clock: Clock, world: World, nursery: trio.Nursery
) -> None:
    world.ordered = False
    world.suggests = [world.suggest(timedelta(days=-2), timedelta(days=-1)), None]
    world.start(nursery)
    await trio.sleep(1)
    assert len(world.orders) == 2


async def test_a_pair_that_tls_refuses_is_replaced(
    autojump_clock: Clock, world: World, nursery: trio.Nursery
) -> None:
    world.status.unservable_leaf = b"leaf"
    world.start(nursery)
    await trio.sleep(1)
    ((_, _, replacing),) = world.orders
    assert replacing == b"leaf"


async def test_woken_it_requests_renewal_information_and_orders_only_what_is_due(
    autojump_clock: Clock, world: World, nursery: trio.Nursery
) -> None:
    world.status.pair = world.new_pair()
    world.start(nursery)
    await trio.sleep(1)
    world.wake.send_nowait(None)
    await trio.sleep(1)
    assert len(world.asked) == 2
    assert world.orders == []


async def test_a_certificate_that_is_obtained_and_not_served_is_a_failure(
    autojump_clock: Clock, world: World, nursery: trio.Nursery
) -> None:
    """Or else it would be ordered again and again."""
    world.is_served = False
    world.start(nursery)
    await trio.sleep(3 * DAY)
    assert world.status.failure == "the new certificate can't be served"
    assert 3 <= len(world.orders) <= 4
    world.ordered = False
    await trio.sleep(2 * DAY)
    assert len(world.orders) > 20


@pytest.mark.parametrize("error", [CertificateFileError("disk"), RuntimeError("bug")])
async def test_an_unexpected_error_does_not_end_the_task(
    autojump_clock: Clock,
    world: World,
    nursery: trio.Nursery,
    error: Exception,
    caplog: pytest.LogCaptureFixture,
) -> None:
    world.answers = [error]
    world.start(nursery)
    await trio.sleep(2 * DAY)
    assert len(world.orders) == 2
    assert world.status.failures == 1
    bugs = [r for r in caplog.records if r.exc_info]
    assert bool(bugs) == isinstance(error, RuntimeError)


async def test_a_clock_that_is_set_forward_is_noticed_at_the_next_check(
    autojump_clock: Clock, world: World, nursery: trio.Nursery
) -> None:
    world.status.pair = world.new_pair()
    world.start(nursery)
    await trio.sleep(DAY)
    world.time.step(timedelta(days=70))
    await trio.sleep(CHECK_EVERY + 1)
    assert len(world.orders) == 1


async def test_a_clock_that_is_set_back_orders_nothing_and_hangs_nothing(
    autojump_clock: Clock, world: World, nursery: trio.Nursery
) -> None:
    world.status.pair = world.new_pair()
    world.start(nursery)
    await trio.sleep(DAY)
    world.time.step(timedelta(days=-1000))
    await trio.sleep(100 * DAY)
    assert world.orders == []
    world.time.step(timedelta(days=1000))
    await trio.sleep(CHECK_EVERY + 1)
    assert len(world.orders) == 1


@pytest.mark.parametrize(
    ("said", "orders"), [("https://staging.example/dir", 1), (DIRECTORY, 0), (None, 0)]
)
async def test_a_certificate_of_another_authority_is_replaced(
    autojump_clock: Clock, world: World, nursery: trio.Nursery, said: str | None, orders: int
) -> None:
    line = "" if said is None else f"ACME directory: {said}\n"
    world.file.write_text(f"{line}-----BEGIN EC PRIVATE KEY-----\n")
    world.status.pair = world.new_pair()
    world.start(nursery)
    await trio.sleep(1)
    assert len(world.orders) == orders


async def test_an_authority_that_always_wants_a_renewal_does_not_get_one_after_the_other(
    autojump_clock: Clock, world: World, nursery: trio.Nursery
) -> None:
    world.suggests = [world.suggest(timedelta(days=-2), timedelta(days=-1))]
    world.start(nursery)
    await trio.sleep(DAY)
    assert 12 <= len(world.orders) <= 24
    assert min(world.waits()) >= BETWEEN_ORDERS


async def test_two_authorities_for_one_directory_don_t_replace_each_other_for_ever(
    autojump_clock: Clock, world: World, nursery: trio.Nursery
) -> None:
    world.status.pair = world.new_pair()
    world.start(nursery)
    await trio.sleep(1)
    world.file.write_text("ACME directory: https://staging.example/dir\n")
    world.status.succeeded(world.new_pair())
    await trio.sleep(10 * DAY)
    assert world.orders == []
