"""Answers that came after their clients had left, for when they come again. Sans-I/O.

Times are seconds of a monotonic clock.
"""

from typing import Final

from derp.admission.cache import SHORT_TTL
from derp.admission.model import Outcome, Question, Verdict

MAX_KEPT: Final = 1024
"""Bound on the answers; the oldest is evicted first."""
KEPT_FOR: Final = 60.0
"""Bound in seconds for an ALLOWED; a refusal, which may change soon, is kept for SHORT_TTL."""


class LateAnswers:
    """The late answers of one source, each for one client."""

    def __init__(self) -> None:
        self._answers: dict[Question, tuple[float, Verdict]] = {}

    def put(self, question: Question, verdict: Verdict, now: float) -> None:
        """Keep an answer, in place of an earlier one to the same question."""
        self._answers.pop(question, None)
        while len(self._answers) >= MAX_KEPT:
            del self._answers[next(iter(self._answers))]
        seconds = KEPT_FOR if verdict.outcome is Outcome.ALLOWED else SHORT_TTL
        self._answers[question] = now + seconds, verdict

    def take(self, question: Question, now: float) -> Verdict | None:
        """Remove and return the answer to a question, if there is one."""
        until, verdict = self._answers.pop(question, (now, None))
        return verdict if now < until else None
