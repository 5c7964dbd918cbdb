"""Verdicts that are remembered for a while, so that clients who reconnect cause no questions. Pure.

Clients that were admitted are remembered apart from those that were not: strangers can come with
any number of keys, and push out only each other. Time is passed in, in seconds of a monotonic
clock.
"""

from typing import Final

import attrs

from derp.admit.question import Question

MAX_REMEMBERED: Final = 4096
"""Most verdicts of each kind; the oldest go first."""
SHORT: Final = 10.0
"""Seconds for which anything but a certain yes is remembered at most: it may change soon."""


@attrs.frozen
class Verdict:
    """Whether a client may use the relay, and who said so."""

    admitted: bool
    source: str
    """The name of the source that decided."""
    reason: str = ""
    """Why not, in a line; or why although it could not be asked."""
    certain: bool = True
    """False where a source could not be asked."""


class Memory:
    """The verdicts of the last `seconds`; of none where that is 0."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._admitted: dict[Question, tuple[float, Verdict]] = {}
        self._others: dict[Question, tuple[float, Verdict]] = {}

    def recall(self, question: Question, now: float) -> Verdict | None:
        """Return the verdict on the same question, if it is remembered."""
        for remembered in (self._admitted, self._others):
            if (found := remembered.get(question)) is not None:
                until, verdict = found
                if now < until:
                    return verdict
                del remembered[question]
        return None

    def note(self, question: Question, verdict: Verdict, now: float) -> None:
        """Remember a verdict in place of any other on the same question."""
        self._admitted.pop(question, None)
        self._others.pop(question, None)
        sure = verdict.admitted and verdict.certain
        seconds = self._seconds if sure else min(self._seconds, SHORT)
        if not seconds:
            return
        remembered = self._admitted if sure else self._others
        while len(remembered) >= MAX_REMEMBERED:
            del remembered[next(iter(remembered))]
        remembered[question] = now + seconds, verdict

    def forget(self) -> None:
        """Forget all of them."""
        self._admitted.clear()
        self._others.clear()
