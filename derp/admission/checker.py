"""The checker: asks who knows the clients, in order, and remembers what they said.

    a key in the file is in
    otherwise tailscaled must know it        (where it is asked at all)
    and one of the URLs must allow it        (where there are any)

Where there is only the file, whoever is not in it is out. tailscaled that can't be asked refuses;
URLs that can't be asked admit, unless told otherwise, as those of the Go derper do. That they can't
be asked is shown by a question that had the URL to itself (`limiter`): where too many strangers
knock for the URL or for us, those who get no answer are refused.

Connections that come with the same question share one answer. Of two questions about the same
client the later one counts.
"""

import time
from collections.abc import Sequence
from typing import Final

import attrs
import trio

from derp import log
from derp.admission.allowlist import AllowList
from derp.admission.asker import Asker
from derp.admission.cache import Verdict, VerdictCache
from derp.admission.question import LOST, Answer, Outcome, Question, Source
from derp.metrics import Metrics

VERDICT_TIMEOUT: Final = 9.0
"""Seconds for a verdict: clients give up after 10 s."""
MAX_REFUSED_SHOWN: Final = 100
TROUBLE_EVERY: Final = 60.0
"""Seconds between log lines about the same trouble with a source."""
NEW_TROUBLE_EVERY: Final = 10.0
"""Seconds between those about changing ones."""

_ADMITTED_UNASKED: Final = "can't ask who belongs, so clients are admitted"
_REFUSED_UNASKED: Final = "can't ask who belongs, so clients are refused"

logger = log.get("admit")


@attrs.define
class Refused:
    """A key that was refused, for the pages."""

    key: bytes
    count: int
    last: float
    """Unix time, in seconds."""
    reason: str


@attrs.define(eq=False)
class _UnderWay:
    """A question that is being asked, for those who come with the same."""

    done: trio.Event = attrs.field(factory=trio.Event)
    verdict: Verdict | None = None
    """None, once it is done, where whoever asked has gone."""


@attrs.define(eq=False)
class _Asked:
    """What there is for each source: who asks it, and trouble with it."""

    asker: Asker
    logged: str = ""
    """The trouble that was logged last, and when."""
    logged_at: float = -TROUBLE_EVERY


