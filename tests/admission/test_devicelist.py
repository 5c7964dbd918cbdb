"""A list of devices as a source: looked up, fetched for unknown keys within bounds, and kept."""

import math

import pytest
import trio
import trio.testing

from derp.admission.devicelist import (
    FETCH_BURST,
    FETCH_RATE,
    FIRST_RETRY,
    FRESH,
    POLL_EVERY,
    DeviceList,
)
from derp.admission.model import ANSWER_TIMEOUT, Outcome, Question, Verdict
from derp.devices.model import Devices
from derp.errors import DevicesFailed
from tests.admission.devicelists import AWAY, DAY, EPOCH, Fetcher, make_list

Clock = trio.testing.MockClock
ALICE, BOB = Question(b"a" * 32, "192.0.2.1"), Question(b"b" * 32, "192.0.2.2")
NAME = "tailnet:example.com"
NOT_LISTED = "not among the devices that it lists"


async def follow(source: DeviceList) -> None:
    """Fetch as the watch does."""
    while True:
        await source.next_fetch(trio.current_time() + POLL_EVERY)


def strangers(count: int) -> list[Question]:
    return [Question(number.to_bytes(32, "big"), "198.51.100.1") for number in range(count)]


async def ask_all(source: DeviceList, questions: list[Question]) -> list[Verdict]:
    """Ask all at once."""
    verdicts: list[Verdict] = []

    async def ask(question: Question) -> None:
        verdicts.append(await source.ask(question))

    async with trio.open_nursery() as nursery:
        for question in questions:
            nursery.start_soon(ask, question)
    return verdicts


