"""The policy in force, kept by one task: read again when its file changes, changed by operators.

Both come to that task over one memory channel, so that no change is made to what was read before
another one, and none is lost to what is read after it.
"""

import math
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final, NoReturn

import attrs
import trio

from derp.admission.checker import Checker
from derp.admission.filewatch import CHECK_EVERY, check
from derp.admission.listkeeper import Recheck
from derp.admission.policysource import PolicySource
from derp.admission.requests import hand_over, next_request
from derp.errors import PolicyNotWritten, SteeringFailed
from derp.policy.change import Change
from derp.policy.model import EMPTY, Policy
from derp.policy.rewrite import Rewriter

CHANGE_TIMEOUT: Final = 6.0
"""Seconds for a change: the file may be on a disk that does not answer. Less than a worker waits
for its supervisor, and a browser for the page."""

NO_FILE: Final = "there is no -policy"

Apply = Callable[[Policy], Awaitable[int]]
"""Puts a new policy in force for the connected clients; returns how many it has ended."""


@attrs.frozen
class InForce:
    """The result of a change."""

    ended: int
    """Clients that it has ended."""
    path: Path | None
    """The file that says so now; None where the change is lost when the relay stops."""
    reason: str = ""
    """Why it is in no file; empty where the policy is the same without it."""


@attrs.define(eq=False)
class PolicyChange:
    """A change that an operator wants, on its way to `keep_policy`."""

    change: Change
    kept_in: Path | None = None
    """Another file that says it already; None for the policy."""
    result: InForce | None = None
    ended: trio.Event = attrs.field(factory=trio.Event)


PolicyRequest = PolicyChange | None
"""A message to `keep_policy`: a change, or None to have the file read at once."""


def policy_of(checker: Checker | None) -> PolicySource:
    """Return the policy of a relay; one without a file if it has no -policy."""
    if checker is not None and checker.sources.policy is not None:
        return checker.sources.policy
    return PolicySource(None, EMPTY)


async def change_policy(
    to_keeper: trio.MemorySendChannel[PolicyRequest], change: Change, kept_in: Path | None = None
) -> InForce:
    """Have a change put in force, and written if there is a file. Raises SteeringFailed.

    With `kept_in`, another file that says so, the policy stands back: it takes back what an earlier
    change of the same subject says, if no file does.
    """
    request = PolicyChange(change, kept_in)
    await hand_over(to_keeper, request, CHANGE_TIMEOUT)
    if request.result is None:
        raise SteeringFailed(
            f"not in force within {CHANGE_TIMEOUT:.0f} s, but it may come to be; "
            f"see to the disk of -policy"
        )
    return request.result


async def keep_policy(
    source: PolicySource,
    checker: Checker | None,
    requests: trio.MemoryReceiveChannel[PolicyRequest],
    apply: Apply,
    recheck: Recheck,
) -> NoReturn:
    """Put each changed policy in force, and each change that is requested.

    `apply` gets each new policy, and then `recheck` the keys that it no longer allows.
    """
    every = math.inf if source.path is None else CHECK_EVERY
    rewriter = None if source.path is None else Rewriter(source.path)
    # From the stop on, nobody waits for a task that has ended.
    async with requests, trio.open_nursery() as nursery:

        async def put_in_force(put: Callable[[], None]) -> int:
            before = source.policy.allowed
            put()
            if checker is not None:
                checker.sources.policy = source
                checker.forget()
            ended = await apply(source.policy)
            # In a task of its own, as other sources may be slow, and the policy may change again.
            nursery.start_soon(recheck, before - source.policy.allowed)
            return ended

        while True:
            request, is_woken = await next_request(requests, every)
            if request is not None:
                in_file: Policy | None = source.in_file
                path, reason = request.kept_in, ""
                if path is None:
                    in_file, reason = await _write(rewriter, request.change)
                    path = None if in_file is None else source.path
                ended = await put_in_force(partial(source.change, request.change, in_file))
                request.result = InForce(ended, path, reason)
                request.ended.set()
                continue
            event = "the old policy stays in force"
            new = await check(source.read_changed, event, at_once=is_woken)
            if new is not None:
                await put_in_force(partial(source.put, new))
                source.announce("new policy")


async def _write(rewriter: Rewriter | None, change: Change) -> tuple[Policy | None, str]:
    """Write a change into the file; return what that says then, or None and why it was not."""
    if rewriter is None:
        return None, "" if change.is_in(EMPTY) else NO_FILE
    try:
        in_file = await trio.to_thread.run_sync(rewriter.write, change, abandon_on_cancel=True)
    except PolicyNotWritten as error:
        return None, str(error)
    return in_file, ""