class Checker:
    """Who may use the relay."""

    def __init__(
        self,
        metrics: Metrics,
        *,
        listing: AllowList | None = None,
        tailscaled: Source | None = None,
        controllers: Sequence[Source] = (),
        fail_open: bool = True,
        remember: float = 30.0,
    ) -> None:
        self.listing = listing
        self.tailscaled = tailscaled
        self.controllers = tuple(controllers)
        self.refused: dict[bytes, Refused] = {}
        """The keys that were refused, of the last refusals; the latest is last."""
        self.troubles: dict[str, str] = {}
        """Why a source can't be asked, by its name, since it last could."""
        self._metrics = metrics
        self._fail_open = fail_open
        self._memory = VerdictCache(remember)
        self._under_way: dict[Question, _UnderWay] = {}
        self._asked = {
            source: _Asked(Asker(source))
            for source in (tailscaled, *controllers)
            if source is not None
        }

    async def admit(self, question: Question, *, at_once: bool = False) -> Verdict:
        """Return the verdict on a client that logs in.

        With `at_once`, whoever can't be judged without asking is not admitted.
        """
        # This costs nothing, and so a key that has just been listed need not wait.
        verdict = self._look_into_list(question)
        remembered = False
        if verdict is None:
            verdict = self._memory.recall(question, trio.current_time())
            remembered = verdict is not None
        if verdict is None and at_once:
            verdict = _TOO_MANY
        elif verdict is None:
            verdict = await self._ask_with_others(question)
            # A later question may have been answered sooner.
            verdict = self._memory.recall(question, trio.current_time()) or verdict
        self._metrics.admission_verdict(_label(verdict, remembered=remembered))
        if not verdict.admitted:
            self._note_refusal(question, verdict)
        return verdict

    async def recheck(self, question: Question) -> Verdict:
        """Ask about a client that is connected, and remember the verdict instead of any other."""
        return await self._ask_anew(question, urgent=True)

    def is_familiar(self, key: bytes) -> bool:
        """Tell whether a key was admitted lately."""
        return self._memory.is_familiar(key)

    def forget(self) -> None:
        """Forget all verdicts, those under way too: what they stand on has changed."""
        self._memory.forget()
        self._under_way.clear()

    async def probe(self) -> None:
        """Ask tailscaled about nobody, so that it shows at the start if it can't be asked."""
        if self.tailscaled is not None:
            deadline = trio.current_time() + VERDICT_TIMEOUT
            nobody = Question(bytes(32), "127.0.0.1")
            await self._ask(self.tailscaled, nobody, deadline, urgent=True)

    async def _ask_with_others(self, question: Question) -> Verdict:
        """Ask, or wait for the answer to the same question."""
        while (other := self._under_way.get(question)) is not None:
            await other.done.wait()
            if other.verdict is not None:
                return other.verdict
        return await self._ask_anew(question, urgent=self._memory.is_familiar(question.key))

    async def _ask_anew(self, question: Question, *, urgent: bool) -> Verdict:
        """Ask, whatever is remembered or under way."""
        self._under_way[question] = this = _UnderWay()
        try:
            this.verdict = await self._judge(question, urgent=urgent)
        finally:
            # What a later question, or a changed list, has overtaken is not remembered.
            if self._under_way.get(question) is this:
                del self._under_way[question]
                if this.verdict is not None:
                    self._memory.note(question, this.verdict, trio.current_time())
            this.done.set()
        return this.verdict

    def _look_into_list(self, question: Question) -> Verdict | None:
        """Return the verdict of the list, None where it is for others to say."""
        listing = self.listing
        if listing is None:
            return None
        answer = listing.answer(question)
        verdict = None
        if answer.outcome is Outcome.ALLOWED:
            verdict = Verdict(admitted=True, source=listing.name)
        elif not self._asked:
            verdict = _refusal(listing.name, answer)
        if verdict is not None:
            self._metrics.admission(listing.name, answer.outcome.value)
        return verdict

    async def _judge(self, question: Question, *, urgent: bool) -> Verdict:
        verdict = self._look_into_list(question)
        if verdict is not None:
            return verdict
        deadline = trio.current_time() + VERDICT_TIMEOUT
        if self.tailscaled is not None:
            answer = await self._ask(self.tailscaled, question, deadline, urgent=urgent)
            if answer.outcome is not Outcome.ALLOWED:
                return _refusal(self.tailscaled.name, answer)
            if not self.controllers:
                return Verdict(admitted=True, source=self.tailscaled.name)
        return await self._judge_by_url(question, deadline, urgent=urgent)

    async def _judge_by_url(self, question: Question, deadline: float, *, urgent: bool) -> Verdict:
        """Ask all URLs side by side; the first that allows is enough."""
        answers: list[tuple[Source, Answer]] = []

        async def ask(source: Source) -> None:
            answer = await self._ask(source, question, deadline, urgent=urgent)
            answers.append((source, answer))
            if answer.outcome is Outcome.ALLOWED:
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for source in self.controllers:
                nursery.start_soon(ask, source)
        source, answer = min(answers, key=_weight)
        if answer.outcome is Outcome.ALLOWED:
            return Verdict(admitted=True, source=source.name)
        refusal = _refusal(source.name, answer)
        if answer.outcome in LOST and self._fail_open:
            return attrs.evolve(refusal, admitted=True, lasts=True)
        return refusal

    async def _ask(
        self, source: Source, question: Question, deadline: float, *, urgent: bool
    ) -> Answer:
        """Ask a source in turn, and count its answer."""
        asked = self._asked[source]
        answer = await asked.asker.ask(question, deadline, urgent=urgent)
        self._metrics.admission(source.name, answer.outcome.value)
        if answer.outcome in {Outcome.ALLOWED, Outcome.REFUSED}:
            self.troubles.pop(source.name, None)
            return answer
        if answer.outcome in LOST:
            self.troubles[source.name] = answer.reason
        self._log_trouble(source, asked, answer)
        return answer

    def _log_trouble(self, source: Source, asked: _Asked, answer: Answer) -> None:
        now = trio.current_time()
        wait = TROUBLE_EVERY if asked.logged == answer.reason else NEW_TROUBLE_EVERY
        if now - asked.logged_at < wait:
            return
        asked.logged, asked.logged_at = answer.reason, now
        is_lost = answer.outcome in LOST
        opens = is_lost and source in self.controllers and self._fail_open
        event = _ADMITTED_UNASKED if opens else _REFUSED_UNASKED
        logger.error(event, source=source.name, reason=answer.reason)

    def _note_refusal(self, question: Question, verdict: Verdict) -> None:
        refused = self.refused.pop(question.key, None)
        count = 1 if refused is None else refused.count + 1
        while len(self.refused) >= MAX_REFUSED_SHOWN:
            del self.refused[next(iter(self.refused))]
        self.refused[question.key] = Refused(question.key, count, time.time(), verdict.reason)


_ORDER: Final = (Outcome.ALLOWED, Outcome.NO_ROOM, *LOST, Outcome.REFUSED)


def _weight(said: tuple[Source, Answer]) -> int:
    """Order what several URLs say: the least one is decisive."""
    return _ORDER.index(said[1].outcome)


def _refusal(source: str, answer: Answer) -> Verdict:
    return Verdict(
        admitted=False,
        source=source,
        reason=answer.reason,
        certain=answer.outcome is Outcome.REFUSED,
        lasts=answer.outcome is Outcome.REFUSED,
    )


_TOO_MANY: Final = Verdict(
    admitted=False,
    source="the checker",
    reason="too many others wait for a verdict; is a source slow, or are we attacked?",
    certain=False,
    lasts=False,
)

VERDICTS: Final = (
    *("allowed", "refused", "failed_open"),
    *("remembered_allowed", "remembered_refused", "remembered_failed_open"),
)
"""The labels of verdicts in the metrics."""


def _label(verdict: Verdict, *, remembered: bool) -> str:
    if verdict.admitted and not verdict.certain:
        label = "failed_open"
    else:
        label = "allowed" if verdict.admitted else "refused"
    return f"remembered_{label}" if remembered else label
