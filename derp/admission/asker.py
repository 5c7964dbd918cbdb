"""The asker of one source: as many questions at a time as `limiter` allows, the others queued.

Each question that is sent has a task of its own. It stays in flight until it is answered or LATE,
whether or not its client still waits: a slow source is asked no more than once about each client,
and what it answers in the end is kept for the client's next try. A question that is LATE lingers
for a while, since an answer to it shows that the source is slow and not down.
"""

import math
from typing import Final

import attrs
import trio

from derp import log
from derp.admission.lateanswers import LateAnswers
from derp.admission.limiter import OVERDUE, Fate, Limiter, Turn
from derp.admission.model import Outcome, Question, Source, Verdict

MAX_LINGERING: Final = 8
"""Bound on the questions that are LATE or recalled, and still wait for an answer."""
BUG_EVERY: Final = 60.0
"""Seconds between log lines about bugs in a source."""

logger = log.get("admit")


@attrs.define(eq=False)
class _Attempt:
    """A question in flight, or one that lingers."""

    begins: float
    alone: bool
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    """Of all that is done for it."""
    watching: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    """Its deadline is when the question is LATE."""
    answered: trio.Event = attrs.field(factory=trio.Event)
    verdict: Verdict | None = None
    """The source's, once `answered`."""
    given_up: bool = False
    """Whether it is no longer in flight."""


@attrs.define(eq=False)
class _Waiting(Turn):
    """The turn of a question, and of the client that waits for its verdict."""

    question: Question = attrs.field(kw_only=True)
    is_awaited: bool = True
    """Whether its client still waits."""
    attempt: _Attempt | None = None
    """None while queued."""
    verdict: Verdict | None = None
    told: trio.Event = attrs.field(factory=trio.Event)
    """Set when `verdict` is."""


