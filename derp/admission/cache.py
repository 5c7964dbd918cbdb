"""Verdicts that are remembered for a while, so that clients who reconnect cause no questions. Pure.

Clients that were admitted are remembered apart from those that were not: strangers can come with
any number of keys, and push out only each other. Time is passed in, in seconds of a monotonic
clock.
"""

from typing import Final

import attrs

from derp.admission.question import Question

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
    lasts: bool = True
    """False where it says more of the moment than of the client, and is not remembered."""


class VerdictCache:
    """The verdicts of the last `seconds`; of none where that is 0."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._admitted: dict[Question, tuple[float, Verdict]] = {}
        self._others: dict[Question, tuple[float, Verdict]] = {}
        # The keys that were admitted last, in that order, whether that is remembered or not.
        self._familiar: dict[bytes, None] = {}

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
        """Remember a verdict in place of any other on the same question.

        While the last one is certain and remembered, an uncertain one changes nothing; and a
        certain no is one for the key at all addresses.
        """
        if not verdict.certain and (before := self.recall(question, now)) and before.certain:
            return
        if verdict.certain:
            self._take_note_of_key(question.key, admitted=verdict.admitted)
        self._admitted.pop(question, None)
        self._others.pop(question, None)
        sure = verdict.admitted and verdict.certain
        seconds = self._seconds if sure else min(self._seconds, SHORT)
        if not seconds or not verdict.lasts:
            return
        remembered = self._admitted if sure else self._others
        _make_room(remembered)
        remembered[question] = now + seconds, verdict

    def is_familiar(self, key: bytes) -> bool:
        """Tell whether the last certain verdict on a key, if it is among the latest, was a yes."""
        return key in self._familiar

    def forget(self) -> None:
        """Forget all verdicts."""
        self._admitted.clear()
        self._others.clear()

    def _take_note_of_key(self, key: bytes, *, admitted: bool) -> None:
        was_familiar = key in self._familiar
        self._familiar.pop(key, None)
        if admitted:
            _make_room(self._familiar)
            self._familiar[key] = None
        elif was_familiar:
            # Seldom: strangers don't come here.
            for question in [question for question in self._admitted if question.key == key]:
                del self._admitted[question]


def _make_room(remembered: dict[Question, tuple[float, Verdict]] | dict[bytes, None]) -> None:
    while len(remembered) >= MAX_REMEMBERED:
        del remembered[next(iter(remembered))]  # type: ignore[arg-type]
