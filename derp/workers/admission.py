"""Admission with workers: the one checker runs in the supervisor, and decides for all workers.

    worker                               supervisor
    WorkerAdmission ── admit ──────► SupervisorAdmission ──► Checker ──► list, tailscaled, URLs
                    ── recheck ────►
    WorkerRechecks ◄── removed ───── keys that a changed list no longer has

A question is {"key": HEX, "address": IP}; a verdict has the fields of Verdict. Each worker rechecks
its own clients; all workers together ask no more questions at a time than one process would.
"""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Final

import attrs
import trio

from derp import log
from derp.admission.checker import Checker
from derp.admission.keep import keep_checker
from derp.admission.listkeeper import ListRequest
from derp.admission.model import Admission, Outcome, Question, Verdict
from derp.errors import RPCFailed
from derp.session import recheck
from derp.session.state import RelayState
from derp.workers.pool import WorkerPool
from derp.workers.rpc import Call, Handler, Json

MAX_WAITING: Final = 4096
"""Questions that may wait in the supervisor, those of clients that have disconnected included.

The limit is one half higher for a network of which fewer than FEW wait, and twice as high for a
client that was admitted recently.
"""
FEW: Final = 32
KEYS_AT_ONCE: Final = 1000
"""Most keys in one message."""
NOTIFY_TRIES: Final = 3
"""How often the workers are told of removed keys until all have answered."""
_CHANGES: Final = 16
"""Messages with removed keys that may wait in a worker."""

_ADMIT: Final = "admission.admit"
_RECHECK: Final = "admission.recheck"
_REMOVED: Final = "admission.removed"

logger = log.get("admit")


class SupervisorAdmission:
    """The supervisor's side. `handlers` are for the RPC connection of each worker."""

    def __init__(self, checker: Checker, pool: WorkerPool) -> None:
        self._checker = checker
        self._pool = pool
        self._waiting = 0
        self._by_network: Counter[str] = Counter()
        self.handlers: dict[str, Handler] = {_ADMIT: self._admit, _RECHECK: self._recheck}

    async def keep(self, requests: trio.MemoryReceiveChannel[ListRequest]) -> None:
        """Keep the checker's lists up to date; `requests` are those about the allow-list."""
        await keep_checker(self._checker, requests, self.notify_removed)

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
        """Return how many waiting questions keep this one from being asked."""
        if self._checker.recently_allowed(key):
            return 2 * MAX_WAITING
        if self._by_network[network] < FEW:
            return MAX_WAITING + MAX_WAITING // 2
        return MAX_WAITING

    async def _recheck(self, body: Json) -> Json:
        return _dump(await self._checker.recheck(_question(body)))

    async def notify_removed(self, keys: set[bytes]) -> None:
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
        logger.debug("not all workers have the changed list", answers=len(answers))


class WorkerAdmission:
    """A worker's Admission: asks the supervisor, and refuses without its answer."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def known(self, question: Question) -> Verdict | None:  # noqa: ARG002 -- the supervisor knows
        """Return None."""
        return None

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
        except RPCFailed as error:
            return Verdict(
                Outcome.UNREACHABLE,
                source="the supervisor of the workers",
                reason=f"it can't be asked ({error})",
            )
        return Verdict(**verdict | {"outcome": Outcome(verdict["outcome"])})


class WorkerRechecks:
    """The rechecks of a worker's clients. `handlers` are for its RPC connection."""

    def __init__(self, state: RelayState, admission: Admission, every: float, workers: int) -> None:
        """Recheck all clients every `every` seconds, 0 for never; `workers` share CONCURRENCY."""
        self._state = state
        self._admission = admission
        self._every = every
        self._concurrency = max(1, recheck.CONCURRENCY // workers)
        self._to_run, self._changes = trio.open_memory_channel[Sequence[bytes]](_CHANGES)
        self.handlers: dict[str, Handler] = {_REMOVED: self._removed}

    async def run(self) -> None:
        """Recheck all clients from time to time, and those with removed keys at once."""
        state, admission, most = self._state, self._admission, self._concurrency
        recheck_removed = partial(recheck.recheck, state, admission, strict=True, concurrency=most)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(recheck.recheck_unverified, state, admission, most)
            if self._every:
                nursery.start_soon(recheck.recheck_forever, state, admission, self._every, most)
            async for keys in self._changes:
                # In a task of its own: sources may be slow, and the list may change meanwhile.
                nursery.start_soon(recheck_removed, keys)

    async def _removed(self, body: Json) -> Json:
        await self._to_run.send([bytes.fromhex(key) for key in body])


def _question(body: Json) -> Question:
    return Question(bytes.fromhex(body["key"]), body["address"])


def _dump(verdict: Verdict) -> Json:
    return attrs.asdict(verdict) | {"outcome": verdict.outcome.value}