class Asker:
    """One source, and the questions that wait for it."""

    nursery: trio.Nursery
    """Runs the tasks of the questions; to be set before the first."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._limiter: Limiter[_Waiting] = Limiter()
        self._late = LateAnswers()
        # Turns in flight whose clients have left.
        self._unheard: dict[Question, _Waiting] = {}
        self._lingering = 0
        self._bug_logged_at = -math.inf
        self._not_in_time = Verdict(
            Outcome.NO_ROOM,
            source.name,
            "no answer in time to one of many questions; is it slow, or are we attacked?",
        )
        self._slow = Verdict(
            Outcome.SLOW,
            source.name,
            f"{source.name} can be reached, but gives no answer in time; a client that comes again "
            "gets the verdict once it is there; find out why the server is slow, or list the keys "
            "of clients in -verify-client-file",
        )

    async def ask(self, question: Question, deadline: float, *, priority: bool) -> Verdict:
        """Return the source's verdict by `deadline`, asking it in turn.

        If too many other questions wait, the verdict is NO_ROOM; if the source has been silent for
        long, but may answer yet, SLOW. If another question shows that the source is down, both get
        the same verdict.
        """
        if (verdict := self._late.take(question, trio.current_time())) is not None:
            return verdict
        if (turn := self._unheard.pop(question, None)) is not None:
            turn.deadline, turn.is_awaited = deadline, True
        else:
            turn = _Waiting(question.network, deadline, priority, question=question)
            self._limiter.add(turn)
            self._call_next()
        try:
            with trio.move_on_at(deadline):
                await turn.told.wait()
            return turn.verdict or self._no_answer()
        finally:
            turn.is_awaited = False
            if turn.verdict is None:
                self._leave(turn)

    def _leave(self, turn: _Waiting) -> None:
        """Handle that the client of a turn does not wait any more."""
        now = trio.current_time()
        if turn in self._limiter.in_flight and turn.begins <= now:
            self._unheard[turn.question] = turn
        else:
            self._remove(turn, now)
            self._call_next()

    def _remove(self, turn: _Waiting, now: float) -> None:
        """Remove a turn, queued or in flight, and end its question."""
        self._limiter.remove(turn, now)
        if turn.attempt is not None:
            turn.attempt.scope.cancel()

    def _no_answer(self) -> Verdict:
        is_slow = self._limiter.is_overdue(trio.current_time())
        return self._slow if is_slow else self._not_in_time

    def _call_next(self) -> None:
        now = trio.current_time()
        while (turn := self._limiter.next(now)) is not None:
            attempt = turn.attempt = _Attempt(turn.begins, turn.alone)
            attempt.watching.deadline = turn.begins + self._limiter.time_for(turn, now)
            self.nursery.start_soon(self._run, turn, attempt)

    async def _run(self, turn: _Waiting, attempt: _Attempt) -> None:
        """Ask a question, and apply the outcome to all turns that it affects."""
        with attempt.scope:
            await trio.sleep_until(attempt.begins)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._exchange, turn, attempt)
                await self._watch(attempt)
                if not attempt.given_up:
                    self._ended(turn, attempt)
                if attempt.verdict is None:
                    await self._linger(attempt)
                nursery.cancel_scope.cancel()

    async def _exchange(self, turn: _Waiting, attempt: _Attempt) -> None:
        try:
            attempt.verdict = await self._source.ask(turn.question)
        except Exception as error:
            # A bug must end this question only, and must be logged, within a bound.
            source, now = self._source.name, trio.current_time()
            if now - self._bug_logged_at >= BUG_EVERY:
                self._bug_logged_at = now
                logger.exception("a question was ended by a bug", source=source)
            reason = f"a bug: {error!r}; please report it"
            attempt.verdict = Verdict(Outcome.NO_ROOM, source, reason)
        attempt.answered.set()
        if attempt.given_up:
            self._answered_late(turn, attempt)

    async def _watch(self, attempt: _Attempt) -> None:
        """Wait until the question is answered, recalled or LATE."""
        with attempt.watching:
            with trio.move_on_at(attempt.begins + OVERDUE):
                await attempt.answered.wait()
            if not attempt.answered.is_set():
                # Another question may be asked beside one that is overdue.
                self._call_next()
                await attempt.answered.wait()

    async def _linger(self, attempt: _Attempt) -> None:
        """Wait for a late answer, if there is room."""
        if self._lingering >= MAX_LINGERING:
            return
        self._lingering += 1
        try:
            await attempt.answered.wait()
        finally:
            self._lingering -= 1

    def _ended(self, turn: _Waiting, attempt: _Attempt) -> None:
        """Apply the outcome of a question in flight to all turns that it affects."""
        limiter, verdict, now = self._limiter, attempt.verdict, trio.current_time()
        if verdict is None:
            seconds = round(now - attempt.begins)
            reason = f"{self._source.name} gave no answer within {seconds} s"
            verdict = Verdict(Outcome.LATE, self._source.name, reason)
            attempt.given_up = True
        match limiter.ended(turn, verdict.outcome, now):
            case Fate.FINAL:
                self._tell(turn, verdict)
                if verdict.outcome is not Outcome.NO_ROOM:
                    # The source works, so the other questions get all the time that there is.
                    for each in limiter.in_flight:
                        self._extend(each, now)
            case Fate.DOWN:
                for each in (turn, *limiter.take_waiting()):
                    self._tell(each, verdict)
                for each in tuple(limiter.in_flight):
                    limiter.remove(each, now)
                    self._give_up(each)
                    self._tell(each, verdict)
            case Fate.OVERLOADED:
                self._tell(turn, self._not_in_time)
            case Fate.AGAIN:
                self._queued_again(turn, now)
            case Fate.ALL_AGAIN:
                self._queued_again(turn, now)
                for each in limiter.recall_all(now):
                    self._give_up(each)
                    self._queued_again(each, now)
        self._call_next()

    def _extend(self, turn: _Waiting, now: float) -> None:
        if (attempt := turn.attempt) is not None:
            latest = attempt.begins + self._limiter.patience(now)
            attempt.watching.deadline = max(attempt.watching.deadline, latest)

    def _give_up(self, turn: _Waiting) -> None:
        """Have the question of a turn linger."""
        if (attempt := turn.attempt) is None:
            return
        attempt.given_up = True
        attempt.watching.cancel()
        turn.attempt = None
        if attempt.answered.is_set():
            # In this very turn of the event loop.
            self._answered_late(turn, attempt)

    def _queued_again(self, turn: _Waiting, now: float) -> None:
        """Handle that the limiter has queued a turn again."""
        turn.attempt = None
        if not turn.is_awaited:
            self._limiter.remove(turn, now)
            self._unheard.pop(turn.question, None)

    def _answered_late(self, turn: _Waiting, attempt: _Attempt) -> None:
        """Handle the answer to a question that is no longer in flight."""
        verdict, now = attempt.verdict, trio.current_time()
        if verdict is None or not verdict.authoritative:
            return
        self._limiter.answered_late(attempt.begins, now, alone=attempt.alone)
        if turn.verdict is None:
            self._remove(turn, now)
            self._tell(turn, verdict)
        else:
            self._late.put(turn.question, verdict, now)
        self._call_next()

    def _tell(self, turn: _Waiting, verdict: Verdict) -> None:
        """Give the client of a turn its verdict, or keep it for when the client comes again."""
        if turn.verdict is not None:
            return
        turn.verdict = verdict
        turn.told.set()
        if not turn.is_awaited:
            self._unheard.pop(turn.question, None)
            if verdict.authoritative:
                self._late.put(turn.question, verdict, trio.current_time())
