"""Admission asked again about clients that are connected.

Admission is decided at login. What has changed since, in the list or at tailscaled and the URLs,
takes effect on connected clients here.
"""

import random
from collections.abc import Iterable
from functools import partial
from typing import Final, NoReturn

import trio

from derp.admission.checker import Checker
from derp.admission.listwatch import keep_checker
from derp.admission.model import Admission, Question, Verdict
from derp.errors import NotAdmitted
from derp.session.state import RelayState

UNVERIFIED_EVERY: Final = 2.0
"""Seconds between attempts to ask about clients that were admitted while that was impossible."""

CONCURRENCY: Final = 16
"""Questions at a time about connected clients, for all processes of a relay."""


async def keep(
    state: RelayState, admission: Checker, every: float, wake: trio.MemoryReceiveChannel[None]
) -> None:
    """End clients that are no longer admitted; `wake` says to look at the list at once.

    `every` is the number of seconds from the start of one round of questions to the next; 0 is
    never.
    """
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            keep_checker, admission, wake, partial(recheck, state, admission, strict=True)
        )
        nursery.start_soon(recheck_unverified, state, admission)
        if every:
            nursery.start_soon(recheck_forever, state, admission, every)


async def recheck_forever(
    state: RelayState, admission: Admission, every: float, concurrency: int = CONCURRENCY
) -> NoReturn:
    """Ask about all clients that are connected, at intervals of `every` seconds."""
    next_round = trio.current_time() + every
    while True:
        await trio.sleep_until(next_round)
        next_round = max(next_round, trio.current_time()) + every
        keys = state.hub.keys(local=True)
        await recheck(state, admission, keys, concurrency=concurrency)


async def recheck_unverified(
    state: RelayState, admission: Admission, concurrency: int = CONCURRENCY
) -> NoReturn:
    """Ask about clients that were admitted while that was impossible, as soon as it is possible."""
    while True:
        await trio.sleep(UNVERIFIED_EVERY)
        keys = [key for key in state.unverified if state.hub.local(key) is not None]
        state.unverified.intersection_update(keys)
        # The first one decides whether to go on: at random, in case only this one can't be asked
        # about.
        random.shuffle(keys)
        for some in (keys[:1], keys[1:]):
            await recheck(state, admission, some, concurrency=concurrency)
            if state.unverified.issuperset(keys[:1]):
                break


async def recheck(
    state: RelayState,
    admission: Admission,
    keys: Iterable[bytes],
    *,
    strict: bool = False,
    concurrency: int = CONCURRENCY,
) -> None:
    """Ask about the clients with `keys`, concurrently; end those that are no longer admitted.

    Where the source can't be asked, they stay, so that a restart of tailscaled ends no client. With
    `strict` they are ended: the list that admitted them does so no longer.
    """
    wanted = set(keys)
    questions = iter(
        dict.fromkeys(
            Question(member.key, member.transport.remote.host)
            for member in state.hub.members
            if member.key in wanted and not member.can_mesh
        )
    )

    async def ask_in_turn() -> None:
        for question in questions:
            if state.hub.local(question.key) is not None:
                verdict = await admission.recheck(question)
                if verdict.authoritative:
                    state.unverified.discard(question.key)
                if not verdict.admitted and (verdict.authoritative or strict):
                    _end(state, question.key, verdict)
            # Where the list alone decides there is no wait, and there may be thousands of keys.
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        for _ in range(concurrency):
            nursery.start_soon(ask_in_turn)


def _end(state: RelayState, key: bytes, verdict: Verdict) -> None:
    """End the clients that are connected with a key."""
    reason = f"no longer admitted by {verdict.source}: {verdict.reason}"
    for member in [member for member in state.hub.members if member.key == key]:
        if member.ending is None and not member.can_mesh:
            member.end(NotAdmitted(reason))
