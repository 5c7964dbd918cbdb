"""Crowds before servers that are slow, silent or down, on a clock that jumps.

Whatever strangers do, they don't bring about an outcome that may fail open.
"""

import math
import random
from collections import Counter
from collections.abc import Callable
from typing import Final

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from derp.admission.asker import MAX_LINGERING, Asker
from derp.admission.checker import VERDICT_TIMEOUT
from derp.admission.limiter import (
    AMPLE,
    MAX_LIMIT,
    OVERDUE,
    QUICK,
    RESERVED,
    SLOW_FOR,
    STALE,
)
from derp.admission.model import LATEST_ANSWER, UNAVAILABLE, Outcome, Question, Verdict
from tests.admission.servers import NO, UNREACHABLE, YES, Parallel, Server, Sharing, Work
from tests.support.examples import examples

pytestmark = pytest.mark.slow

Clock = trio.testing.MockClock

IN_TIME: Final = VERDICT_TIMEOUT
MEMBER: Final = Question(b"m" * 32, "198.51.100.1")


def stranger(number: int, network: int = 0) -> Question:
    return Question(number.to_bytes(32, "big"), f"10.0.{network}.{number % 250}")


@attrs.frozen
class Told:
    """What somebody was told, and when."""

    question: Question
    outcome: Outcome
    asked: float
    told: float

    @property
    def took(self) -> float:
        return self.told - self.asked


class Door:
    """Where people come with questions."""

    def __init__(self, server: Server, nursery: trio.Nursery) -> None:
        self.server = server
        self.asker = Asker(server)
        self.asker.nursery = nursery
        self.told: list[Told] = []

    async def ask(self, question: Question, *, priority: bool = False) -> Told:
        asked = trio.current_time()
        answer = await self.asker.ask(question, asked + IN_TIME, priority=priority)
        told = Told(question, answer.outcome, asked, trio.current_time())
        self.told.append(told)
        return told

    async def come(self, at: float, question: Question, priority: bool = False) -> None:
        await trio.sleep_until(at)
        await self.ask(question, priority=priority)

    def crowd(self, nursery: trio.Nursery, size: int, network: int = 0, start: int = 0) -> None:
        for number in range(start, start + size):
            nursery.start_soon(self.ask, stranger(number, network))

    def outcomes(self) -> Counter[Outcome]:
        return Counter(told.outcome for told in self.told)


OpenDoor = Callable[[Server], Door]


@pytest.fixture
def open_door(nursery: trio.Nursery) -> OpenDoor:
    """Questions go on in a nursery of their own, after those who came with them have left."""
    return lambda server: Door(server, nursery)


@pytest.mark.parametrize("size", [300, 3000])
@pytest.mark.parametrize("work", [Parallel, Sharing])
async def test_a_crowd_at_a_server_with_one_worker(
    autojump_clock: Clock, open_door: OpenDoor, size: int, work: Callable[..., Work]
) -> None:
    """The server refuses, in 60 ms, one at a time, or all at once and the slower."""
    server = Server(0.06, work() if work is Sharing else Parallel(1))
    door = open_door(server)
    async with trio.open_nursery() as nursery:
        door.crowd(nursery, size)
    found = door.outcomes()
    assert set(found) == {Outcome.REFUSED, Outcome.NO_ROOM}
    # It is asked as much as it can take, and not more.
    assert found[Outcome.REFUSED] >= 50
    assert server.most <= MAX_LIMIT
    assert all(told.took <= IN_TIME for told in door.told)


async def test_a_crowd_that_does_not_stop(autojump_clock: Clock, open_door: OpenDoor) -> None:
    door = open_door(Server(0.06, Parallel(1)))
    async with trio.open_nursery() as nursery:
        for number in range(3000):
            nursery.start_soon(door.come, number / 50, stranger(number))
    found = door.outcomes()
    assert set(found) == {Outcome.REFUSED, Outcome.NO_ROOM}
    assert found[Outcome.REFUSED] >= 0.9 * 60 / 0.06


