"""The gate: asks who knows the clients, in order, and remembers what they said.

    a key in the file is in
    otherwise tailscaled must know it        (where it is asked at all)
    and one of the URLs must allow it        (where there are any)

Where there is only the file, whoever is not in it is out. tailscaled that can't be asked refuses;
URLs that can't be asked admit, unless told otherwise, as those of the Go derper do.

Questions run side by side, MAX_QUESTIONS at most; a client whose question finds no room within
ROOM_TIMEOUT gets the verdict of a source that can't be asked. Connections that come with the same
question share one answer.
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

MAX_QUESTIONS: Final = 128
ROOM_TIMEOUT: Final = 4.0
"""Seconds that a question waits for room."""
MAX_REFUSED_SHOWN: Final = 100
TROUBLE_EVERY: Final = 60.0
"""Seconds between log lines about the same trouble with a source."""

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


@attrs.define
class _Trouble:
    """Why a source can't be asked, and when that was logged."""

    reason: str
    logged: float


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
        self.refused: dict[bytes, Refused] = {}
        """The keys that were refused, of the last refusals; the latest is last."""
        self.troubles: dict[str, str] = {}
        """Why a source can't be asked, by its name, since it last could."""
        self._metrics = metrics
        self._tailscaled = tailscaled
        self.controllers = tuple(controllers)
        self._fail_open = fail_open
        self._memory = Memory(remember)
        self._under_way: dict[Question, trio.Event] = {}
        self._room = trio.Semaphore(MAX_QUESTIONS)
        self._logged: dict[str, _Trouble] = {}

    async def admit(self, question: Question) -> Verdict:
        """Return the verdict on a client that logs in."""
        while True:
            verdict = self._memory.recall(question, trio.current_time())
            if verdict is not None:
                self._metrics.admission_verdict(_label(verdict, remembered=True))
                break
            other = self._under_way.get(question)
            if other is None:
                verdict = await self.ask_again(question)
                self._metrics.admission_verdict(_label(verdict, remembered=False))
                break
            await other.wait()
        if not verdict.admitted:
            self._note_refusal(question, verdict)
        return verdict

    async def ask_again(self, question: Question) -> Verdict:
        """Ask, whatever is remembered, and remember the verdict instead."""
        self._under_way[question] = done = trio.Event()
        try:
            verdict = await self._judge(question)
            self._memory.note(question, verdict, trio.current_time())
            return verdict
        finally:
            # Also where the client vanished meanwhile: another one then asks for itself.
            if self._under_way.get(question) is done:
                del self._under_way[question]
            done.set()

    def forget(self) -> None:
        """Forget all verdicts: what they stand on has changed."""
        self._memory.forget()

    async def _judge(self, question: Question) -> Verdict:
        if self.listing is not None:
            answer = await self._ask(self.listing, question)
            if answer.outcome is Outcome.ALLOWED:
                return Verdict(admitted=True, source=self.listing.name)
            if self._tailscaled is None and not self.controllers:
                return _refusal(self.listing, answer)
        if self._tailscaled is not None:
            answer = await self._ask(self._tailscaled, question)
            if answer.outcome is not Outcome.ALLOWED:
                return _refusal(self._tailscaled, answer)
            if not self.controllers:
                return Verdict(admitted=True, source=self._tailscaled.name)
        return await self._judge_by_url(question)

    async def _judge_by_url(self, question: Question) -> Verdict:
        """Ask all URLs side by side; the first that allows is enough."""
        answers: list[tuple[Source, Answer]] = []

        async def ask(source: Source) -> None:
            answer = await self._ask(source, question)
            answers.append((source, answer))
            if answer.outcome is Outcome.ALLOWED:
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for source in self.controllers:
                nursery.start_soon(ask, source)
        source, answer = answers[-1]
        if answer.outcome is Outcome.ALLOWED:
            return Verdict(admitted=True, source=source.name)
        for source, answer in answers:
            if answer.outcome is Outcome.UNKNOWN:
                verdict = _refusal(source, answer)
                return attrs.evolve(verdict, admitted=self._fail_open)
        return _refusal(*answers[0])

    async def _ask(self, source: Source, question: Question) -> Answer:
        """Ask one source, as soon as there is room, and count its answer."""
        if source is self.listing:
            answer = await source.ask(question)
        else:
            answer = await self._ask_in_turn(source, question)
        self._metrics.admission(source.name, answer.outcome.value)
        if answer.outcome is Outcome.UNKNOWN:
            self._note_trouble(source, answer.reason)
        else:
            self.troubles.pop(source.name, None)
        return answer

    async def _ask_in_turn(self, source: Source, question: Question) -> Answer:
        with trio.move_on_after(ROOM_TIMEOUT) as waiting:
            await self._room.acquire()
        if waiting.cancelled_caught:
            reason = f"{MAX_QUESTIONS} questions are under way; is it slow, or are we attacked?"
            return Answer(Outcome.UNKNOWN, reason)
        try:
            return await source.ask(question)
        finally:
            self._room.release()

    def _note_trouble(self, source: Source, reason: str) -> None:
        self.troubles[source.name] = reason
        now = trio.current_time()
        logged = self._logged.get(source.name)
        if logged is None or logged.reason != reason or now - logged.logged >= TROUBLE_EVERY:
            self._logged[source.name] = _Trouble(reason, now)
            admits = source in self.controllers and self._fail_open
            event = _ADMITTED_UNASKED if admits else _REFUSED_UNASKED
            logger.error(event, source=source.name, reason=reason)

    def _note_refusal(self, question: Question, verdict: Verdict) -> None:
        refused = self.refused.pop(question.key, None)
        count = 1 if refused is None else refused.count + 1
        while len(self.refused) >= MAX_REFUSED_SHOWN:
            del self.refused[next(iter(self.refused))]
        self.refused[question.key] = Refused(question.key, count, time.time(), verdict.reason)


def _refusal(source: Source, answer: Answer) -> Verdict:
    return Verdict(
        admitted=False,
        source=source.name,
        reason=answer.reason,
        certain=answer.outcome is not Outcome.UNKNOWN,
    )


def _label(verdict: Verdict, *, remembered: bool) -> str:
    """Return the label of a verdict in the metrics."""
    if verdict.admitted and not verdict.certain:
        label = "failed_open"
    else:
        label = "allowed" if verdict.admitted else "refused"
    return f"remembered_{label}" if remembered else label
