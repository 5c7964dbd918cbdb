"""The checker, which decides who may use the relay: by the policy and lists, or by asking sources.

`sources` says which sources have to admit a client.

Unknown clients can't make a URL fail open by overloading it or the relay. Only an UNAVAILABLE
outcome fails open, and `limiter` lets one count only if its question was asked alone. Where many
other questions prevent an answer, the outcome is NO_ROOM, which refuses; where the source is slow,
or may be, it is SLOW, which does so, too.

A login waits for an equal question in flight, and gets the same verdict; a recheck always asks. Of
two verdicts on a client, the one on the later question counts.
"""

from functools import partial
from typing import Final

import attrs
import trio

from derp import log
from derp.admission.asker import Asker
from derp.admission.cache import VerdictCache
from derp.admission.devicelist import DeviceList
from derp.admission.model import UNAVAILABLE, Outcome, Question, Source, Verdict
from derp.admission.sources import Sources
from derp.metrics import Metrics

VERDICT_TIMEOUT: Final = 9.0
"""Seconds for a verdict: clients give up after 10 s."""
TROUBLE_EVERY: Final = 60.0
"""Seconds between log lines about the same trouble with a source."""
NEW_TROUBLE_EVERY: Final = 10.0
"""Seconds between log lines about different trouble with a source."""

_ADMITTED_UNASKED: Final = "can't verify clients, so they are admitted"
_REFUSED_UNASKED: Final = "can't verify clients, so they are refused"

_QUEUE_FULL: Final = Verdict(
    Outcome.NO_ROOM,
    source="the checker",
    reason="too many others wait for a verdict; is a source slow, or are we attacked?",
)

VERDICTS: Final = (
    *("allowed", "refused", "failed_open"),
    *("remembered_allowed", "remembered_refused", "remembered_failed_open"),
)
"""The labels of verdicts in the metrics."""

logger = log.get("admit")


@attrs.define(eq=False)
class _InFlight:
    """A question in flight; the tasks with an equal question wait for `done`."""

    done: trio.Event = attrs.field(factory=trio.Event)
    verdict: Verdict | None = None
    """None until `done`, and after it if the asking task was cancelled."""


@attrs.define(eq=False)
class _SourceState:
    """The asker of one source, and the last log line about trouble with the source."""

    asker: Asker
    logged: str = ""
    logged_at: float = -TROUBLE_EVERY


