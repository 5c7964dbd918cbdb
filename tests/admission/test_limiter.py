"""Which question is asked when, and what follows if it fails: turns in, fates out."""

import pytest

from derp.admission.limiter import (
    MAX_LIMIT,
    MAX_PAUSE,
    OVERDUE,
    RESERVED,
    SLOW_FOR,
    STALE,
    Fate,
    Limiter,
    Turn,
)
from derp.admission.model import LATEST_ANSWER, Outcome

YES, NO = Outcome.ALLOWED, Outcome.REFUSED
LATE, UNREACHABLE, UNKNOWN = Outcome.LATE, Outcome.UNREACHABLE, Outcome.UNKNOWN


class Played:
    """A limiter, with a crowd that waits."""

    def __init__(self, size: int = 200) -> None:
        self.limiter = Limiter[Turn]()
        self.now = 100.0
        self.crowd(size)

    def crowd(self, size: int, network: str = "crowd", *, priority: bool = False) -> list[Turn]:
        turns = [Turn(network, self.now + 1000.0, priority) for _ in range(size)]
        for turn in turns:
            self.limiter.add(turn)
        return turns

    def begin(self) -> list[Turn]:
        """All that there is room for."""
        begun = []
        while (turn := self.limiter.next(self.now)) is not None:
            begun.append(turn)
        return begun

    def end(self, turn: Turn, outcome: Outcome, after: float = 0.0) -> Fate:
        self.now = max(self.now, turn.begins + after)
        return self.limiter.ended(turn, outcome, self.now)

    def answered(self, size: int, after: float = 0.01) -> list[Turn]:
        """Answer, until `size` are under way."""
        in_flight = self.begin()
        for _ in range(10 * MAX_LIMIT):
            if len(in_flight) >= size:
                return in_flight
            assert self.end(in_flight.pop(0), NO, after) is Fate.FINAL
            in_flight += self.begin()
        raise AssertionError(len(in_flight))


@pytest.fixture
def played() -> Played:
    return Played()


def test_the_first_is_alone_until_it_is_answered(played: Played) -> None:
    (first,) = played.begin()
    assert first.alone
    played.end(first, YES, 0.01)
    assert len(played.begin()) == 2


def test_quick_answers_widen_the_limit_up_to_a_bound() -> None:
    played = Played(5000)
    in_flight = played.answered(MAX_LIMIT)
    for _ in range(200):
        played.end(in_flight.pop(0), NO, 0.01)
        in_flight += played.begin()
    assert len(in_flight) == MAX_LIMIT


def test_who_does_not_use_the_limit_does_not_widen_it() -> None:
    played = Played(0)
    for _ in range(100):
        (turn,) = (played.crowd(1), played.begin())[1]
        played.end(turn, NO, 0.01)
    assert played.limiter.limit == 2


def test_slow_answers_narrow_it_once_for_all_that_was_asked_before(played: Played) -> None:
    in_flight = played.answered(12)
    for turn in in_flight[:8]:
        played.end(turn, NO, 2.0)
    assert played.limiter.limit == 9


def test_what_is_slow_depends_on_how_long_one_takes_alone(played: Played) -> None:
    (first,) = played.begin()
    played.end(first, NO, 3.0)
    for turn in played.begin():
        played.end(turn, NO, 3.0)
    assert played.limiter.limit == 3


def test_the_limit_begins_anew_when_nothing_was_heard_for_long(played: Played) -> None:
    for turn in played.answered(12):
        played.end(turn, NO, 0.01)
    played.now += STALE
    (turn,) = played.begin()
    assert turn.alone
    played.end(turn, NO, 0.01)
    assert len(played.begin()) == 2


@pytest.mark.parametrize("outcome", [LATE, UNREACHABLE])
def test_one_that_fails_alone_speaks_for_all_who_wait(played: Played, outcome: Outcome) -> None:
    (first,) = played.begin()
    assert played.end(first, outcome, 5.0) is Fate.DOWN
    assert len(played.limiter.take_waiting()) == 199
    assert played.begin() == []
    played.crowd(10)
    assert len(played.begin()) == 1


