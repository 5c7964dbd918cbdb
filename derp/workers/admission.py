"""The one gate of a relay with workers: asked and kept by the supervisor, for all of them.

    worker                               supervisor
    WorkerAdmission ── admit ──────► SupervisorAdmission ──► Checker ──► tailscaled, URLs, cache
                    ── recheck ────►
    Removals ◄──────── removed ───── the list has changed: keys that are no longer in it

A question is {"key": HEX, "source": IP}, a verdict has the fields of Verdict. Each worker asks
again about the clients that it has; together they don't ask more side by side than one would.
"""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Final

import attrs
import trio

from derp import log
from derp.admission.cache import Verdict
from derp.admission.checker import Checker
from derp.admission.judge import Admission
from derp.admission.listwatch import keep_checker
from derp.admission.question import Question
from derp.errors import ControlLost
from derp.session import recheck
from derp.session.state import RelayState
from derp.workers.asking import Call, Workers
from derp.workers.rpc import Handler, Json

MAX_UNDER_WAY: Final = 4096
"""Questions that may wait in the supervisor, of any sort; that a client has left takes back none.
Of networks with few of them half as many more may wait, and twice as many in all about clients that
were admitted lately."""
FEW: Final = 32
"""Questions of one network that are few."""
KEYS_AT_ONCE: Final = 1000
"""Most keys in one message: a list may have 200,000."""
TELL_TRIES: Final = 3
_CHANGES: Final = 16

_ADMIT: Final = "admission.admit"
_ASK_AGAIN: Final = "admission.recheck"
_REMOVED: Final = "admission.removed"

logger = log.get("admit")


class SupervisorAdmission:
    """The supervisor's part. `handlers` are for the control connection of each worker."""

    def __init__(self, admission: Checker, pool: Workers) -> None:
        self._admission = admission
        self._pool = pool
        self._under_way = 0
        self._networks: Counter[str] = Counter()
        self.handlers: dict[str, Handler] = {_ADMIT: self._admit, _ASK_AGAIN: self._ask_again}

    async def keep(self, wake: trio.MemoryReceiveChannel[None]) -> None:
        """Keep the gate as the list has it; `wake` says to look at that at once."""
        await keep_checker(self._admission, wake, self._tell_removed)

    async def _admit(self, body: Json) -> Json:
        question = _question(body)
        network = question.network
        at_once = self._under_way >= self._room(question.key, network)
        self._under_way += 1
        self._networks[network] += 1
        try:
            return attrs.asdict(await self._admission.admit(question, at_once=at_once))
        finally:
            self._under_way -= 1
            self._networks[network] -= 1
            if not self._networks[network]:
                del self._networks[network]

    def _room(self, key: bytes, network: str) -> int:
        """Return how many questions may be under way for another one to be asked."""
        if self._admission.is_familiar(key):
            return 2 * MAX_UNDER_WAY
        if self._networks[network] < FEW:
            return MAX_UNDER_WAY + MAX_UNDER_WAY // 2
        return MAX_UNDER_WAY

    async def _ask_again(self, body: Json) -> Json:
        return attrs.asdict(await self._admission.recheck(_question(body)))

    async def _tell_removed(self, keys: set[bytes]) -> None:
        """Have all workers ask about those of `keys` that they have."""
        texts = [key.hex() for key in keys]
        for start in range(0, len(texts), KEYS_AT_ONCE):
            await self._tell(texts[start : start + KEYS_AT_ONCE])

    async def _tell(self, keys: Sequence[str]) -> None:
        for _ in range(TELL_TRIES):
            answers = await self._pool.each(_REMOVED, keys)
            if len(answers) >= self._pool.size:
                return
        # One that is being started anew has no clients yet.
        logger.debug("not all workers know of the new list", answers=len(answers))


class WorkerAdmission:
    """A worker's Judge: passes on what is asked. Where that can't be, nobody is admitted."""

    def __init__(self, call: Call) -> None:
        self._call = call

    async def admit(self, question: Question) -> Verdict:
        """Return the verdict on a client that logs in."""
        return await self._ask(_ADMIT, question)

    async def recheck(self, question: Question) -> Verdict:
        """Have it asked anew, and return the verdict on a client that is connected."""
        return await self._ask(_ASK_AGAIN, question)

    async def _ask(self, what: str, question: Question) -> Verdict:
        try:
            answer = await self._call(what, {"key": question.key.hex(), "source": question.source})
        except ControlLost as error:
            return Verdict(
                admitted=False,
                source="the supervisor of the workers",
                reason=f"it can't be asked ({error})",
                certain=False,
                lasts=False,
            )
        return Verdict(**answer)


class Removals:
    """Ends the clients of a worker that don't belong any more. `handlers` are for its control."""

    def __init__(self, state: RelayState, admission: Admission, every: float, workers: int) -> None:
        """`every` is as for `admission.keep`; `workers` is how many there are."""
        self._state = state
        self._admission = admission
        self._every = every
        self._side_by_side = max(1, recheck.SIDE_BY_SIDE // workers)
        self._to_run, self._changes = trio.open_memory_channel[Sequence[bytes]](_CHANGES)
        self.handlers: dict[str, Handler] = {_REMOVED: self._removed}

    async def run(self) -> None:
        """Ask about all from time to time, and about those that the list has lost."""
        ask = partial(
            recheck.recheck,
            self._state,
            self._admission,
            strict=True,
            side_by_side=self._side_by_side,
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                recheck.recheck_unverified, self._state, self._admission, self._side_by_side
            )
            if self._every:
                nursery.start_soon(
                    recheck.recheck_forever,
                    *(self._state, self._admission, self._every, self._side_by_side),
                )
            async for keys in self._changes:
                # Beside the next changes: those who are to be asked may be slow.
                nursery.start_soon(ask, keys)

    async def _removed(self, body: Json) -> Json:
        await self._to_run.send([bytes.fromhex(key) for key in body])


def _question(body: Json) -> Question:
    return Question(bytes.fromhex(body["key"]), body["source"])