class Checker:
    """An Admission that asks the sources itself."""

    def __init__(self, metrics: Metrics, sources: Sources, *, remember: float = 30.0) -> None:
        """Cache for `remember` seconds."""
        self.sources = sources
        self.troubles: dict[str, str] = {}
        """Why a source is unavailable, by its name, until it answers again."""
        self._metrics = metrics
        self._cache = VerdictCache(remember)
        self._in_flight: dict[Question, _InFlight] = {}
        self._states = {
            source: _SourceState(Asker(source)) for source in (*sources.tailscaleds, *sources.urls)
        }

    def ask_in(self, nursery: trio.Nursery) -> None:
        """Have the tasks of questions run in `nursery`; to be called before the first question."""
        for state in self._states.values():
            state.asker.nursery = nursery

    def known(self, question: Question) -> Verdict | None:
        """Return the verdict of files or cache on a client that logs in; None if neither has it."""
        # The files come before the cache, as they are as cheap and may be newer.
        verdict = self._check_lists(question)
        cached = False
        if verdict is None:
            verdict = self._cache.get(question, trio.current_time())
            cached = True
        if verdict is not None:
            self._metrics.admission_verdict(_label(verdict, cached=cached))
        return verdict

    async def admit(self, question: Question, *, without_asking: bool = False) -> Verdict:
        """Return the verdict on a client that logs in.

        With `without_asking`, refuses a client that neither files nor cache decide on.
        """
        if (verdict := self.known(question)) is not None:
            return verdict
        verdict = _QUEUE_FULL
        if not without_asking:
            verdict = await self._ask_once(question)
            # A later question may have been answered sooner.
            verdict = self._cache.get(question, trio.current_time()) or verdict
        self._metrics.admission_verdict(_label(verdict, cached=False))
        return verdict

    async def recheck(self, question: Question) -> Verdict:
        """Return a new verdict on a connected client, and replace the cached one."""
        return await self._ask_uncached(question, priority=True)

    def recently_allowed(self, key: bytes) -> bool:
        """Return whether the last authoritative verdict on a key, if still known, was ALLOWED."""
        return self._cache.recently_allowed(key)

    def forget(self) -> None:
        """Forget all verdicts, and don't cache those in flight: the list or policy has changed."""
        self._cache.clear()
        self._in_flight.clear()

    async def probe(self) -> None:
        """Ask each tailscaled about an invalid key, to log at start if one can't be asked."""
        deadline = trio.current_time() + VERDICT_TIMEOUT
        question = Question(bytes(32), "127.0.0.1")
        async with trio.open_nursery() as nursery:
            for source in self.sources.tailscaleds:
                nursery.start_soon(partial(self._ask, question, deadline, True, source))

    async def _ask_once(self, question: Question) -> Verdict:
        """Ask, or wait for the verdict on an equal question that is in flight."""
        while (other := self._in_flight.get(question)) is not None:
            await other.done.wait()
            if other.verdict is not None:
                return other.verdict
        priority = self.recently_allowed(question.key)
        return await self._ask_uncached(question, priority=priority)

    async def _ask_uncached(self, question: Question, *, priority: bool) -> Verdict:
        """Ask in any case, and cache the verdict."""
        self._in_flight[question] = this = _InFlight()
        try:
            this.verdict = await self._ask_sources(question, priority=priority)
        finally:
            # Not cached if a later question has replaced this one, or a new list removed it.
            if self._in_flight.get(question) is this:
                del self._in_flight[question]
                if this.verdict is not None:
                    self._cache.put(question, this.verdict, trio.current_time())
            this.done.set()
        return this.verdict

    def _check_lists(self, question: Question) -> Verdict | None:
        """Return the verdict of policy and lists, and count it; None if others decide."""
        if (verdict := self.sources.check(question)) is not None:
            self._metrics.admission(verdict.source, verdict.outcome.value)
        return verdict

    async def _ask_sources(self, question: Question, *, priority: bool) -> Verdict:
        if (verdict := self._check_lists(question)) is not None:
            return verdict
        deadline = trio.current_time() + VERDICT_TIMEOUT
        return await self.sources.ask(question, partial(self._ask, question, deadline, priority))

    async def _ask(
        self, question: Question, deadline: float, priority: bool, source: Source
    ) -> Verdict:
        """Ask a source in turn, and count its verdict."""
        if isinstance(source, DeviceList):
            # Many questions wait for one fetch, and `devicewatch` tells why one fails.
            verdict = await source.ask(question)
            self._metrics.admission(source.name, verdict.outcome.value)
            return verdict
        state = self._states[source]
        verdict = await state.asker.ask(question, deadline, priority=priority)
        self._metrics.admission(source.name, verdict.outcome.value)
        if verdict.authoritative:
            self.troubles.pop(source.name, None)
            return verdict
        if verdict.outcome in {Outcome.SLOW, *UNAVAILABLE}:
            self.troubles[source.name] = verdict.reason
        self._log_trouble(source, state, verdict)
        return verdict

    def _log_trouble(self, source: Source, state: _SourceState, verdict: Verdict) -> None:
        now = trio.current_time()
        wait = TROUBLE_EVERY if state.logged == verdict.reason else NEW_TROUBLE_EVERY
        if now - state.logged_at < wait:
            return
        state.logged, state.logged_at = verdict.reason, now
        sources = self.sources
        opens = verdict.outcome in UNAVAILABLE and source in sources.urls and sources.fail_open
        event = _ADMITTED_UNASKED if opens else _REFUSED_UNASKED
        logger.error(event, source=source.name, reason=verdict.reason)


def _label(verdict: Verdict, *, cached: bool) -> str:
    label = "allowed" if verdict.admitted else "refused"
    if verdict.failed_open:
        label = "failed_open"
    return f"remembered_{label}" if cached else label
