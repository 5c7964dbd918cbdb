"""Verdicts of the last seconds, so that a client that reconnects causes no question. Sans-I/O.

Verdicts other than ALLOWED are kept apart: unknown clients, which can log in with any number of
keys, evict only each other. Times are seconds of a monotonic clock.
"""

from typing import Final, TypeVar

from derp.admission.model import Outcome, Question, Verdict

MAX_ENTRIES: Final = 4096
"""Bound on each kind of verdicts; the oldest is evicted first."""
SHORT_TTL: Final = 10.0
"""Bound in seconds for a verdict other than ALLOWED, which may change soon."""

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class VerdictCache:
    """The verdicts of the last `seconds`; none with 0."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._allowed: dict[Question, tuple[float, Verdict]] = {}
        self._others: dict[Question, tuple[float, Verdict]] = {}
        # The keys whose last authoritative verdict was ALLOWED, cached or not; the latest is last.
        self._recently_allowed: dict[bytes, None] = {}

    def get(self, question: Question, now: float) -> Verdict | None:
        """Return the cached verdict on the same question, if there is one."""
        for cached in (self._allowed, self._others):
            if (found := cached.get(question)) is not None:
                until, verdict = found
                if now < until:
                    return verdict
                del cached[question]
        return None

    def put(self, question: Question, verdict: Verdict, now: float) -> None:
        """Replace the verdict on a question.

        A verdict that is not authoritative never replaces one that is. An authoritative refusal
        also removes the ALLOWED verdicts on the same key at other addresses.
        """
        if not verdict.authoritative and (old := self.get(question, now)) and old.authoritative:
            return
        allowed = verdict.outcome is Outcome.ALLOWED
        if verdict.authoritative:
            self._note_key(question.key, allowed=allowed)
        self._allowed.pop(question, None)
        self._others.pop(question, None)
        seconds = self._seconds if allowed else min(self._seconds, SHORT_TTL)
        if seconds and verdict.cacheable:
            cached = self._allowed if allowed else self._others
            _insert(cached, question, (now + seconds, verdict))

    def recently_allowed(self, key: bytes) -> bool:
        """Return whether the last authoritative verdict on a key, if still known, was ALLOWED."""
        return key in self._recently_allowed

    def clear(self) -> None:
        """Forget all verdicts, but not which keys were recently allowed."""
        self._allowed.clear()
        self._others.clear()

    def _note_key(self, key: bytes, *, allowed: bool) -> None:
        was_allowed = key in self._recently_allowed
        self._recently_allowed.pop(key, None)
        if allowed:
            _insert(self._recently_allowed, key, None)
        elif was_allowed:
            # Linear in the cache, but never for an unknown client.
            for question in [question for question in self._allowed if question.key == key]:
                del self._allowed[question]


def _insert(entries: dict[_Key, _Value], key: _Key, value: _Value) -> None:
    """Add an entry, evicting the oldest beyond MAX_ENTRIES."""
    while len(entries) >= MAX_ENTRIES:
        del entries[next(iter(entries))]
    entries[key] = value
