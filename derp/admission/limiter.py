"""How many questions a source is asked side by side, and what it means if one fails. Pure.

A source that gives no answer may be down, or have more to do than it can, and that strangers can
bring about. Only a question that the source had to itself tells the two apart:

    alone           no connection, or no answer in time     down: for all who wait, too
    side by side    no answer, but others got theirs        overloaded: nobody knows
                    no answer, and nobody got one           all are asked again
                    no connection, or nonsense              asked again

After a failure side by side, and where nothing was heard for STALE seconds, questions go one at a
time until one is answered. Then `limit` go side by side: 1 at first, one more with each quick
answer while that many are under way, a quarter less with a slow one. So the source has no more to
do than it does in about QUICK seconds. Turns that are urgent come first, and up to RESERVED of them
beyond the limit; all others wait in a queue that is fair to networks.

A source may still work on questions that were given up. So before one goes alone, it waits for as
long as they may take one after another. It can't tell how long that is if some take hundreds of
times as long as others: a crowd may then make a source look down that is at all of them at once,
for half a second of work each. Time is passed in, in seconds of a monotonic clock.
"""

import enum
import math
from typing import Final, Generic, TypeVar

import attrs

from derp.admission.fairqueue import FairQueue
from derp.admission.model import ANSWER_TIMEOUT, Outcome

MAX_LIMIT: Final = 16
RESERVED: Final = 4
STALE: Final = 10.0
QUICK: Final = 1.0
"""Seconds that an answer may take without being slow, unless one takes longer when alone."""
SLOWER: Final = 1.5
"""How many times as long as alone it may take then."""
AMPLE: Final = 2.0
"""How many times as long as either an answer takes at most."""
WORK: Final = 0.25
"""Seconds that a question which was given up is taken for, unless one takes longer when alone."""
MAX_PAUSE: Final = 15.0
"""Seconds that the source gets, at most, for what was given up."""


class Fate(enum.Enum):
    """What becomes of a turn whose question has come to an end."""

    FINAL = enum.auto()
    """The outcome counts."""
    DOWN = enum.auto()
    """The outcome counts, and for all who wait."""
    OVERLOADED = enum.auto()
    """Nobody knows."""
    AGAIN = enum.auto()
    """It waits again."""
    ALL_AGAIN = enum.auto()
    """It waits again, and all others that are under way are to do so."""


@attrs.define(eq=False)
class Turn:
    """A question that waits to be asked, or is under way."""

    network: str
    deadline: float
    """When whoever waits gives up, be it asked or not; a question that is under way may go on."""
    urgent: bool = False
    begins: float = math.inf
    """When the question that is under way is to be asked, or was: seldom later than now."""
    alone: bool = False
    """Whether no other has been under way since."""
    failed: bool = False
    """Whether it waits again for want of a connection, or for nonsense, beside others."""


T = TypeVar("T", bound=Turn)


