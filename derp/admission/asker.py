"""The asker of one source: as many questions at a time as `limiter` allows, the others queued."""

import math

import attrs
import trio

from derp.admission.limiter import Fate, Limiter, Turn
from derp.admission.model import Outcome, Question, Source, Verdict


@attrs.define(eq=False)
class _Waiting(Turn):
    """The turn of a task that waits for a verdict."""

    called: trio.Event = attrs.field(factory=trio.Event)
    """Set when the task may ask its question, or when `verdict` is set."""
    asking: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    recalled: bool = False
    """Whether the turn was queued again while in flight, so that the outcome does not count."""
    verdict: Verdict | None = None


class Asker:
    """One source, and the questions that wait for it."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._limiter: Limiter[_Waiting] = Limiter()
        self._not_in_time = Verdict(
            Outcome.NO_ROOM,
            source.name,
            "no answer in time to one of many questions; is it slow, or are we attacked?",
        )

    async def ask(self, question: Question, deadline: float, *, priority: bool) -> Verdict:
        """Return the source's verdict, asking it in turn.

        If too many other questions wait, the verdict is NO_ROOM. If another question shows that
        the source is down, both get the same verdict. Returns by `deadline`; but a question that
        is in flight at that time may take until the source's own timeout.
        """
        turn = _Waiting(question.network, deadline, priority)
        self._limiter.add(turn)
        self._call_next()
        try:
            while turn.verdict is None:
                with trio.move_on_at(deadline) as waiting:
                    await turn.called.wait()
                if waiting.cancelled_caught:
                    break
                # The turn may have been recalled between the call and this task's next step.
                if turn in self._limiter.in_flight:
                    await self._ask(turn, question)
            return turn.verdict or self._not_in_time
        finally:
            self._limiter.remove(turn, trio.current_time())
            self._call_next()

    async def _ask(self, turn: _Waiting, question: Question) -> None:
        """Ask the source, and apply the outcome to all turns that it affects."""
        limiter, verdict = self._limiter, self._not_in_time
        turn.called, turn.asking, turn.recalled = trio.Event(), trio.CancelScope(), False
        if not turn.alone:
            turn.asking.deadline = turn.begins + limiter.timeout
        with turn.asking:
            await trio.sleep_until(turn.begins)
            verdict = await self._source.ask(question)
        if turn.recalled:
            return
        now = trio.current_time()
        outcome = Outcome.LATE if turn.asking.cancelled_caught else verdict.outcome
        # Where the limiter has queued the turn again (Fate.AGAIN), `ask` waits for its next call.
        match limiter.ended(turn, outcome, now):
            case Fate.FINAL:
                turn.verdict = verdict
                if outcome is not Outcome.NO_ROOM:
                    # The source works, so the other questions get its whole ANSWER_TIMEOUT.
                    for each in limiter.in_flight:
                        each.asking.deadline = math.inf
            case Fate.DOWN:
                for each in (turn, *limiter.take_waiting()):
                    each.verdict = verdict
                    each.called.set()
            case Fate.OVERLOADED:
                turn.verdict = self._not_in_time
            case Fate.ALL_AGAIN:
                for each in limiter.recall_all(now):
                    each.called, each.recalled = trio.Event(), True
                    each.asking.cancel()
        self._call_next()

    def _call_next(self) -> None:
        now = trio.current_time()
        while (turn := self._limiter.next(now)) is not None:
            turn.called.set()