@settings(max_examples=examples(40))
@given(
    takes=st.floats(math.log(0.001), math.log(LATEST_ANSWER / 2)).map(math.exp),
    work=st.sampled_from([lambda: Parallel(1), lambda: Parallel(3), Parallel, Sharing]),
    bursts=st.lists(
        st.tuples(st.floats(0, 60), st.integers(1, 150), st.sampled_from([0.0, 0.1, 3.0, 20.0])),
        min_size=1,
        max_size=5,
    ),
    seed=st.integers(0, 1 << 32),
)
def test_no_crowd_makes_a_server_that_lives_look_dead(
    takes: float, work: Callable[[], Work], bursts: list[tuple[float, int, float]], seed: int
) -> None:
    chance = random.Random(seed)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            door = Door(Server(takes, work()), nursery)
            for start, size, seconds in bursts:
                for number in range(size):
                    at = start + chance.uniform(0, seconds)
                    question = stranger(chance.randrange(1 << 64), number % 3)
                    nursery.start_soon(door.come, at, question, chance.random() < 0.1)
        assert not {*UNAVAILABLE} & set(door.outcomes())

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@pytest.mark.parametrize("size", [1, 2, 300, 3000])
@pytest.mark.parametrize("was_there", [True, False])
async def test_a_silent_server_may_be_slow_and_is_down_only_after_long(
    autojump_clock: Clock, open_door: OpenDoor, size: int, was_there: bool
) -> None:
    """Whether it has never answered, or not for a while."""
    server = Server(0.01)
    door = open_door(server)
    if was_there:
        await door.ask(MEMBER)
        await trio.sleep(STALE)
    server.is_silent = True
    begin = trio.current_time()
    for is_down in (False, True):
        door.told.clear()
        async with trio.open_nursery() as nursery:
            for number in range(size):
                at = trio.current_time() + 4.0 * number / size
                nursery.start_soon(door.come, at, stranger(number))
        assert door.outcomes() == {Outcome.LATE if is_down else Outcome.SLOW: size}
        most = OVERDUE if is_down else IN_TIME
        assert max(told.took for told in door.told) <= most + 0.001
        await trio.sleep_until(begin + LATEST_ANSWER)


@pytest.mark.parametrize("seconds", [0.0, 30.0])
async def test_a_server_falls_silent(
    autojump_clock: Clock, open_door: OpenDoor, seconds: float
) -> None:
    """Not long after an answer in time, it is down soon."""
    server = Server(0.01)
    door = open_door(server)
    await door.ask(stranger(0))
    await trio.sleep(1.0)
    server.is_silent = True
    begin = trio.current_time()
    async with trio.open_nursery() as nursery:
        for number in range(1, 600):
            nursery.start_soon(door.come, begin + seconds * number / 600, stranger(number))
    assert {told.outcome for told in door.told[1:]} == {Outcome.LATE}
    assert all(told.took <= 8.5 for told in door.told)


@pytest.mark.parametrize(
    ("takes", "work"),
    [
        *((6.0, work) for work in (lambda: Parallel(1), lambda: Parallel(4), Parallel, Sharing)),
        *((12.0, work) for work in (lambda: Parallel(4), Parallel)),
    ],
)
async def test_a_slow_server_is_reachable_however_many_come(
    autojump_clock: Clock, open_door: OpenDoor, takes: float, work: Callable[[], Work]
) -> None:
    """Strangers don't stop coming; the member, from elsewhere, comes again when refused."""
    server = Server(takes, work())
    server.members.add(MEMBER.key)
    door = open_door(server)
    tries = []

    async def insist() -> None:
        while not tries or tries[-1].outcome is not Outcome.ALLOWED:
            tries.append(await door.ask(MEMBER))
            await trio.sleep(1.0)

    async with trio.open_nursery() as nursery:
        for number in range(600):
            nursery.start_soon(door.come, number / 5, stranger(number % 30))
        await trio.sleep(3.0)
        nursery.start_soon(insist)
    assert set(door.outcomes()) <= {Outcome.SLOW, Outcome.NO_ROOM, *(NO.outcome, YES.outcome)}
    assert len(tries) <= 8, [told.told for told in tries]
    assert server.most <= MAX_LIMIT + RESERVED + MAX_LINGERING