class Limiter(Generic[T]):
    """The turns at one source."""

    def __init__(self) -> None:
        self.limit = 1
        self.under_way: set[T] = set()
        self._failed = FairQueue[T]()
        self._urgent = FairQueue[T]()
        self._others = FairQueue[T]()
        self._too_late: set[T] = set()
        self._one_at_a_time = True
        self._is_down = False
        self._heard = self._shrunk = self._gave_up = self._busy_until = -math.inf
        # Until it is known, the source is taken for slow.
        self._alone_took = ANSWER_TIMEOUT / AMPLE

    @property
    def enough(self) -> float:
        """Seconds that an answer may well take, unless the source is overloaded or down.

        A question beside others that has had no answer for as long, nor has any of the others, is
        Outcome.LATE.
        """
        return min(ANSWER_TIMEOUT, AMPLE * max(QUICK, self._alone_took))

    def wait(self, turn: T) -> None:
        """Let a turn wait, for the first time or again."""
        self._queue_of(turn).add(turn.network, turn)

    def leave(self, turn: T, now: float) -> None:
        """Let a turn go, wherever it is, without an outcome."""
        if turn in self.under_way:
            self._give_up(turn, now)
        self._queue_of(turn).discard(turn.network, turn)
        self._too_late.discard(turn)

    def next(self, now: float) -> T | None:
        """Return a turn that is under way from now on; None if there is none, or no room."""
        if now - self._heard >= STALE:
            self._one_at_a_time = True
        limit, reserved = self.limit, self._reserved()
        if self._one_at_a_time:
            limit, reserved = 1, 0
        for queue, room in (
            (self._failed, limit),
            (self._urgent, limit + reserved),
            (self._others, limit),
        ):
            while queue and len(self.under_way) < room:
                turn, begins = queue.pop(), self._soonest(now)
                if begins + self.enough <= turn.deadline:
                    self._begin(turn, begins)
                    return turn
                # It is still told if the source is down.
                self._too_late.add(turn)
        return None

    def ended(self, turn: T, outcome: Outcome, now: float) -> Fate:
        """Take note of what came of the question of a turn that was under way.

        With DOWN and ALL_AGAIN the caller is to see to the others, by `take_waiting` and
        `recall_all`.
        """
        is_full = len(self.under_way) >= self.limit
        if outcome is Outcome.LATE:
            self._give_up(turn, now)
        self.under_way.discard(turn)
        if outcome in {Outcome.ALLOWED, Outcome.REFUSED}:
            self._answered(turn, now, is_full=is_full)
            return Fate.FINAL
        if outcome is Outcome.NO_ROOM or (turn.alone and outcome is Outcome.UNKNOWN):
            return Fate.FINAL
        self._one_at_a_time = True
        if turn.alone:
            self._is_down, self._busy_until = True, -math.inf
            return Fate.DOWN
        if outcome is Outcome.LATE and self._heard > turn.begins:
            return Fate.OVERLOADED
        turn.failed = outcome is not Outcome.LATE
        self.wait(turn)
        return Fate.AGAIN if turn.failed else Fate.ALL_AGAIN

    def recall_all(self, now: float) -> list[T]:
        """Let all that are under way wait again, and return them: their questions are given up."""
        recalled = list(self.under_way)
        for turn in recalled:
            self._give_up(turn, now)
            self.wait(turn)
        return recalled

    def take_waiting(self) -> list[T]:
        """Return all who wait, and let none of them wait any longer."""
        queues = (self._failed, self._urgent, self._others)
        waiting = [turn for queue in queues for turn in queue.clear()]
        waiting += self._too_late
        self._too_late.clear()
        return waiting

    def _queue_of(self, turn: T) -> FairQueue[T]:
        if turn.failed:
            return self._failed
        return self._urgent if turn.urgent else self._others

    def _reserved(self) -> int:
        """Return how many questions beyond the limit a source can take that has one worker."""
        return max(1, int(QUICK / max(self._alone_took, QUICK / RESERVED)))

    def _soonest(self, now: float) -> float:
        """Return when the next question is to be asked."""
        return max(now, self._busy_until) if self._one_at_a_time else now

    def _begin(self, turn: T, begins: float) -> None:
        turn.begins, turn.alone, turn.failed = begins, not self.under_way, False
        if len(self.under_way) == 1:
            next(iter(self.under_way)).alone = False
        self.under_way.add(turn)

    def _give_up(self, turn: T, now: float) -> None:
        self.under_way.discard(turn)
        if turn.begins > now:
            # It was never asked.
            return
        self._gave_up = now
        if not self._is_down:
            busy = max(now, self._busy_until) + max(self._alone_took, WORK)
            self._busy_until = min(busy, now + MAX_PAUSE)

    def _answered(self, turn: T, now: float, *, is_full: bool) -> None:
        took = now - turn.begins
        self._heard, self._is_down = now, False
        if turn.begins >= self._gave_up:
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

    def _shrink(self, turn: T, now: float) -> None:
        """Lower the limit; for all that was asked before that, once only."""
        if turn.begins >= self._shrunk:
            self._shrunk = now
            self.limit = max(1, self.limit * 3 // 4)
