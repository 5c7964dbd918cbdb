"""The limit on concurrent questions to a source, and the meaning of a failure. Sans-I/O.

A source that does not answer is down or overloaded, and unknown clients can overload it. Only a
question that was asked alone tells which (a turn is one question, queued or asked):

    alone           no connection, or no answer in time     down; all queued turns fail, too
                    no answer, but others were answered     overloaded; this turn fails
    concurrent      no answer, but others were answered     overloaded; this turn fails
                    no answer, and none was answered        all are asked again
                    no connection, or malformed             asked again

How long a source has for an answer depends on what is known of it (`patience`):

    it has answered in time lately, or it is silent         ANSWER_TIMEOUT
    it has answered late, or nothing is known               LATEST_ANSWER

So a source that is slow does not count as down, and one that falls silent does so soon. An answer
that comes after the time was up counts, too (`answered_late`).

After these failures, and after STALE seconds without an answer, questions are asked one at a time
until one asked alone is answered; but another one beside it, once it is overdue (OVERDUE). Then up
to `limit` are asked concurrently: 2 at first, one more with each quick answer that comes while the
limit is reached, a quarter less with a slow one. So a source is given about QUICK seconds of work.
Turns that failed concurrently come first, then priority turns, which may exceed the limit by
RESERVED at most. Each queue is fair to networks.

A source may still work on abandoned questions. So before a question is asked alone, there is a
pause, for as long as the abandoned ones are estimated to take one after another. Where some take
hundreds of times as long as others, the estimate is too short, and an overloaded source may count
as down. Times are seconds of a monotonic clock.
"""

import enum
import math
from typing import Final, Generic, TypeVar

import attrs

from derp.admission.fairqueue import FairQueue
from derp.admission.model import ANSWER_TIMEOUT, LATEST_ANSWER, Outcome

MAX_LIMIT: Final = 48
"""The highest limit on concurrent questions to one source.

A source that takes 60 ms answers as many clients then as log in, when thousands come at once. With
RESERVED, it is less than the descriptors that are kept free of clients.
"""
RESERVED: Final = 4
"""Priority turns that may exceed the limit, at most."""
STALE: Final = 10.0
"""Seconds without an answer after which questions are asked one at a time; or AMPLE times
`_alone_took`, if that is longer. For as long it counts that the last answer came in time."""
OVERDUE: Final = ANSWER_TIMEOUT + 0.25
"""Seconds after which a question is overdue: a source's own verdict at ANSWER_TIMEOUT comes first.
"""
SLOW_FOR: Final = 600.0
"""Seconds for which it counts that an answer came late, whatever comes in time meanwhile."""
QUICK: Final = 1.0
"""Seconds within which an answer is quick; or SLOWER times `_alone_took`, if that is longer."""
SLOWER: Final = 1.5
"""How many times `_alone_took` an answer may take and still be quick."""
AMPLE: Final = 2.0
"""A concurrent question is LATE after AMPLE times QUICK or `_alone_took`, the longer; but not later
than after the `patience`."""
WORK: Final = 0.25
"""Seconds of work that an abandoned question leaves; or `_alone_took`, if that is longer."""
MAX_PAUSE: Final = 15.0
"""Seconds of the longest pause for abandoned questions."""


class Fate(enum.Enum):
    """The fate of a turn that was in flight."""

    FINAL = enum.auto()
    """The outcome counts for this turn: an answer, UNKNOWN if asked alone, or NO_ROOM."""
    DOWN = enum.auto()
    """The outcome counts for this turn and for all that wait."""
    OVERLOADED = enum.auto()
    """The turn fails, as others were answered meanwhile."""
    AGAIN = enum.auto()
    """The turn is queued again."""
    ALL_AGAIN = enum.auto()
    """The turn is queued again, and so are all others in flight."""


