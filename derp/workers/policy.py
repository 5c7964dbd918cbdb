"""The policy with workers: the supervisor keeps it, and hands each worker what is in force.

    worker                      supervisor
    WorkerPolicy ── current ──► SupervisorPolicy       before the worker accepts its first client
                 ◄── changed ──                        each time it has changed

Both messages hold [version, Policy.to_json()]. A worker takes no older version than it has: the
answer to `current` may overtake a later `changed`.
"""

from functools import partial
from typing import Final

import trio

from derp import log
from derp.admission.checker import Checker
from derp.admission.listkeeper import Recheck
from derp.admission.policykeeper import PolicyRequest, keep_policy
from derp.admission.policysource import PolicySource
from derp.errors import RPCFailed
from derp.policy.model import EMPTY, Policy
from derp.session import serverinfo
from derp.session.state import RelayState
from derp.workers.pool import WorkerPool
from derp.workers.rpc import Call, Handler, Json

NOTIFY_TRIES: Final = 3
APPLY_TIMEOUT: Final = 4.0
"""Seconds for which a change waits for the workers; less than who asked for it waits."""
AGAIN: Final = 0.1
"""Seconds from a failed call to the next."""

_CURRENT: Final = "policy.current"
_CHANGED: Final = "policy.changed"

logger = log.get("admit")


class SupervisorPolicy:
    """The supervisor's side. `handlers` are for the RPC connection of each worker."""

    def __init__(self, source: PolicySource, checker: Checker | None, pool: WorkerPool) -> None:
        self._source = source
        self._checker = checker
        self._pool = pool
        self._version = 1
        self.handlers: dict[str, Handler] = {_CURRENT: self._current}

    @property
    def in_force(self) -> Policy:
        """The policy in force."""
        return self._source.policy

    @property
    def is_set(self) -> bool:
        """Whether there is anything to hand to a worker that starts."""
        return self._source.path is not None or self._source.policy != EMPTY

    async def keep(
        self, requests: trio.MemoryReceiveChannel[PolicyRequest], recheck: Recheck
    ) -> None:
        """Keep the policy up to date; see `keep_policy`."""
        async with trio.open_nursery() as nursery:
            apply = partial(self._apply, nursery)
            await keep_policy(self._source, self._checker, requests, apply, recheck)

    async def _current(self, _: Json) -> Json:
        return self._message(self.in_force)

    async def _apply(self, nursery: trio.Nursery, policy: Policy) -> int:
        """Hand all workers the new policy, within APPLY_TIMEOUT; go on in a task of `nursery`.

        Returns how many clients they have ended until then.
        """
        self._version += 1
        ended: dict[int, int] = {}
        handed = trio.Event()
        nursery.start_soon(self._hand_out, self._version, self._message(policy), ended, handed)
        with trio.move_on_after(APPLY_TIMEOUT):
            await handed.wait()
        return sum(ended.values())

    async def _hand_out(
        self, version: int, message: Json, ended: dict[int, int], handed: trio.Event
    ) -> None:
        """Hand all workers a policy, unless a later one is handed out; add what they answer."""
        for _ in range(NOTIFY_TRIES):
            # What a worker answered first counts: it acts once on each version.
            answers = await self._pool.call_all(_CHANGED, message)
            ended |= answers | ended
            if len(ended) >= self._pool.size or version != self._version:
                break
        else:
            # A worker that is being restarted will ask for it.
            logger.debug("not all workers have confirmed the new policy")
        handed.set()

    def _message(self, policy: Policy) -> Json:
        return [self._version, policy.to_json()]


class WorkerPolicy:
    """A worker's side. `in_order` has a handler for its RPC connection."""

    def __init__(self, state: RelayState, nursery: trio.Nursery, call: Call) -> None:
        """Tell clients of their limits in tasks of `nursery`."""
        self._state = state
        self._nursery = nursery
        self._call = call
        self._version = 0
        self.in_order: dict[str, Handler] = {_CHANGED: self._changed}

    async def fetch(self, stop: trio.Event) -> None:
        """Get the policy in force, before any client is accepted; give up at `stop` only."""
        while not stop.is_set():
            try:
                body = await self._call(_CURRENT, None)
            except RPCFailed as error:
                logger.debug("the policy is not known yet", reason=str(error))
                await trio.sleep(AGAIN)
            else:
                await self._changed(body)
                return

    async def _changed(self, body: Json) -> Json:
        version, policy = body
        if version <= self._version:
            return 0
        self._version = version
        return await serverinfo.apply_policy(self._state, self._nursery, Policy.from_json(policy))
