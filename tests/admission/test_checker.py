"""The checker, with sources that are told what to answer, and a clock that jumps."""

from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from derp.admission.allowlist import AllowList
from derp.admission.cache import SHORT_TTL
from derp.admission.checker import NEW_TROUBLE_EVERY, VERDICT_TIMEOUT, Checker
from derp.admission.model import Outcome, Question, Verdict
from derp.admission.sources import Sources
from derp.metrics import Metrics
from derp.session.recheck import UNVERIFIED_EVERY
from tests.admission.servers import Parallel, Server

Clock = trio.testing.MockClock
YES = Verdict(Outcome.ALLOWED, "")
NO = Verdict(Outcome.REFUSED, "", "not known")
LOST = Verdict(Outcome.UNREACHABLE, "", "can't be reached; start it")
CROWDED = Verdict(Outcome.NO_ROOM, "", "no answer in time, among many others")
MEMBER, STRANGER = Question(b"m" * 32, "192.0.2.1"), Question(b"s" * 32, "192.0.2.2")


class Source:
    def __init__(self, name: str, answer: Verdict = YES, takes: float = 0.0) -> None:
        self.name = name
        self.answer = answer
        self.takes = takes
        self.asked: list[Question] = []
        self.at_once = 0
        self.most_at_once = 0

    async def ask(self, question: Question) -> Verdict:
        self.asked.append(question)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await trio.sleep(self.takes)
        finally:
            self.at_once -= 1
        return attrs.evolve(self.answer, source=self.name)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


Make = Callable[..., Checker]


@pytest.fixture
def make(metrics: Metrics, nursery: trio.Nursery) -> Make:
    def make(*, listed: bool = False, **parts: object) -> Checker:
        allowlist = AllowList(Path("list"), {MEMBER.key: "label"}) if listed else None
        remember = parts.pop("remember", 30.0)
        checker = Checker(metrics, Sources(allowlist=allowlist, **parts), remember=remember)
        checker.ask_in(nursery)
        return checker

    return make


async def judged(checker: Checker, question: Question = MEMBER) -> tuple[bool, str]:
    verdict = await checker.admit(question)
    return verdict.admitted, verdict.source


async def test_who_is_in_the_file_is_in_and_nobody_else_is_asked(make: Make) -> None:
    tailscaled, url = Source("tailscaled", NO), Source("url", NO)
    checker = make(listed=True, tailscaleds=[tailscaled], urls=[url])
    assert await judged(checker) == (True, "file")
    assert tailscaled.asked == url.asked == []


async def test_where_there_is_only_the_file_all_others_are_out(make: Make) -> None:
    checker = make(listed=True)
    assert await judged(checker) == (True, "file")
    assert await judged(checker, STRANGER) == (False, "file")


async def test_who_is_not_in_the_file_is_asked_about(make: Make) -> None:
    checker = make(listed=True, tailscaleds=[Source("tailscaled")])
    assert await judged(checker, STRANGER) == (True, "tailscaled")


@pytest.mark.parametrize("fail_open", [True, False])
@pytest.mark.parametrize("lost", [Outcome.UNREACHABLE, Outcome.LATE, Outcome.UNKNOWN])
@pytest.mark.parametrize("tailscaled", [None, YES, NO, LOST])
@pytest.mark.parametrize("url", [None, YES, NO, LOST])
async def test_every_combination_of_the_go_derper(
    make: Make, tailscaled: Verdict | None, url: Verdict | None, lost: Outcome, fail_open: bool
) -> None:
    if tailscaled is None and url is None:
        return  # then there is no checker
    said = {None: None, YES: YES, NO: NO, LOST: attrs.evolve(LOST, outcome=lost)}
    checker = make(
        tailscaleds=[Source("tailscaled", said[tailscaled])] if tailscaled else [],
        urls=[Source("url", said[url])] if url else [],
        fail_open=fail_open,
    )
    admitted, _ = await judged(checker)
    expected = tailscaled in {None, YES} and (url in {None, YES} or (url is LOST and fail_open))
    assert admitted == expected


