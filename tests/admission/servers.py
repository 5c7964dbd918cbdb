"""Servers that take time to answer, each in its own way, and don't notice who has given up."""

import heapq
import math
from collections.abc import Callable
from typing import Protocol

import trio

from derp.admission.model import LATEST_ANSWER, Outcome, Question, Verdict

YES = Verdict(Outcome.ALLOWED, "url")
NO = Verdict(Outcome.REFUSED, "url", "does not allow it")
LATE = Verdict(Outcome.LATE, "url", "gave no answer within 30 s")
UNREACHABLE = Verdict(Outcome.UNREACHABLE, "url", "can't be asked (Connection refused)")


class Work(Protocol):
    """When a server is done with a question that comes now and is `takes` seconds of work."""

    async def done(self, takes: float) -> None: ...


class Parallel:
    """So many questions at a time, in the order in which they come."""

    def __init__(self, at_a_time: float = math.inf) -> None:
        self._free_at = [] if at_a_time == math.inf else [0.0] * int(at_a_time)

    async def done(self, takes: float) -> None:
        start = trio.current_time()
        if self._free_at:
            start = max(start, heapq.heappop(self._free_at))
            heapq.heappush(self._free_at, start + takes)
        await trio.sleep_until(start + takes)


class Sharing:
    """All questions at once, each the slower the more there are."""

    def __init__(self) -> None:
        # What has been done for each that is there since the beginning, and when that was true.
        self._done = self._at = 0.0
        self._ends: list[float] = []

    async def done(self, takes: float) -> None:
        self._advance()
        end = self._done + takes
        heapq.heappush(self._ends, end)
        while self._done < end - 1e-9:
            await trio.sleep_until(self._at + (self._ends[0] - self._done) * len(self._ends))
            self._advance()

    def _advance(self) -> None:
        now = trio.current_time()
        while self._ends:
            next_end = self._at + (self._ends[0] - self._done) * len(self._ends)
            if next_end > now + 1e-9:
                self._done += (now - self._at) / len(self._ends)
                break
            self._at, self._done = next_end, heapq.heappop(self._ends)
        self._at = now


class Server:
    """A source, as far away as its server is slow."""

    def __init__(self, takes: float, work: Work | None = None, name: str = "url") -> None:
        self.name = name
        self.takes = takes
        self.work = work or Parallel(1)
        self.members: set[bytes] = set()
        self.is_silent = False
        self.is_down = False
        self.asked: list[Question] = []
        self.under_way = self.most = 0
        self.special: dict[bytes, Callable[[], Verdict]] = {}

    async def ask(self, question: Question) -> Verdict:
        self.asked.append(question)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            with trio.move_on_after(LATEST_ANSWER):
                return await self._answer(question)
            return LATE
        finally:
            self.under_way -= 1

    async def _answer(self, question: Question) -> Verdict:
        await trio.lowlevel.checkpoint()
        if self.is_down:
            return UNREACHABLE
        if self.is_silent:
            await trio.sleep_forever()
        if question.key in self.special:
            return self.special[question.key]()
        await self.work.done(self.takes)
        return YES if question.key in self.members else NO