async def test_who_was_alone_gets_a_late_answer_with_the_next_try(
    autojump_clock: Clock, open_door: OpenDoor
) -> None:
    server = Server(IN_TIME + 5.0)
    server.members.add(MEMBER.key)
    door = open_door(server)
    assert (await door.ask(MEMBER)).outcome is Outcome.SLOW
    # The same question waits for the same answer.
    assert (await door.ask(MEMBER)).outcome is Outcome.ALLOWED
    assert trio.current_time() == IN_TIME + 5.0
    # Whoever comes once it is there need not wait; then it has been given.
    assert (await door.ask(stranger(1))).outcome is Outcome.SLOW
    await trio.sleep(6.0)
    told = await door.ask(stranger(1))
    assert (told.outcome, told.took) == (Outcome.REFUSED, 0.0)
    assert len(server.asked) == 2
    assert (await door.ask(stranger(1))).outcome is Outcome.SLOW


@pytest.mark.parametrize("size", [2, 30, 300])
async def test_a_server_that_gets_slow_lets_no_crowd_through(
    autojump_clock: Clock, open_door: OpenDoor, size: int
) -> None:
    """The answers to what was asked first come before its silence counts."""
    server = Server(0.01, Parallel())
    door = open_door(server)
    async with trio.open_nursery() as nursery:
        door.crowd(nursery, 50, start=1000)
    server.takes = 6.0
    async with trio.open_nursery() as nursery:
        door.crowd(nursery, size)
        await trio.sleep(20.0)
        door.crowd(nursery, size, start=500)
    assert not {*UNAVAILABLE} & set(door.outcomes())


async def test_that_a_server_is_slow_is_noticed_late_and_kept_in_mind(
    autojump_clock: Clock, open_door: OpenDoor
) -> None:
    """It has answered just now, so no answer in time means that it is down, until one comes."""
    server = Server(0.01, Parallel())
    door = open_door(server)
    await door.ask(MEMBER)
    server.takes = 6.0
    assert (await door.ask(stranger(1))).outcome is Outcome.LATE
    await trio.sleep(1.0)
    told = await door.ask(stranger(1))
    assert (told.outcome, told.took) == (Outcome.REFUSED, 0.0)
    for number in range(2, 20):
        server.takes = 0.01 if number % 2 else 6.0
        assert (await door.ask(stranger(number))).outcome is Outcome.REFUSED
    await trio.sleep(SLOW_FOR)
    server.takes = 0.01
    await door.ask(MEMBER)
    server.is_silent = True
    assert (await door.ask(stranger(1))).outcome is Outcome.LATE


async def test_a_question_without_an_answer_blocks_no_others(
    autojump_clock: Clock, open_door: OpenDoor
) -> None:
    class Odd(Server):
        async def ask(self, question: Question) -> Verdict:
            await trio.sleep(math.inf if question == stranger(0) else 0.0)
            return await super().ask(question)

    door = open_door(Odd(0.01, Parallel()))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(door.ask, stranger(0))
        await trio.sleep(2.0)
        told = await door.ask(stranger(1))
        assert (told.outcome, told.told) == (Outcome.REFUSED, pytest.approx(OVERDUE + 0.01))
        for number in range(2, 60):
            assert (await door.ask(stranger(number))).outcome is Outcome.REFUSED
            await trio.sleep(1.0)
    assert door.outcomes() == {Outcome.REFUSED: 59, Outcome.SLOW: 1}