@pytest.mark.parametrize(
    ("answers", "open_", "closed"),
    [
        ([YES, NO], True, True),
        ([NO, YES], True, True),
        ([LOST, YES], True, True),
        ([NO, NO], False, False),
        ([LOST, NO], True, False),
        ([NO, LOST], True, False),
        ([LOST, LOST], True, False),
        ([CROWDED, YES], True, True),
        ([CROWDED, NO], False, False),
        ([CROWDED, LOST], False, False),
        ([LOST, CROWDED], False, False),
    ],
)
async def test_several_urls(make: Make, answers: list[Verdict], open_: bool, closed: bool) -> None:
    for fail_open, expected in ((True, open_), (False, closed)):
        sources = [Source(str(number), answer) for number, answer in enumerate(answers)]
        checker = make(urls=sources, fail_open=fail_open)
        assert (await checker.admit(MEMBER)).admitted == expected


async def test_the_first_url_that_allows_is_enough(autojump_clock: Clock, make: Make) -> None:
    slow = Source("slow", NO, takes=5.0)
    checker = make(urls=[slow, Source("fast", YES, takes=1.0)])
    assert await judged(checker) == (True, "fast")
    assert trio.current_time() == 1.0
    # That question goes on, and no other is asked beside it.
    assert await judged(checker, STRANGER) == (True, "fast")
    assert slow.at_once == 1


async def test_a_verdict_is_remembered(autojump_clock: Clock, make: Make) -> None:
    source = Source("tailscaled")
    checker = make(tailscaleds=[source], remember=30.0)
    for _ in range(10):
        assert await judged(checker) == (True, "tailscaled")
    assert len(source.asked) == 1
    await trio.sleep(30.0)
    await checker.admit(MEMBER)
    assert len(source.asked) == 2


async def test_so_is_a_refusal_for_a_shorter_time(autojump_clock: Clock, make: Make) -> None:
    source = Source("tailscaled", NO)
    checker = make(tailscaleds=[source], remember=30.0)
    for _ in range(10):
        assert await judged(checker) == (False, "tailscaled")
    assert len(source.asked) == 1
    await trio.sleep(SHORT_TTL)
    source.answer = YES
    assert await judged(checker) == (True, "tailscaled")


async def test_asking_again_does_not_look_into_the_cache(make: Make) -> None:
    source = Source("tailscaled")
    checker = make(tailscaleds=[source])
    assert (await checker.admit(MEMBER)).admitted
    source.answer = NO
    assert not (await checker.recheck(MEMBER)).admitted
    assert not (await checker.admit(MEMBER)).admitted
    assert len(source.asked) == 2


async def test_what_is_forgotten_is_asked_again(make: Make) -> None:
    source = Source("tailscaled")
    checker = make(tailscaleds=[source])
    await checker.admit(MEMBER)
    checker.forget()
    await checker.admit(MEMBER)
    assert len(source.asked) == 2


async def test_the_same_question_at_the_same_time_is_one(autojump_clock: Clock, make: Make) -> None:
    source = Source("url", takes=1.0)
    checker = make(urls=[source])
    async with trio.open_nursery() as nursery:
        for _ in range(200):
            nursery.start_soon(checker.admit, MEMBER)
    assert len(source.asked) == 1
    assert trio.current_time() == 1.0


async def test_the_same_question_survives_the_one_who_asked_it(
    autojump_clock: Clock, make: Make
) -> None:
    source = Source("url", takes=2.0)
    checker = make(urls=[source])
    verdicts: list[Verdict] = []

    async def ask() -> None:
        verdicts.append(await checker.admit(MEMBER))

    async with trio.open_nursery() as nursery:
        with trio.move_on_after(1.0):
            async with trio.open_nursery() as first:
                first.start_soon(checker.admit, MEMBER)
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(ask)
    (verdict,) = verdicts
    assert verdict.admitted
    assert len(source.asked) == 1