def test_how_long_a_source_has_depends_on_what_is_known_of_it() -> None:
    played = Played(0)
    limiter = played.limiter

    def end(outcome: Outcome, after: float) -> Fate:
        (turn,) = (played.crowd(1), played.begin())[1]
        assert limiter.time_for(turn, played.now) == limiter.patience(played.now)
        return played.end(turn, outcome, after)

    assert limiter.patience(played.now) == LATEST_ANSWER
    end(NO, 0.01)
    assert limiter.patience(played.now) == OVERDUE
    assert limiter.patience(played.now + STALE) == LATEST_ANSWER
    # One that is silent is, until something is heard of it.
    assert end(LATE, OVERDUE) is Fate.DOWN
    assert limiter.patience(played.now + 1000.0) == OVERDUE
    limiter.answered_late(played.now - 6.0, played.now, alone=True)
    assert limiter.patience(played.now) == LATEST_ANSWER
    # That it was slow counts for long, whatever comes in time meanwhile.
    end(NO, 0.01)
    assert limiter.patience(played.now) == LATEST_ANSWER
    played.now += SLOW_FOR
    end(NO, 0.01)
    assert limiter.patience(played.now) == OVERDUE
    # One that was down may be slow when it is back.
    assert end(UNREACHABLE, 0.01) is Fate.DOWN
    assert limiter.patience(played.now) == LATEST_ANSWER
    end(YES, OVERDUE)
    played.now += STALE
    assert limiter.patience(played.now) == LATEST_ANSWER


def test_beside_one_that_is_overdue_another_is_asked(played: Played) -> None:
    (first,) = played.begin()
    played.now += OVERDUE
    (second,) = played.begin()
    assert (first.alone, second.alone) == (True, False)
    assert played.limiter.time_for(second, played.now) == LATEST_ANSWER
    assert played.end(second, NO, 0.01) is Fate.FINAL
    # The source lives, so that one without an answer speaks for itself.
    assert played.end(first, LATE, LATEST_ANSWER) is Fate.OVERLOADED


def test_a_late_answer_shows_that_the_source_lives(played: Played) -> None:
    (first,) = played.begin()
    played.limiter.answered_late(played.now - 40.0, played.now + 1.0, alone=False)
    assert played.end(first, LATE, LATEST_ANSWER) is Fate.OVERLOADED


def test_a_slow_source_is_asked_as_much_as_it_can_take(played: Played) -> None:
    (first,) = played.begin()
    played.end(first, NO, 12.0)
    for size in (2, 3, 4):
        in_flight = played.begin()
        assert len(in_flight) == size
        for turn in in_flight:
            assert played.limiter.time_for(turn, played.now) == 24.0
            played.end(turn, NO, 12.0)


def test_who_comes_too_late_to_be_asked_is_told_with_the_others(played: Played) -> None:
    (first,) = played.begin()
    late = Turn("late", played.now + 5.0)
    played.limiter.add(late)
    played.end(first, NO, 3.0)
    assert late not in played.begin()
    assert late in played.limiter.take_waiting()


@pytest.mark.parametrize(
    ("alone", "left", "begins"), [(0.1, 2.1, True), (0.1, 1.9, False), (4.0, 4.9, False)]
)
def test_too_late_is_when_an_answer_may_well_come_after_the_end(
    played: Played, alone: float, left: float, begins: bool
) -> None:
    (first,) = played.begin()
    played.end(first, NO, alone)
    turn = Turn("another", played.now + left)
    played.limiter.add(turn)
    assert (turn in played.begin()) is begins


def test_who_has_left_is_not_told(played: Played) -> None:
    too_late, waiting = Turn("a", played.now + 1.0), Turn("b", played.now + 1000.0)
    for turn in (too_late, waiting):
        played.limiter.add(turn)
    played.begin()
    for turn in (too_late, waiting):
        played.limiter.remove(turn, played.now)
    assert not {too_late, waiting} & set(played.limiter.take_waiting())


def test_nonsense_alone_speaks_for_itself(played: Played) -> None:
    (first,) = played.begin()
    assert played.end(first, UNKNOWN, 0.01) is Fate.FINAL
    assert [turn.alone for turn in played.begin()] == [True]


def test_no_room_of_our_own_says_nothing_of_the_source(played: Played) -> None:
    in_flight = played.answered(12)
    limit = played.limiter.limit
    for turn in in_flight:
        assert played.end(turn, Outcome.NO_ROOM, 0.0) is Fate.FINAL
    assert len(played.begin()) == limit


def test_no_answer_while_others_get_theirs_is_overload(played: Played) -> None:
    late, *others = played.answered(12)
    played.end(others.pop(), NO, 0.5)
    assert played.end(late, LATE, 5.0) is Fate.OVERLOADED
    # None is asked beside those; then one, alone.
    assert played.begin() == []
    for turn in others:
        played.end(turn, NO, 5.0)
    assert [turn.alone for turn in played.begin()] == [True]


def test_no_answer_and_nobody_else_gets_one_is_asked_again_alone(played: Played) -> None:
    *others, late = played.answered(12)
    assert played.end(late, LATE, 5.0) is Fate.ALL_AGAIN
    assert set(played.limiter.recall_all(played.now)) == set(others)
    (turn,) = played.begin()
    assert turn.alone
    assert played.end(turn, LATE, 5.0) is Fate.DOWN


