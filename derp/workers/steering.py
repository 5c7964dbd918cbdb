"""Steering with workers: the supervisor does it, whichever process is asked.

worker                        supervisor
steer ── steering.steer ──► SupervisorSteering ── clients.end ──► all workers
                                               ──► the policy (derp.workers.policy)
"""

from typing import Final

import trio

from derp.admission.policykeeper import PolicyRequest
from derp.errors import RPCFailed, RPCTimeout, SteeringFailed
from derp.service.keylist import KeyList
from derp.service.steering import Ended, RelaySteering, Steered, end_clients, is_mesh
from derp.session.state import RelayState
from derp.wire.control import Command
from derp.workers.pool import WorkerPool
from derp.workers.rpc import Call, Handler, Json

_END: Final = "clients.end"
_IS_MESH: Final = "clients.is_mesh"
_STEER: Final = "steering.steer"


def worker_handlers(state: RelayState) -> dict[str, Handler]:
    """Return the handlers of the supervisor's commands and questions about a key."""

    async def end(body: Json) -> Json:
        return (await end_clients(state, bytes.fromhex(body))).connections

    async def mesh(body: Json) -> Json:
        return await is_mesh(state, bytes.fromhex(body))

    return {_END: end, _IS_MESH: mesh}


class SupervisorSteering:
    """The supervisor's side. `handlers` are for the RPC connection of each worker."""

    def __init__(
        self,
        pool: WorkerPool,
        to_keeper: trio.MemorySendChannel[PolicyRequest],
        key_list: KeyList | None = None,
    ) -> None:
        self._pool = pool
        self.steer = RelaySteering(self._end_clients, self._is_mesh, to_keeper, key_list).steer
        self.handlers: dict[str, Handler] = {_STEER: self._answer}

    async def _end_clients(self, key: bytes) -> Ended:
        # One that is being restarted has no clients.
        asked = {index for index, status in enumerate(self._pool.statuses()) if status.alive}
        answers = await self._pool.call_all(_END, key.hex())
        return Ended(sum(answers.values()), sorted(asked - answers.keys()))

    async def _is_mesh(self, key: bytes) -> bool:
        return any((await self._pool.call_all(_IS_MESH, key.hex())).values())

    async def _answer(self, body: Json) -> Json:
        """Do what a worker was asked for; return [sentence, ended, failure]."""
        action, key, rate, label, by = body
        try:
            found = await self.steer(Command(action, bytes.fromhex(key), rate, label), by)
        except SteeringFailed as error:
            return ["", 0, str(error)]
        return [found.sentence, found.ended, ""]


async def steer(call: Call, command: Command, by: str) -> Steered:
    """Have the supervisor do what a worker was asked for: a Steer."""
    try:
        body = [command.action, command.key.hex(), command.rate, command.label, by]
        sentence, ended, failure = await call(_STEER, body)
    except RPCTimeout as error:
        raise SteeringFailed(
            "the supervisor of the workers has not answered in time, but it may have been done; "
            "see what derper clients lists"
        ) from error
    except RPCFailed as error:
        raise SteeringFailed(f"the supervisor of the workers can't be asked: {error}") from error
    if failure:
        raise SteeringFailed(failure)
    return Steered(sentence, ended)