async def test_a_bug_in_a_source_ends_the_question_only(
    autojump_clock: Clock, open_door: OpenDoor, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server(0.01, Parallel())

    def fail() -> Verdict:
        raise RuntimeError("oh no")

    for number in range(50):
        server.special[stranger(number).key] = fail
    door = open_door(server)
    async with trio.open_nursery() as nursery:
        door.crowd(nursery, 100)
    assert door.outcomes() == {Outcome.NO_ROOM: 50, Outcome.REFUSED: 50}
    (record,) = caplog.records
    assert record.exc_info is not None


async def test_what_lingers_is_bounded(autojump_clock: Clock, open_door: OpenDoor) -> None:
    server = Server(0.01, Parallel())
    door = open_door(server)
    async with trio.open_nursery() as nursery:
        door.crowd(nursery, 500)
    server.is_silent = True
    async with trio.open_nursery() as nursery:
        door.crowd(nursery, 200, start=1000)
    assert 1 < server.under_way <= MAX_LINGERING
    await trio.sleep(LATEST_ANSWER)
    assert server.under_way == 0


async def test_a_server_falls_silent_in_the_middle_of_a_crowd(
    autojump_clock: Clock, open_door: OpenDoor
) -> None:
    """Those who come as it does may be refused; from some seconds later on nobody is."""
    server = Server(0.06, Parallel(1))
    door = open_door(server)
    async with trio.open_nursery() as nursery:
        for number in range(2000):
            nursery.start_soon(door.come, number / 50, stranger(number))
        await trio.sleep(10.0)
        server.is_silent = True
    for told in door.told:
        if told.asked >= 15.0:
            assert told.outcome is Outcome.LATE
        elif told.told <= 10.0:
            assert told.outcome in {Outcome.REFUSED, Outcome.NO_ROOM}


@pytest.mark.parametrize("size", [1, 300, 3000])
async def test_where_nobody_listens_all_are_told_at_once(
    autojump_clock: Clock, open_door: OpenDoor, size: int
) -> None:
    server = Server(0.01)
    server.is_down = True
    door = open_door(server)
    async with trio.open_nursery() as nursery:
        door.crowd(nursery, size)
    assert door.outcomes() == {Outcome.UNREACHABLE: size}
    assert trio.current_time() == 0.0


async def test_a_server_goes_down_and_comes_back_among_a_crowd(
    autojump_clock: Clock, open_door: OpenDoor
) -> None:
    server = Server(0.06, Parallel(1))
    door = open_door(server)
    async with trio.open_nursery() as nursery:
        for number in range(3000):
            nursery.start_soon(door.come, number / 100, stranger(number))
        await trio.sleep(10.0)
        server.is_down = True
        await trio.sleep(10.0)
        server.is_down = False
    for told in door.told:
        if told.outcome is Outcome.UNREACHABLE:
            assert 10.0 <= told.told <= 20.0
        elif told.outcome is Outcome.REFUSED:
            assert not 11.5 <= told.told <= 20.0
    assert door.outcomes()[Outcome.UNREACHABLE] > 700


async def test_connections_that_fail_now_and_then_under_load_are_no_outage(
    autojump_clock: Clock, open_door: OpenDoor
) -> None:
    """As before a server that takes so many connections at a time."""
    server = Server(0.06, Parallel(4))

    class Full(Server):
        async def ask(self, question: Question) -> Verdict:
            if self.under_way >= 8:
                await trio.lowlevel.checkpoint()
                return UNREACHABLE
            return await super().ask(question)

    server = Full(0.06, Parallel(4))
    door = open_door(server)
    async with trio.open_nursery() as nursery:
        door.crowd(nursery, 1000)
    found = door.outcomes()
    assert set(found) == {Outcome.REFUSED, Outcome.NO_ROOM}
    assert found[Outcome.REFUSED] >= 50


async def test_a_question_that_the_server_hangs_up_on_is_asked_again_alone(
    autojump_clock: Clock, open_door: OpenDoor
) -> None:
    nonsense = Verdict(Outcome.UNKNOWN, "url", "hung up")
    server = Server(0.01)
    for number in range(0, 100, 10):
        server.special[stranger(number).key] = lambda: nonsense
    door = open_door(server)
    async with trio.open_nursery() as nursery:
        door.crowd(nursery, 100)
    for told in door.told:
        is_special = told.question.key in server.special
        assert told.outcome is (Outcome.UNKNOWN if is_special else Outcome.REFUSED)


async def test_a_server_that_answers_late_but_all_at_once_is_no_outage(
    autojump_clock: Clock, open_door: OpenDoor
) -> None:
    door = open_door(Server(4.0, Parallel()))
    async with trio.open_nursery() as nursery:
        for number in range(3000):
            nursery.start_soon(door.come, number / 100, stranger(number))
        await trio.sleep(20.0)
        told = await door.ask(MEMBER, priority=True)
        assert (told.outcome, told.took) == (Outcome.REFUSED, 4.0)
    assert not {*UNAVAILABLE} & set(door.outcomes())
    assert door.outcomes()[Outcome.REFUSED] >= 50


async def test_priority_is_not_behind_a_crowd(autojump_clock: Clock, open_door: OpenDoor) -> None:
    door = open_door(Server(0.06, Parallel(1)))
    async with trio.open_nursery() as nursery:
        for number in range(3000):
            nursery.start_soon(door.come, number / 150, stranger(number))
        await trio.sleep(5.0)
        for number in range(50):
            await trio.sleep(0.1)
            told = await door.ask(attrs.evolve(MEMBER, address="10.0.0.1"), priority=True)
            assert told.outcome is Outcome.REFUSED
            assert told.took <= 2.0, number


async def test_a_newcomer_is_not_behind_a_crowd_of_another_network(
    autojump_clock: Clock, open_door: OpenDoor
) -> None:
    server = Server(0.06, Parallel(1))
    server.members.add(MEMBER.key)
    door = open_door(server)
    async with trio.open_nursery() as nursery:
        for number in range(3000):
            nursery.start_soon(door.come, number / 150, stranger(number, number % 2))
        await trio.sleep(5.0)
        for _ in range(20):
            told = await door.ask(MEMBER)
            assert told.outcome is Outcome.ALLOWED
            assert told.took <= 2.0


async def test_one_that_takes_long_while_others_do_not_gets_its_answer(
    autojump_clock: Clock, open_door: OpenDoor
) -> None:
    class Odd(Server):
        async def ask(self, question: Question) -> Verdict:
            await trio.sleep(3.0 if question == MEMBER else 0.0)
            return await super().ask(question)

    door = open_door(Odd(0.1, Parallel()))
    async with trio.open_nursery() as nursery:
        for number in range(500):
            nursery.start_soon(door.come, number / 50, stranger(number))
        await trio.sleep(1.0)
        told = await door.ask(MEMBER)
    assert (told.outcome, told.took) == (Outcome.REFUSED, pytest.approx(3.1, abs=0.2))


async def test_who_goes_away_leaves_its_turn_to_others(
    autojump_clock: Clock, open_door: OpenDoor
) -> None:
    server = Server(0.5, Parallel())
    door = open_door(server)
    async with trio.open_nursery() as nursery:
        with trio.move_on_after(0.2):
            async with trio.open_nursery() as gone:
                door.crowd(gone, 10)
                await trio.testing.wait_all_tasks_blocked()
                door.crowd(nursery, 1, start=10)
    assert [(told.question, told.outcome) for told in door.told] == [
        (stranger(10), Outcome.REFUSED)
    ]
    await trio.sleep(1.0)
    assert not door.asker._limiter.in_flight
    assert len(server.asked) == server.under_way + 2 == 2


async def test_of_questions_recalled_none_is_answered_twice(
    autojump_clock: Clock, open_door: OpenDoor
) -> None:
    """All time out at the same moment; only the one that is then alone speaks for them."""
    server = Server(0.01, Parallel())
    door = open_door(server)
    await door.ask(MEMBER)
    door.told.clear()
    server.is_silent = True
    begin = trio.current_time()
    async with trio.open_nursery() as nursery:
        door.crowd(nursery, 20)
        await trio.sleep(1.0)
        door.crowd(nursery, 20, start=100)
    early, later = (
        Counter(told.outcome for told in door.told if (told.asked == begin) is first)
        for first in (True, False)
    )
    assert early == {Outcome.LATE: 20}
    assert later == {Outcome.LATE: 20}
    assert len(door.told) == 40


async def test_one_that_is_recalled_before_it_comes_to_ask(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    """Two come to an end at the same moment: one makes room for a third, one recalls that."""
    silent, ours, third = (stranger(number, number) for number in (1, 2, 3))
    asked: Counter[Question] = Counter()

    class Source:
        name = "url"

        async def ask(self, question: Question) -> Verdict:
            asked[question] += 1
            assert question.network in {turn.network for turn in asker._limiter.in_flight}
            if question == silent and asked[question] == 1:
                await trio.sleep_forever()
            await trio.sleep(AMPLE * QUICK if question == ours else 0.01)
            return Verdict(Outcome.NO_ROOM, self.name) if question == ours else NO

    for _ in range(20):
        asker = Asker(Source())
        asker.nursery = nursery
        outcomes = {}

        async def ask(question: Question, asker: Asker = asker) -> None:
            deadline = trio.current_time() + IN_TIME
            answer = await asker.ask(question, deadline, priority=False)
            outcomes[question] = answer.outcome  # noqa: B023 -- read before the next round

        await ask(MEMBER)
        asked.clear()
        async with trio.open_nursery() as clients:
            for question in (ours, silent, third):
                clients.start_soon(ask, question)
                await trio.testing.wait_all_tasks_blocked()
        assert outcomes[ours] is Outcome.NO_ROOM
        assert outcomes[silent] is outcomes[third] is Outcome.REFUSED
        # Where the recall comes first, it is about that one, too.
        assert asked[ours] in {1, 2}
        assert (asked[silent], asked[third]) == (2, 1)
        assert not asker._limiter.in_flight


async def test_no_more_side_by_side_than_that(autojump_clock: Clock, open_door: OpenDoor) -> None:
    server = Server(0.01, Parallel())
    door = open_door(server)
    async with trio.open_nursery() as nursery:
        door.crowd(nursery, 5000)
        await trio.sleep(0.5)
        for number in range(100):
            nursery.start_soon(door.come, 0.5, stranger(number, 1), True)
    assert server.most == MAX_LIMIT + RESERVED
    assert door.outcomes()[Outcome.REFUSED] >= 0.8 * 5100


def test_what_servers_here_take() -> None:
    """Three questions of a second at once, and what each kind of server makes of them."""
    done: dict[str, list[float]] = {}

    async def ask(name: str, work: Work) -> None:
        await work.done(1.0)
        done.setdefault(name, []).append(round(trio.current_time(), 3))

    async def main() -> None:
        kinds = {"one": Parallel(1), "two": Parallel(2), "all": Parallel(), "shared": Sharing()}
        async with trio.open_nursery() as nursery:
            for name, work in kinds.items():
                for _ in range(3):
                    nursery.start_soon(ask, name, work)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert done == {
        "one": [1.0, 2.0, 3.0],
        "two": [1.0, 1.0, 2.0],
        "all": [1.0, 1.0, 1.0],
        "shared": [3.0, 3.0, 3.0],
    }
    assert NO.outcome is Outcome.REFUSED