@attrs.define(eq=False)
class Turn:
    """One question, queued or in flight."""

    network: str
    deadline: float
    """When its client gives up; a question in flight goes on."""
    priority: bool = False
    begins: float = math.inf
    """When the question was asked, or is to be asked after a pause."""
    alone: bool = False
    """Whether no other turn has been in flight since `begins`, but one beside it if overdue."""
    failed: bool = False
    """Whether it is queued again after a concurrent failure other than LATE."""


T = TypeVar("T", bound=Turn)


class Limiter(Generic[T]):
    """The turns of one source."""

    def __init__(self) -> None:
        self.limit = 1
        self.in_flight: set[T] = set()
        self._failed = FairQueue[T]()
        self._priority = FairQueue[T]()
        self._others = FairQueue[T]()
        self._too_late: set[T] = set()
        self._one_at_a_time = True
        self._is_down = self._is_silent = False
        self._answered_at = self._shrunk_at = self._abandoned_at = self._busy_until = -math.inf
        # When an answer came in ANSWER_TIMEOUT, and when one came later.
        self._prompt_at = self._slow_at = -math.inf
        # Seconds that the last question asked alone took; at first, those of a slow source.
        self._alone_took = ANSWER_TIMEOUT / AMPLE

    def patience(self, now: float) -> float:
        """Return the seconds after which a question asked alone is Outcome.LATE."""
        is_prompt = now - self._prompt_at < STALE and now - self._slow_at >= SLOW_FOR
        return OVERDUE if self._is_silent or is_prompt else LATEST_ANSWER

    def timeout(self, now: float) -> float:
        """Return the seconds after which a concurrent one is, if no other was answered."""
        return min(self.patience(now), AMPLE * max(QUICK, self._alone_took))

    def is_overdue(self, now: float) -> bool:
        """Return whether a question in flight is."""
        return any(now >= turn.begins + OVERDUE for turn in self.in_flight)

    def time_for(self, turn: T, now: float) -> float:
        """Return the seconds after which a turn, just begun, is LATE."""
        waits = turn.alone or self._one_at_a_time
        return self.patience(now) if waits else self.timeout(now)

    def add(self, turn: T) -> None:
        """Queue a turn, for the first time or again."""
        self._queue_of(turn).add(turn.network, turn)

    def remove(self, turn: T, now: float) -> None:
        """Remove a turn, queued or in flight, without an outcome."""
        if turn in self.in_flight:
            self._abandon(turn, now)
        self._queue_of(turn).discard(turn.network, turn)
        self._too_late.discard(turn)

    def next(self, now: float) -> T | None:
        """Return the next turn, now in flight; None if none waits, or the limit is reached."""
        if now - self._answered_at >= max(STALE, AMPLE * self._alone_took):
            self._one_at_a_time = True
        limit, reserved = self.limit, self._reserved()
        if self._one_at_a_time:
            limit, reserved = 2 if self.is_overdue(now) else 1, 0
        for queue, room in (
            (self._failed, limit),
            (self._priority, limit + reserved),
            (self._others, limit),
        ):
            while queue and len(self.in_flight) < room:
                turn, begins = queue.pop(), self._soonest(now)
                if begins + self._least_left(now) <= turn.deadline:
                    self._begin(turn, begins, now)
                    return turn
                # Too late to ask. The turn still fails with the others if the source is down.
                self._too_late.add(turn)
        return None

    def ended(self, turn: T, outcome: Outcome, now: float) -> Fate:
        """Handle the outcome of a turn in flight, and return what becomes of the turn.

        After DOWN the caller calls `take_waiting`, and after ALL_AGAIN `recall_all`.
        """
        is_full = len(self.in_flight) >= self.limit
        if outcome is Outcome.LATE:
            self._abandon(turn, now)
        self.in_flight.discard(turn)
        if outcome in {Outcome.ALLOWED, Outcome.REFUSED}:
            self._answered(turn, now, is_full=is_full)
            return Fate.FINAL
        if outcome is Outcome.NO_ROOM or (turn.alone and outcome is Outcome.UNKNOWN):
            return Fate.FINAL
        self._one_at_a_time = True
        if outcome is Outcome.LATE and self._answered_at > turn.begins:
            return Fate.OVERLOADED
        if turn.alone:
            self._is_down, self._busy_until = True, -math.inf
            self._is_silent = outcome is Outcome.LATE
            if not self._is_silent:
                # Whatever answers next was started anew, and may be slow at first.
                self._prompt_at = -math.inf
            return Fate.DOWN
        turn.failed = outcome is not Outcome.LATE
        self.add(turn)
        return Fate.AGAIN if turn.failed else Fate.ALL_AGAIN

    def answered_late(self, asked_at: float, now: float, *, alone: bool) -> None:
        """Note an answer to a question that is no longer in flight, as it was LATE or recalled."""
        self._note_answer(now - asked_at, now)
        if alone:
            self._alone_took = now - asked_at

    def recall_all(self, now: float) -> list[T]:
        """Queue all turns in flight again, and return them: their questions are abandoned."""
        recalled = list(self.in_flight)
        for turn in recalled:
            self._abandon(turn, now)
            self.add(turn)
        return recalled

    def take_waiting(self) -> list[T]:
        """Remove and return all queued turns."""
        queues = (self._failed, self._priority, self._others)
        waiting = [turn for queue in queues for turn in queue.clear()]
        waiting += self._too_late
        self._too_late.clear()
        return waiting

    def _queue_of(self, turn: T) -> FairQueue[T]:
        if turn.failed:
            return self._failed
        return self._priority if turn.priority else self._others

    def _reserved(self) -> int:
        """Return how many priority turns may exceed the limit: QUICK seconds of work, or one."""
        return max(1, int(QUICK / max(self._alone_took, QUICK / RESERVED)))

    def _least_left(self, now: float) -> float:
        """Return the seconds that a client has to wait yet for its question to be asked.

        Answers of a slow source come after that anyway, and are for the client's next try.
        """
        is_slow = self._alone_took > ANSWER_TIMEOUT
        return 0.0 if is_slow else min(self.timeout(now), ANSWER_TIMEOUT)

    def _soonest(self, now: float) -> float:
        """Return when the next question may be asked."""
        return max(now, self._busy_until) if self._one_at_a_time else now

    def _begin(self, turn: T, begins: float, now: float) -> None:
        turn.begins, turn.alone, turn.failed = begins, not self.in_flight, False
        if len(self.in_flight) == 1 and not (self._one_at_a_time and self.is_overdue(now)):
            next(iter(self.in_flight)).alone = False
        self.in_flight.add(turn)

    def _abandon(self, turn: T, now: float) -> None:
        self.in_flight.discard(turn)
        if turn.begins > now:  # not asked yet
            return
        self._abandoned_at = now
        if not self._is_down:
            busy = max(now, self._busy_until) + max(self._alone_took, WORK)
            self._busy_until = min(busy, now + MAX_PAUSE)

    def _answered(self, turn: T, now: float, *, is_full: bool) -> None:
        took = now - turn.begins
        self._note_answer(took, now)
        if turn.begins >= self._abandoned_at:
            self._busy_until = now
        if turn.alone:
            self._alone_took = took
            if self._one_at_a_time:
                self._one_at_a_time = False
                self.limit = 1
                is_full = True
        if took > max(QUICK, SLOWER * self._alone_took):
            self._shrink(turn, now)
        elif is_full:
            self.limit = min(self.limit + 1, MAX_LIMIT)

    def _note_answer(self, took: float, now: float) -> None:
        self._answered_at, self._is_down, self._is_silent = now, False, False
        if took < OVERDUE:
            self._prompt_at = now
        else:
            self._slow_at = now

    def _shrink(self, turn: T, now: float) -> None:
        """Lower the limit, but not for a question that was asked before the last lowering."""
        if turn.begins >= self._shrunk_at:
            self._shrunk_at = now
            self.limit = max(1, self.limit * 3 // 4)