@pytest.mark.slow
@pytest.mark.parametrize("size", [300, 3000])
async def test_no_number_of_strangers_changes_who_is_let_in(
    autojump_clock: Clock, make: Make, size: int
) -> None:
    """The server says no, in 60 ms and to one at a time, and URLs fail open."""
    server = Server(0.06, Parallel(1))
    server.members |= {MEMBER.key, STRANGER.key}
    checker = make(urls=[server], remember=0.0)
    assert await judged(checker, MEMBER) == (True, "url")
    verdicts: list[Verdict] = []
    begin = trio.current_time()

    async def knock(number: int) -> None:
        verdicts.append(await checker.admit(Question(number.to_bytes(32, "big"), "203.0.113.9")))

    async with trio.open_nursery() as nursery:
        for number in range(size):
            nursery.start_soon(knock, number)
        await trio.sleep(1.0)
        # Who was in lately gets in again, and so does who is new, from another network.
        assert await judged(checker, MEMBER) == (True, "url")
        assert await judged(checker, STRANGER) == (True, "url")
        assert trio.current_time() - begin <= 4.0
    assert len(verdicts) == size
    assert not any(verdict.admitted for verdict in verdicts)
    assert trio.current_time() - begin <= VERDICT_TIMEOUT


@pytest.mark.slow
@pytest.mark.parametrize("takes", [6.0, 12.0])
async def test_a_slow_url_lets_no_stranger_in_and_each_member_at_its_second_try(
    autojump_clock: Clock, make: Make, takes: float
) -> None:
    """URLs fail open, and all come at once, to a relay that has asked nobody yet."""
    server = Server(takes, Parallel())
    server.members |= {MEMBER.key}
    checker = make(urls=[server])
    verdicts: list[Verdict] = []
    tries: list[Verdict] = []

    async def knock(number: int) -> None:
        question = Question(number.to_bytes(32, "big"), f"203.0.113.{number}")
        for _ in range(6):
            verdicts.append(await checker.admit(question))
            await trio.sleep(1.0)

    async def insist() -> None:
        while not tries or not tries[-1].admitted:
            tries.append(await checker.admit(MEMBER))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(insist)
        for number in range(30):
            nursery.start_soon(knock, number)
    assert not any(verdict.admitted for verdict in verdicts)
    assert len(tries) <= 3
    assert tries[-1].authoritative
    for verdict in verdicts:
        if verdict.outcome is Outcome.SLOW:
            assert "find out why the server is slow" in verdict.reason


@pytest.mark.slow
async def test_who_came_in_before_an_url_was_known_to_be_slow_is_found_out(
    autojump_clock: Clock, make: Make
) -> None:
    server = Server(0.01, Parallel())
    checker = make(urls=[server], remember=0.0)
    await checker.admit(MEMBER)
    server.takes = 6.0
    # It has been quick just now, so it seems to be down.
    assert (await checker.admit(STRANGER)).failed_open
    await trio.sleep(UNVERIFIED_EVERY)
    verdict = await checker.recheck(STRANGER)
    assert (verdict.outcome, verdict.admitted) == (Outcome.REFUSED, False)


def crowd(nursery: trio.Nursery, checker: Checker, size: int = 1000) -> None:
    """Let so many strangers knock."""
    for number in range(size):
        nursery.start_soon(checker.admit, Question(number.to_bytes(32, "big"), "192.0.2.9"))


@pytest.mark.slow
@pytest.mark.parametrize("fail_open", [True, False])
async def test_a_source_that_is_down_is_so_for_all(
    autojump_clock: Clock, make: Make, fail_open: bool
) -> None:
    source = Source("url", Verdict(Outcome.LATE, "", "no answer in time"), takes=5.0)
    checker = make(urls=[source], fail_open=fail_open)
    async with trio.open_nursery() as nursery:
        crowd(nursery, checker)
        await trio.testing.wait_all_tasks_blocked()
        assert (await checker.admit(MEMBER)).admitted == fail_open
        assert trio.current_time() == 5.0
    assert len(source.asked) == 1


@pytest.mark.slow
async def test_what_a_crowd_is_refused_for_is_not_remembered(
    autojump_clock: Clock, make: Make
) -> None:
    source = Source("url", YES, takes=4.0)
    checker = make(urls=[source])
    async with trio.open_nursery() as nursery:
        crowd(nursery, checker)
        await trio.testing.wait_all_tasks_blocked()
        verdict = await checker.admit(MEMBER)
        assert trio.current_time() == VERDICT_TIMEOUT
        assert (verdict.admitted, verdict.authoritative) == (False, False)
    source.takes = 0.0
    assert await judged(checker) == (True, "url")


