"""The gate: asks who knows the clients, in order, and remembers what they said.

    a key in the file is in
    otherwise tailscaled must know it        (where it is asked at all)
    and one of the URLs must allow it        (where there are any)

Where there is only the file, whoever is not in it is out. tailscaled that can't be asked refuses;
URLs that can't be asked admit, unless told otherwise, as those of the Go derper do. Where it is we
who can't ask, because too many strangers knock, nobody is admitted.

Each source is asked by STRANGERS_ROOM questions side by side at most, and has room left for the
keys that were admitted lately. Connections that come with the same question share one answer. Of
two questions about the same client the later one counts.
"""

import time
from collections.abc import Sequence
from typing import Final

import attrs
import trio

from derp import log
from derp.admit.memory import Memory, Verdict
from derp.admit.nodelist import Listing
from derp.admit.question import Answer, Outcome, Question, Source
from derp.metrics import Metrics

STRANGERS_ROOM: Final = 128
FAMILIAR_ROOM: Final = 32
ROOM_TIMEOUT: Final = 5.5
"""Seconds that a question waits for room: longer than a source takes to turn out to be away."""
VERDICT_TIMEOUT: Final = 8.0
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
    """What there is for each source: the room for questions, and trouble with it."""

    strangers: trio.Semaphore = attrs.field(factory=lambda: trio.Semaphore(STRANGERS_ROOM))
    familiar: trio.Semaphore = attrs.field(factory=lambda: trio.Semaphore(FAMILIAR_ROOM))
    logged: str = ""
    """The trouble that was logged last, and when."""
    logged_at: float = -TROUBLE_EVERY


class Gate:
    """Who may use the relay."""

    def __init__(
        self,
        metrics: Metrics,
        *,
        listing: Listing | None = None,
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
        self._memory = Memory(remember)
        self._under_way: dict[Question, _UnderWay] = {}
        self._asked = {
            source: _Asked() for source in (tailscaled, *controllers) if source is not None
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

    async def ask_again(self, question: Question) -> Verdict:
        """Ask, whatever is remembered or under way, and remember the verdict instead."""
        self._under_way[question] = this = _UnderWay()
        try:
            this.verdict = await self._judge(question)
        finally:
            # What a later question, or a changed list, has overtaken is not remembered.
            if self._under_way.get(question) is this:
                del self._under_way[question]
                if this.verdict is not None:
                    self._memory.note(question, this.verdict, trio.current_time())
            this.done.set()
        return this.verdict

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
            await self._ask(self.tailscaled, Question(bytes(32), "127.0.0.1"), deadline)

    async def _ask_with_others(self, question: Question) -> Verdict:
        """Ask, or wait for the answer to the same question."""
        while (other := self._under_way.get(question)) is not None:
            await other.done.wait()
            if other.verdict is not None:
                return other.verdict
        return await self.ask_again(question)

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

    async def _judge(self, question: Question) -> Verdict:
        verdict = self._look_into_list(question)
        if verdict is not None:
            return verdict
        deadline = trio.current_time() + VERDICT_TIMEOUT
        if self.tailscaled is not None:
            answer = await self._ask(self.tailscaled, question, deadline)
            if answer.outcome is not Outcome.ALLOWED:
                return _refusal(self.tailscaled.name, answer)
            if not self.controllers:
                return Verdict(admitted=True, source=self.tailscaled.name)
        return await self._judge_by_url(question, deadline)

    async def _judge_by_url(self, question: Question, deadline: float) -> Verdict:
        """Ask all URLs side by side; the first that allows is enough."""
        answers: list[tuple[Source, Answer]] = []

        async def ask(source: Source) -> None:
            answer = await self._ask(source, question, deadline)
            answers.append((source, answer))
            if answer.outcome is Outcome.ALLOWED:
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for source in self.controllers:
                nursery.start_soon(ask, source)
        for decisive in (Outcome.ALLOWED, Outcome.NO_ROOM, Outcome.UNKNOWN, Outcome.REFUSED):
            for source, answer in answers:
                if answer.outcome is not decisive:
                    continue
                if decisive is Outcome.ALLOWED:
                    return Verdict(admitted=True, source=source.name)
                verdict = _refusal(source.name, answer)
                opens = decisive is Outcome.UNKNOWN and self._fail_open
                return attrs.evolve(verdict, admitted=opens)
        raise AssertionError("each source gives an answer")

    async def _ask(self, source: Source, question: Question, deadline: float) -> Answer:
        """Ask a source, as soon as there is room, and count its answer."""
        asked = self._asked[source]
        room = asked.familiar if self._memory.is_familiar(question.key) else asked.strangers
        with trio.move_on_at(min(deadline, trio.current_time() + ROOM_TIMEOUT)) as waiting:
            await room.acquire()
        answer = None
        if not waiting.cancelled_caught:
            try:
                with trio.move_on_at(deadline):
                    answer = await source.ask(question)
            finally:
                room.release()
        if answer is None:
            answer = self._not_in_time(source)
        self._metrics.admission(source.name, answer.outcome.value)
        if answer.outcome in {Outcome.UNKNOWN, Outcome.NO_ROOM}:
            if answer.outcome is Outcome.UNKNOWN:
                self.troubles[source.name] = answer.reason
            self._log_trouble(source, asked, answer)
        else:
            self.troubles.pop(source.name, None)
        return answer

    def _not_in_time(self, source: Source) -> Answer:
        """Answer for a source that could not be asked in time: it is away, or we ask too much."""
        trouble = self.troubles.get(source.name)
        if trouble is not None:
            return Answer(Outcome.UNKNOWN, trouble)
        reason = f"no answer in time among up to {STRANGERS_ROOM} others; is it slow, or attacked?"
        return Answer(Outcome.NO_ROOM, reason)

    def _log_trouble(self, source: Source, asked: _Asked, answer: Answer) -> None:
        now = trio.current_time()
        wait = TROUBLE_EVERY if asked.logged == answer.reason else NEW_TROUBLE_EVERY
        if now - asked.logged_at < wait:
            return
        asked.logged, asked.logged_at = answer.reason, now
        unknown = answer.outcome is Outcome.UNKNOWN
        opens = unknown and source in self.controllers and self._fail_open
        event = _ADMITTED_UNASKED if opens else _REFUSED_UNASKED
        logger.error(event, source=source.name, reason=answer.reason)

    def _note_refusal(self, question: Question, verdict: Verdict) -> None:
        refused = self.refused.pop(question.key, None)
        count = 1 if refused is None else refused.count + 1
        while len(self.refused) >= MAX_REFUSED_SHOWN:
            del self.refused[next(iter(self.refused))]
        self.refused[question.key] = Refused(question.key, count, time.time(), verdict.reason)


def _refusal(source: str, answer: Answer) -> Verdict:
    return Verdict(
        admitted=False,
        source=source,
        reason=answer.reason,
        certain=answer.outcome is Outcome.REFUSED,
        lasts=answer.outcome is not Outcome.NO_ROOM,
    )


_TOO_MANY: Final = Verdict(
    admitted=False,
    source="the gate",
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