async def test_who_is_listed_is_in(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    fetcher = Fetcher(ALICE.key)
    source = make_list(fetcher)
    nursery.start_soon(follow, source)
    await trio.sleep(1)
    assert source.check(ALICE) == await source.ask(ALICE) == Verdict(Outcome.ALLOWED, NAME)
    assert source.check(BOB) == Verdict(Outcome.REFUSED, NAME, NOT_LISTED)
    assert len(fetcher.began) == 1


async def test_a_key_expires(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    fetcher = Fetcher()
    fetcher.devices[ALICE.key] = EPOCH + 30
    source = make_list(fetcher)
    nursery.start_soon(follow, source)
    await trio.sleep(29)
    assert source.check(ALICE).admitted
    await trio.sleep(1)
    assert source.check(ALICE).reason == "its node key has expired; log in again on that device"


async def test_it_is_fetched_every_minute(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    fetcher = Fetcher(takes=7)
    nursery.start_soon(follow, make_list(fetcher))
    await trio.sleep(3600 - 1)
    assert fetcher.began == [POLL_EVERY * number for number in range(60)]


async def test_all_that_come_before_the_first_list_get_in_with_it(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    crowd = strangers(500)
    fetcher = Fetcher(*(question.key for question in crowd), takes=ANSWER_TIMEOUT - 0.1)
    source = make_list(fetcher)
    nursery.start_soon(follow, source)
    assert all(verdict.admitted for verdict in await ask_all(source, crowd))
    assert len(fetcher.began) == 1


async def test_an_unknown_key_is_looked_for_at_once(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    fetcher = Fetcher(ALICE.key)
    source = make_list(fetcher)
    nursery.start_soon(follow, source)
    await trio.sleep(10)
    fetcher.devices[BOB.key] = math.inf
    assert (await source.ask(BOB)).admitted
    assert fetcher.began == [0, 10]
    # The next poll is a minute after that.
    await trio.sleep(2 * POLL_EVERY - 1)
    assert fetcher.began == [0, 10, 70]


async def test_a_fetch_that_began_before_the_question_is_not_the_last_word(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    fetcher = Fetcher(ALICE.key)
    source = make_list(fetcher)
    nursery.start_soon(follow, source)
    fetcher.takes = 2
    await trio.sleep(POLL_EVERY + 1)
    fetcher.devices[BOB.key] = math.inf
    assert not source.check(BOB).admitted
    assert (await source.ask(BOB)).admitted
    assert fetcher.began == [0, POLL_EVERY, POLL_EVERY + 2]


async def test_strangers_cause_few_fetches(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    """However many come, and each is refused within the time that it has."""
    fetcher = Fetcher(ALICE.key, takes=0.5)
    source = make_list(fetcher)
    nursery.start_soon(follow, source)
    await trio.sleep(1)
    for question in strangers(3000):
        began = trio.current_time()
        assert not (await source.ask(question)).admitted
        assert trio.current_time() - began <= ANSWER_TIMEOUT
        await trio.sleep(0.2)
    seconds = trio.current_time()
    assert seconds > 600
    most = FETCH_BURST + seconds * FETCH_RATE + seconds / POLL_EVERY
    assert seconds * FETCH_RATE / 2 < len(fetcher.began) <= most + 1


async def test_a_crowd_shares_one_fetch(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    fetcher = Fetcher(ALICE.key)
    source = make_list(fetcher)
    nursery.start_soon(follow, source)
    await trio.sleep(5)
    verdicts = await ask_all(source, strangers(1000))
    assert {verdict.reason for verdict in verdicts} == {NOT_LISTED}
    assert fetcher.began == [0, 5]


async def test_those_whom_a_list_no_longer_has_cause_no_fetch(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    """They are asked about at once; later they may be back."""
    gone = strangers(100)
    fetcher = Fetcher(ALICE.key)
    source = make_list(fetcher)
    nursery.start_soon(follow, source)
    await trio.sleep(1)
    source.gone = {question.key for question in gone}
    assert not any(verdict.admitted for verdict in await ask_all(source, gone))
    assert fetcher.began == [0]
    await trio.sleep(FRESH)
    await ask_all(source, gone)
    assert len(fetcher.began) == 2


async def test_an_api_that_hangs(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    fetcher = Fetcher(ALICE.key, takes=30)
    source = make_list(fetcher)
    nursery.start_soon(follow, source)
    verdict = await source.ask(ALICE)
    assert verdict.outcome is Outcome.LATE
    assert verdict.reason == "its devices have not been listed yet"
    assert trio.current_time() == ANSWER_TIMEOUT


async def test_the_last_list_counts_while_the_api_is_away(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    fetcher = Fetcher(ALICE.key)
    source = make_list(fetcher, keep=3600)
    nursery.start_soon(follow, source)
    await trio.sleep(1)
    fetcher.failure = AWAY
    await trio.sleep(1800)
    assert source.check(ALICE).admitted
    assert source.check(BOB) == Verdict(
        Outcome.REFUSED,
        NAME,
        "not among the devices that it listed 30 minutes ago "
        "(api.test can't be asked (Connection refused))",
    )
    await trio.sleep(1799)
    assert not source.check(ALICE).authoritative
    assert source.check(ALICE) == Verdict(Outcome.UNREACHABLE, NAME, str(AWAY))
    fetcher.failure = None
    await trio.sleep(2 * POLL_EVERY)
    assert source.check(ALICE).admitted


async def test_a_list_from_before_the_start(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    fetcher = Fetcher(BOB.key)
    fetcher.failure = AWAY
    old = Devices({ALICE.key: math.inf}, EPOCH - DAY + 100)
    source = make_list(fetcher, devices=old)
    assert source.check(ALICE).admitted
    nursery.start_soon(follow, source)
    await trio.sleep(101)
    assert source.check(ALICE).outcome is Outcome.UNREACHABLE
    fetcher.failure = None
    await trio.sleep(2 * POLL_EVERY)
    assert (source.check(ALICE).admitted, source.check(BOB).admitted) == (False, True)


async def test_after_a_failure_it_is_fetched_soon_and_then_later_and_later(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    fetcher = Fetcher(takes=0)
    fetcher.failure = AWAY
    nursery.start_soon(follow, make_list(fetcher))
    await trio.sleep(3600)
    waits = [b - a for a, b in zip(fetcher.began, fetcher.began[1:], strict=False)]
    assert FIRST_RETRY * 0.75 <= waits[0] <= FIRST_RETRY
    assert 2 * FIRST_RETRY * 0.75 <= waits[1] <= 2 * FIRST_RETRY
    assert all(POLL_EVERY * 0.75 <= wait <= POLL_EVERY for wait in waits[4:])


async def test_an_api_that_wants_no_request_for_a_time_gets_none(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    """Not for unknown keys, either, and not for one that was unknown before."""
    fetcher = Fetcher(ALICE.key, takes=1)
    source = make_list(fetcher)
    nursery.start_soon(follow, source)
    await trio.sleep(POLL_EVERY + 0.5)
    fetcher.failure = DevicesFailed("too many requests", retry_after=500)
    verdicts = await ask_all(source, strangers(10))
    assert not any(verdict.admitted for verdict in verdicts)
    fetcher.failure = None
    for question in strangers(400):
        assert not (await source.ask(question)).admitted
        await trio.sleep(1)
    assert fetcher.began == [0, POLL_EVERY]
    await trio.sleep(200)
    assert fetcher.began[:3] == [0, POLL_EVERY, POLL_EVERY + 1 + 500]


@pytest.mark.parametrize("outcome", ["unknown", "late", "unreachable"])
async def test_why_there_is_no_list(
    autojump_clock: Clock, nursery: trio.Nursery, outcome: str
) -> None:
    fetcher = Fetcher()
    fetcher.failure = DevicesFailed("something is wrong; do this", outcome)
    source = make_list(fetcher)
    nursery.start_soon(follow, source)
    verdict = await source.ask(ALICE)
    assert verdict == Verdict(Outcome(outcome), NAME, "something is wrong; do this")
