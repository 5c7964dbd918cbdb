"""The policy, read again when its file changes."""

from collections.abc import Awaitable, Callable
from typing import NoReturn

import trio

from derp.admission.checker import Checker
from derp.admission.filewatch import next_change
from derp.admission.listwatch import Recheck
from derp.admission.policysource import PolicySource
from derp.policy.model import Policy

Apply = Callable[[Policy], Awaitable[object]]
"""Puts a new policy in force for the connected clients."""


async def watch_policy(
    checker: Checker,
    source: PolicySource,
    wake: trio.MemoryReceiveChannel[None],
    apply: Apply,
    recheck: Recheck,
) -> NoReturn:
    """Put each changed policy in force; a message on `wake` has the file read at once.

    `apply` gets each new policy, and then `recheck` the keys that it no longer allows.
    """
    async with trio.open_nursery() as nursery:
        while True:
            policy = await next_change(source.read_changed, wake, "the old policy stays in force")
            gone = source.policy.allowed - policy.allowed
            source.policy = policy
            checker.forget()
            source.announce("new policy")
            await apply(policy)
            # In a task of its own, as other sources may be slow, and the file may change again.
            nursery.start_soon(recheck, gone)
