"""The policy, read again when its file changes."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import NoReturn

import trio

from certs.tasks.clock import woken_within
from derp import log
from derp.admission.checker import Checker
from derp.admission.listwatch import CHECK_EVERY, Recheck
from derp.admission.policysource import PolicySource
from derp.errors import ReloadError
from derp.policy.model import Policy

logger = log.get("admit")

Apply = Callable[[Policy], Awaitable[object]]
"""Puts a new policy in force for the connected clients."""


async def watch_policy(
    checker: Checker,
    source: PolicySource,
    wake: trio.MemoryReceiveChannel[None],
    apply: Apply,
    recheck: Recheck,
) -> NoReturn:
    """Read a changed policy: check the file every CHECK_EVERY seconds, and at once on `wake`.

    `apply` gets each new policy, and then `recheck` the keys that it no longer allows.
    """
    async with trio.open_nursery() as nursery:
        while True:
            read = partial(source.read_changed, at_once=await woken_within(CHECK_EVERY, wake))
            try:
                policy = await trio.to_thread.run_sync(read, abandon_on_cancel=True)
            except ReloadError as error:
                logger.error("the old policy stays in force", reason=str(error))  # noqa: TRY400
                continue
            if policy is None:
                continue
            gone = source.policy.allowed - policy.allowed
            source.policy = policy
            checker.forget()
            source.announce("new policy")
            await apply(policy)
            # In a task of its own, as other sources may be slow, and the file may change again.
            nursery.start_soon(recheck, gone)
