"""Asks one source: as many questions side by side as it can take, each in its turn."""

import math
from typing import Final

import attrs
import trio

from derp.admission.limiter import Fate, Limiter, Turn
from derp.admission.question import Answer, Outcome, Question, Source

_NOT_IN_TIME: Final = Answer(
    Outcome.NO_ROOM, "no answer in time, among many others; is it slow, or are we attacked?"
)


@attrs.define(eq=False)
class _Waiting(Turn):
    """A turn of a task that waits for the answer."""

    called: trio.Event = attrs.field(factory=trio.Event)
    """Set when it is under way, or has an answer."""
    asking: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    recalled: bool = False
    """Whether it waits again, whatever comes of its question."""
    answer: Answer | None = None


class Asker:
    """One source, and the questions that wait for it."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._limiter: Limiter[_Waiting] = Limiter()

    async def ask(self, question: Question, deadline: float, *, urgent: bool) -> Answer:
        """Ask in turn; no number of strangers brings about an outcome other than NO_ROOM.

        It takes until `deadline`, and longer only for what was asked before that.
        """
        turn = _Waiting(question.network, deadline, urgent)
        self._limiter.wait(turn)
        self._call_next()
        try:
            while turn.answer is None:
                with trio.move_on_at(deadline) as waiting:
                    await turn.called.wait()
                if waiting.cancelled_caught:
                    break
                # Called, it may have been recalled before it came to ask.
                if turn in self._limiter.under_way:
                    await self._ask(turn, question)
            return turn.answer or _NOT_IN_TIME
        finally:
            self._limiter.leave(turn, trio.current_time())
            self._call_next()

    async def _ask(self, turn: _Waiting, question: Question) -> None:
        """Ask, and see to what follows for this turn and others."""
        limiter, answer = self._limiter, _NOT_IN_TIME
        turn.called, turn.asking, turn.recalled = trio.Event(), trio.CancelScope(), False
        if not turn.alone:
            turn.asking.deadline = turn.begins + limiter.enough
        with turn.asking:
            await trio.sleep_until(turn.begins)
            answer = await self._source.ask(question)
        if turn.recalled:
            return
        now = trio.current_time()
        outcome = Outcome.LATE if turn.asking.cancelled_caught else answer.outcome
        match limiter.ended(turn, outcome, now):
            case Fate.FINAL:
                turn.answer = answer
                if outcome is not Outcome.NO_ROOM:
                    # The source is heard of.
                    for each in limiter.under_way:
                        each.asking.deadline = math.inf
            case Fate.DOWN:
                for each in (turn, *limiter.take_waiting()):
                    each.answer = answer
                    each.called.set()
            case Fate.OVERLOADED:
                turn.answer = _NOT_IN_TIME
            case Fate.ALL_AGAIN:
                for each in limiter.recall_all(now):
                    each.called, each.recalled = trio.Event(), True
                    each.asking.cancel()
        self._call_next()

    def _call_next(self) -> None:
        now = trio.current_time()
        while (turn := self._limiter.next(now)) is not None:
            turn.called.set()