@pytest.mark.parametrize("outcome", [UNREACHABLE, UNKNOWN])
def test_what_fails_beside_others_is_the_next_that_is_asked_alone(
    played: Played, outcome: Outcome
) -> None:
    failed, *others = played.answered(12)
    played.crowd(10, "priority", priority=True)
    assert played.end(failed, outcome) is Fate.AGAIN
    for turn in others:
        assert played.begin() == []
        played.end(turn, NO, 0.01)
    assert played.begin() == [failed]
    assert failed.alone
    assert played.end(failed, outcome) is (Fate.DOWN if outcome is UNREACHABLE else Fate.FINAL)


def test_one_is_not_alone_if_another_joins_it_later(played: Played) -> None:
    for turn in played.answered(12):
        played.end(turn, NO, 0.01)
    played.limiter.take_waiting()
    played.crowd(1)
    (first,) = played.begin()
    assert first.alone
    played.crowd(1)
    (second,) = played.begin()
    assert not first.alone
    assert not second.alone
    assert played.end(second, YES, 0.01) is Fate.FINAL
    assert not first.alone


def test_before_one_is_alone_the_source_gets_time_for_what_was_given_up(played: Played) -> None:
    (first,) = played.begin()
    played.end(first, NO, 0.5)
    late, *others = played.begin()
    assert played.end(late, LATE, 5.0) is Fate.ALL_AGAIN
    played.limiter.recall_all(played.now)
    (turn,) = played.begin()
    assert turn.begins == played.now + 0.5 * (1 + len(others))
    played.end(turn, NO, 0.5)
    assert all(turn.begins == played.now for turn in played.begin())


def test_that_time_is_bounded(played: Played) -> None:
    (first,) = played.begin()
    played.end(first, NO, 2.0)
    played.answered(12)
    played.limiter.recall_all(played.now)
    gave_up = played.now
    played.now += STALE
    (turn,) = played.begin()
    assert turn.begins == gave_up + MAX_PAUSE


def test_what_was_never_asked_takes_none(played: Played) -> None:
    """As a question whose client is let in by another source meanwhile."""
    (asked,) = played.begin()
    played.limiter.remove(asked, played.now)
    (first,) = played.begin()
    assert first.begins > played.now
    for _ in range(20):
        played.limiter.remove(first, played.now)
        (another,) = played.begin()
        assert another.begins == first.begins
        first = another


def test_nobody_gets_a_turn_who_will_have_left_by_then(played: Played) -> None:
    (asked,) = played.begin()
    played.limiter.remove(asked, played.now)
    played.limiter.take_waiting()
    hasty = Turn("hasty", played.now + played.limiter.timeout(played.now))
    played.limiter.add(hasty)
    patient = Turn("patient", played.now + 100.0)
    played.limiter.add(patient)
    assert played.begin() == [patient]
    # It is still told if the source is down.
    assert played.limiter.take_waiting() == [hasty]


def test_it_passes(played: Played) -> None:
    (first,) = played.begin()
    played.end(first, NO, 0.5)
    for turn in played.begin():
        played.limiter.remove(turn, played.now)
    played.now += STALE
    assert [turn.begins for turn in played.begin()] == [played.now]


def test_a_source_that_is_down_gets_no_such_time(played: Played) -> None:
    (first,) = played.begin()
    played.end(first, LATE, 5.0)
    for _ in range(5):
        (turn,) = played.begin()
        assert turn.begins == played.now
        played.limiter.remove(turn, played.now)


def test_priority_comes_first_and_has_room_of_its_own(played: Played) -> None:
    in_flight = played.answered(12)
    priority = played.crowd(2 * RESERVED, priority=True)
    assert played.begin() == priority[:RESERVED]
    played.end(in_flight[0], NO, 0.01)
    assert priority[RESERVED] in played.begin()


def test_room_of_its_own_is_no_more_than_what_one_worker_does_in_a_second(played: Played) -> None:
    (first,) = played.begin()
    played.end(first, NO, 0.4)
    strangers = played.begin()
    priority = played.crowd(10, priority=True)
    assert (len(strangers), played.begin()) == (2, priority[:2])


def test_a_newcomer_is_not_behind_all_of_a_crowd(played: Played) -> None:
    in_flight = played.answered(12)
    (newcomer,) = played.crowd(1, "elsewhere")
    for turn in in_flight[:2]:
        played.end(turn, NO, 0.01)
    assert newcomer in played.begin()
