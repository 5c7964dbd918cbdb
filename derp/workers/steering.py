"""Steering with workers: the supervisor does it, whichever process is asked.

worker                              supervisor
WorkerSteering ── steering.kick ──► SupervisorSteering ── clients.end ──► all workers
── steering.deny ──►                    ──► the policy (derp.workers.policy)
"""

from collections.abc import Awaitable
from typing import Final

import trio

from derp.admission.policykeeper import Wishes
from derp.errors import ControlLate, ControlLost, SteeringFailed
from derp.service.steering import Ended, KeyList, RelaySteering, Steered, end_clients, is_mesh
from derp.session.state import RelayState
from derp.workers.pool import WorkerPool
from derp.workers.rpc import Call, Handler, Json

_END: Final = "clients.end"
_IS_MESH: Final = "clients.is_mesh"
_KICK: Final = "steering.kick"
_DENY: Final = "steering.deny"
_ALLOW: Final = "steering.allow"
_LIMIT: Final = "steering.limit"


def worker_handlers(state: RelayState) -> dict[str, Handler]:
    """Return the handlers of the supervisor's orders and questions about a key."""

    async def end(body: Json) -> Json:
        return (await end_clients(state, bytes.fromhex(body))).connections

    async def mesh(body: Json) -> Json:
        return await is_mesh(state, bytes.fromhex(body))

    return {_END: end, _IS_MESH: mesh}


class SupervisorSteering:
    """The supervisor's side. `handlers` are for the control connection of each worker."""

    def __init__(
        self,
        pool: WorkerPool,
        to_keeper: trio.MemorySendChannel[Wishes],
        key_list: KeyList | None = None,
    ) -> None:
        self._pool = pool
        self.steering = RelaySteering(self._end_clients, self._is_mesh, to_keeper, key_list)
        self.handlers: dict[str, Handler] = {
            _KICK: self._kick,
            _DENY: self._deny,
            _ALLOW: self._allow,
            _LIMIT: self._limit,
        }

    async def _end_clients(self, key: bytes) -> Ended:
        # One that is being restarted has no clients.
        asked = {index for index, status in enumerate(self._pool.statuses()) if status.alive}
        answers = await self._pool.call_all(_END, key.hex())
        return Ended(sum(answers.values()), len(asked - answers.keys()))

    async def _is_mesh(self, key: bytes) -> bool:
        return any((await self._pool.call_all(_IS_MESH, key.hex())).values())

    async def _kick(self, body: Json) -> Json:
        return await _answer(self.steering.kick(bytes.fromhex(body[0]), body[1]))

    async def _deny(self, body: Json) -> Json:
        return await _answer(self.steering.deny(bytes.fromhex(body[0]), *body[1:]))

    async def _allow(self, body: Json) -> Json:
        return await _answer(self.steering.allow(bytes.fromhex(body[0]), *body[1:]))

    async def _limit(self, body: Json) -> Json:
        return await _answer(self.steering.limit(bytes.fromhex(body[0]), body[2], body[1]))


class WorkerSteering:
    """A worker's Steering: asks the supervisor."""

    def __init__(self, call: Call) -> None:
        self._call = call

    async def kick(self, key: bytes, by: str) -> Steered:
        """See derp.service.steering.Steering, also for the others."""
        return await self._ask(_KICK, key.hex(), by)

    async def deny(self, key: bytes, by: str, label: str | None = None) -> Steered:
        """Refuse a key."""
        return await self._ask(_DENY, key.hex(), by, label)

    async def allow(self, key: bytes, by: str, label: str | None = None) -> Steered:
        """Admit a key."""
        return await self._ask(_ALLOW, key.hex(), by, label)

    async def limit(self, key: bytes, rate: str | None, by: str) -> Steered:
        """Limit a key."""
        return await self._ask(_LIMIT, key.hex(), by, rate)

    async def _ask(self, what: str, *body: str | None) -> Steered:
        try:
            sentence, ended, failure = await self._call(what, body)
        except ControlLate as error:
            raise SteeringFailed(
                "the supervisor of the workers has not answered in time, but it may have been "
                "done; see what derper clients lists"
            ) from error
        except ControlLost as error:
            raise SteeringFailed(
                f"the supervisor of the workers can't be asked: {error}"
            ) from error
        if failure:
            raise SteeringFailed(failure)
        return Steered(sentence, ended)


async def _answer(steered: Awaitable[Steered]) -> Json:
    """Return [sentence, ended, failure]."""
    try:
        found = await steered
    except SteeringFailed as error:
        return ["", 0, str(error)]
    return [found.sentence, found.ended, ""]