@pytest.mark.slow
@pytest.mark.parametrize("lately", [True, False])
async def test_who_was_in_lately_comes_before_a_crowd(
    autojump_clock: Clock, make: Make, lately: bool
) -> None:
    source = Source("tailscaled", YES)
    checker = make(tailscaleds=[source], remember=0.0)
    if lately:
        await checker.admit(MEMBER)
    source.takes = 1.5
    async with trio.open_nursery() as nursery:
        crowd(nursery, checker)
        await trio.sleep(0.5)
        begin = trio.current_time()
        assert (await checker.admit(attrs.evolve(MEMBER, address="192.0.2.9"))).admitted == lately
        assert trio.current_time() - begin <= (4.0 if lately else VERDICT_TIMEOUT)
        nursery.cancel_scope.cancel()


@pytest.mark.slow
async def test_who_is_connected_comes_before_a_crowd(autojump_clock: Clock, make: Make) -> None:
    source = Source("url", NO, takes=1.0)
    checker = make(urls=[source])
    async with trio.open_nursery() as nursery:
        crowd(nursery, checker)
        await trio.sleep(0.5)
        assert (await checker.recheck(attrs.evolve(MEMBER, address="192.0.2.9"))).authoritative
        assert trio.current_time() == 2.0
        nursery.cancel_scope.cancel()


@pytest.mark.slow
async def test_a_slow_source_leaves_room_at_the_others(autojump_clock: Clock, make: Make) -> None:
    checker = make(urls=[Source("slow", NO, takes=100.0), Source("fast", YES)])
    async with trio.open_nursery() as nursery:
        crowd(nursery, checker)
        await trio.testing.wait_all_tasks_blocked()
        assert await judged(checker) == (True, "fast")
        nursery.cancel_scope.cancel()


async def test_a_verdict_takes_no_longer_than_clients_wait(
    autojump_clock: Clock, make: Make
) -> None:
    checker = make(
        tailscaleds=[Source("tailscaled", YES, takes=5.0)], urls=[Source("url", YES, takes=5.0)]
    )
    verdict = await checker.admit(MEMBER)
    assert trio.current_time() == VERDICT_TIMEOUT
    assert (verdict.admitted, verdict.authoritative) == (False, False)


async def test_equal_questions_share_an_answer_that_is_not_remembered(
    autojump_clock: Clock, make: Make
) -> None:
    source = Source("url", takes=1.0)
    checker = make(urls=[source], remember=0.0)
    async with trio.open_nursery() as nursery:
        for _ in range(200):
            nursery.start_soon(checker.admit, MEMBER)
    assert len(source.asked) == 1


async def test_of_two_questions_the_later_one_counts(autojump_clock: Clock, make: Make) -> None:
    source = Source("tailscaled", YES)
    checker = make(tailscaleds=[source])
    await checker.admit(STRANGER)
    source.takes = 3.0
    verdicts: list[Verdict] = []

    async def admit() -> None:
        verdicts.append(await checker.admit(MEMBER))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(admit)
        await trio.sleep(1.0)
        # Removed meanwhile; the answer to the first question was on its way.
        later = Source("tailscaled", NO, takes=0.5)
        source.ask = later.ask  # type: ignore[method-assign]
        assert not (await checker.recheck(MEMBER)).admitted
    assert [verdict.admitted for verdict in verdicts] == [False]
    assert not (await checker.admit(MEMBER)).admitted


async def test_a_verdict_from_before_a_change_is_not_remembered_after_it(
    autojump_clock: Clock, make: Make
) -> None:
    source = Source("tailscaled", NO, takes=3.0)
    checker = make(tailscaleds=[source])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(checker.admit, MEMBER)
        await trio.sleep(1.0)
        checker.forget()
        source.answer, source.takes = YES, 0.0
        await trio.sleep(5.0)
    assert (await checker.admit(MEMBER)).admitted


async def test_who_has_just_been_listed_need_not_wait_for_an_old_refusal(make: Make) -> None:
    checker = make(listed=True, tailscaleds=[Source("tailscaled", NO)])
    assert await judged(checker, STRANGER) == (False, "tailscaled")
    assert checker.sources.allowlist is not None
    checker.sources.allowlist.keys = {STRANGER.key: ""}
    assert await judged(checker, STRANGER) == (True, "file")


