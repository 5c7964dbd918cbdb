"""Admission with workers: the one checker runs in the supervisor, and decides for all of them.

    worker                               supervisor
    WorkerAdmission ── admit ──────► SupervisorAdmission ──► Checker ──► list, tailscaled, URLs
                    ── recheck ────►
    Removals ◄──────── removed ───── keys that a changed list no longer has

A question is {"key": HEX, "address": IP}; a verdict has the fields of Verdict. Each worker rechecks
its own clients; all workers together recheck no more at a time than one process would.
"""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Final

import attrs
import trio

from derp import log
from derp.admission.checker import Checker
from derp.admission.listwatch import keep_checker
from derp.admission.model import Admission, Outcome, Question, Verdict
from derp.errors import ControlLost
from derp.session import recheck
from derp.session.state import RelayState
from derp.workers.pool import WorkerPool
from derp.workers.rpc import Call, Handler, Json

MAX_WAITING: Final = 4096
"""Questions that may wait in the supervisor; one is not cancelled when its client disconnects.

One of a network with fewer than FEW still waits behind up to half as many more, and one of a
recently admitted client behind up to twice as many.
"""
FEW: Final = 32
KEYS_AT_ONCE: Final = 1000
"""Most keys in one message."""
NOTIFY_TRIES: Final = 3
_CHANGES: Final = 16

_ADMIT: Final = "admission.admit"
_RECHECK: Final = "admission.recheck"
_REMOVED: Final = "admission.removed"

logger = log.get("admit")


class SupervisorAdmission:
    """The supervisor's part. `handlers` are for the control connection of each worker."""

    def __init__(self, checker: Checker, pool: WorkerPool) -> None:
        self._checker = checker
        self._pool = pool
        self._waiting = 0
        self._by_network: Counter[str] = Counter()
        self.handlers: dict[str, Handler] = {_ADMIT: self._admit, _RECHECK: self._recheck}

    async def keep(self, wake: trio.MemoryReceiveChannel[None]) -> None:
        """Keep the checker's list up to date; a message on `wake` has it read at once."""
        await keep_checker(self._checker, wake, self._notify_removed)

    async def _admit(self, body: Json) -> Json:
        question = _question(body)
        network = question.network
        is_full = self._waiting >= self._limit(question.key, network)
        self._waiting += 1
        self._by_network[network] += 1
        try:
            return _dump(await self._checker.admit(question, without_asking=is_full))
        finally:
            self._waiting -= 1
            self._by_network[network] -= 1
            if not self._by_network[network]:
                del self._by_network[network]

    def _limit(self, key: bytes, network: str) -> int:
        """Return the number of waiting questions from which on this one is not asked."""
        if self._checker.recently_admitted(key):
            return 2 * MAX_WAITING
        if self._by_network[network] < FEW:
            return MAX_WAITING + MAX_WAITING // 2
        return MAX_WAITING

    async def _recheck(self, body: Json) -> Json:
        return _dump(await self._checker.recheck(_question(body)))

    async def _notify_removed(self, keys: set[bytes]) -> None:
        """Have all workers recheck their clients with these keys."""
        texts = [key.hex() for key in keys]
        for start in range(0, len(texts), KEYS_AT_ONCE):
            await self._notify(texts[start : start + KEYS_AT_ONCE])

    async def _notify(self, keys: Sequence[str]) -> None:
        for _ in range(NOTIFY_TRIES):
            answers = await self._pool.call_all(_REMOVED, keys)
            if len(answers) >= self._pool.size:
                return
        # A worker that is being restarted has no clients yet.
        logger.debug("not all workers know of the new list", answers=len(answers))


class WorkerAdmission:
    """A worker's Admission, a proxy of the supervisor's; it refuses where that can't be asked."""

    def __init__(self, call: Call) -> None:
        self._call = call

    async def admit(self, question: Question) -> Verdict:
        """Return the verdict on a client that logs in."""
        return await self._ask(_ADMIT, question)

    async def recheck(self, question: Question) -> Verdict:
        """Return a new verdict on a client that is connected."""
        return await self._ask(_RECHECK, question)

    async def _ask(self, what: str, question: Question) -> Verdict:
        body = {"key": question.key.hex(), "address": question.address}
        try:
            verdict = await self._call(what, body)
        except ControlLost as error:
            return Verdict(
                Outcome.UNREACHABLE,
                source="the supervisor of the workers",
                reason=f"it can't be asked ({error})",
            )
        return Verdict(**verdict | {"outcome": Outcome(verdict["outcome"])})


class Removals:
    """The rechecks of one worker's clients. `handlers` are for its control connection."""

    def __init__(self, state: RelayState, admission: Admission, every: float, workers: int) -> None:
        """Recheck all clients every so many seconds, 0 for never, as one of so many workers."""
        self._state = state
        self._admission = admission
        self._every = every
        self._concurrency = max(1, recheck.CONCURRENCY // workers)
        self._to_run, self._changes = trio.open_memory_channel[Sequence[bytes]](_CHANGES)
        self.handlers: dict[str, Handler] = {_REMOVED: self._removed}

    async def run(self) -> None:
        """Recheck all clients from time to time, and those whose keys the list has lost."""
        recheck_some = partial(
            recheck.recheck,
            self._state,
            self._admission,
            strict=True,
            concurrency=self._concurrency,
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                recheck.recheck_unverified, self._state, self._admission, self._concurrency
            )
            if self._every:
                nursery.start_soon(
                    recheck.recheck_forever,
                    *(self._state, self._admission, self._every, self._concurrency),
                )
            async for keys in self._changes:
                # In a task of its own: sources may be slow, and the list may change meanwhile.
                nursery.start_soon(recheck_some, keys)

    async def _removed(self, body: Json) -> Json:
        await self._to_run.send([bytes.fromhex(key) for key in body])


def _question(body: Json) -> Question:
    return Question(bytes.fromhex(body["key"]), body["address"])


def _dump(verdict: Verdict) -> Json:
    return attrs.asdict(verdict) | {"outcome": verdict.outcome.value}