async def test_an_outage_takes_nothing_from_who_was_admitted(
    autojump_clock: Clock, make: Make
) -> None:
    source = Source("tailscaled", YES)
    checker = make(tailscaleds=[source], remember=3600.0)
    await checker.admit(MEMBER)
    source.answer = LOST
    assert not (await checker.recheck(MEMBER)).authoritative
    assert (await checker.admit(MEMBER)).admitted


@pytest.mark.parametrize("lost", [Outcome.UNREACHABLE, Outcome.LATE, Outcome.UNKNOWN])
@pytest.mark.parametrize("asked", ["tailscaled", "url"])
async def test_who_was_refused_unasked_is_in_once_there_is_somebody_to_ask(
    autojump_clock: Clock, make: Make, asked: str, lost: Outcome
) -> None:
    source = Source(asked, attrs.evolve(LOST, outcome=lost))
    parts = {"tailscaleds" if asked == "tailscaled" else "urls": [source]}
    checker = make(**parts, fail_open=False)
    assert await judged(checker) == (False, asked)
    source.answer = YES
    assert await judged(checker) == (True, asked)


async def test_who_was_admitted_unasked_is_remembered(autojump_clock: Clock, make: Make) -> None:
    source = Source("url", LOST)
    checker = make(urls=[source])
    assert await judged(checker) == (True, "url")
    assert await judged(checker) == (True, "url")
    assert len(source.asked) == 1


async def test_a_refusal_counts_at_all_addresses(make: Make) -> None:
    source = Source("tailscaled", YES)
    checker = make(tailscaleds=[source])
    elsewhere = Question(MEMBER.key, "2001:db8::1")
    await checker.admit(MEMBER)
    await checker.admit(elsewhere)
    source.answer = NO
    await checker.recheck(MEMBER)
    assert not (await checker.admit(elsewhere)).admitted


async def test_asking_about_nobody_shows_trouble(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    await make(tailscaleds=[Source("tailscaled", LOST)]).probe()
    assert len(caplog.records) == 1
    await make(urls=[Source("url", LOST)]).probe()
    assert len(caplog.records) == 1


@pytest.mark.slow
async def test_the_file_needs_no_room(autojump_clock: Clock, make: Make) -> None:
    checker = make(listed=True, urls=[Source("url", takes=100.0)])
    async with trio.open_nursery() as nursery:
        crowd(nursery, checker)
        await trio.testing.wait_all_tasks_blocked()
        assert await judged(checker) == (True, "file")
        assert trio.current_time() == 0.0
        nursery.cancel_scope.cancel()


async def test_everything_is_counted(make: Make, metrics: Metrics) -> None:
    checker = make(listed=True, tailscaleds=[Source("tailscaled")], urls=[Source("url", LOST)])
    await checker.admit(MEMBER)
    await checker.admit(STRANGER)
    await checker.admit(STRANGER)
    assert metrics.admissions == {
        ("file", "allowed"): 1,
        ("tailscaled", "allowed"): 1,
        ("url", "unreachable"): 1,
    }
    assert metrics.admission_verdicts == {
        "allowed": 1,
        "failed_open": 1,
        "remembered_failed_open": 1,
    }


async def test_trouble_is_told_once_a_minute(
    autojump_clock: Clock, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    source = Source("tailscaled", LOST)
    checker = make(tailscaleds=[source], remember=0.0)
    for _ in range(125):
        await checker.admit(MEMBER)
        await trio.sleep(1.0)
    assert [record.getMessage() for record in caplog.records] == [
        "can't verify clients, so they are refused"
    ] * 3
    assert checker.troubles == {"tailscaled": LOST.reason}
    source.answer = YES
    await checker.admit(MEMBER)
    assert checker.troubles == {}


async def test_trouble_that_changes_is_told_sooner_but_not_each_time(
    autojump_clock: Clock, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    source = Source("tailscaled", LOST)
    checker = make(tailscaleds=[source], remember=0.0)
    for number in range(100):
        source.answer = Verdict(Outcome.UNKNOWN, "", f"cause {number % 2}")
        await checker.admit(MEMBER)
        await trio.sleep(NEW_TROUBLE_EVERY / 10)
    assert 8 <= len(caplog.records) <= 11


async def test_failing_open_is_told(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    await make(urls=[Source("url", LOST)]).admit(MEMBER)
    (record,) = caplog.records
    assert record.getMessage() == "can't verify clients, so they are admitted"
