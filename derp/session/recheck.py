"""Admission asked again about clients that are connected.

The gate decides at login. A changed list, and what tailscaled and the URLs say by now, reach the
clients that are in through this.
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

UNASKED_EVERY: Final = 2.0
"""Seconds between attempts to ask about those who were admitted since nobody could be asked."""

SIDE_BY_SIDE: Final = 16
"""Questions at a time about those who are connected, to whichever process of a relay."""


async def keep(
    state: RelayState, admission: Checker, every: float, wake: trio.MemoryReceiveChannel[None]
) -> None:
    """Keep out who belongs no longer; `wake` says to look at the list at once.

    `every` is the number of seconds from the start of one round of questions to the next; 0 is
    never.
    """
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            keep_checker, admission, wake, partial(recheck, state, admission, strict=True)
        )
        nursery.start_soon(ask_about_unasked, state, admission)
        if every:
            nursery.start_soon(ask_again_forever, state, admission, every)


async def ask_again_forever(
    state: RelayState, admission: Admission, every: float, side_by_side: int = SIDE_BY_SIDE
) -> NoReturn:
    """Ask about all clients that are connected, `every` so many seconds."""
    next_round = trio.current_time() + every
    while True:
        await trio.sleep_until(next_round)
        next_round = max(next_round, trio.current_time()) + every
        keys = state.hub.keys(local=True)
        await recheck(state, admission, keys, side_by_side=side_by_side)


async def ask_about_unasked(
    state: RelayState, admission: Admission, side_by_side: int = SIDE_BY_SIDE
) -> NoReturn:
    """Ask about those who were admitted since nobody could be asked, as soon as somebody can."""
    while True:
        await trio.sleep(UNASKED_EVERY)
        keys = [key for key in state.unasked if state.hub.local(key) is not None]
        state.unasked.intersection_update(keys)
        # By chance, so that the first one is not for ever the same, who alone can't be asked about.
        random.shuffle(keys)
        for some in (keys[:1], keys[1:]):
            await recheck(state, admission, some, side_by_side=side_by_side)
            if state.unasked.issuperset(keys[:1]):
                break


async def recheck(
    state: RelayState,
    admission: Admission,
    keys: Iterable[bytes],
    *,
    strict: bool = False,
    side_by_side: int = SIDE_BY_SIDE,
) -> None:
    """Ask about those of `keys` that are connected, side by side; end those that don't belong.

    Where nobody can be asked, they stay: whoever was admitted is not to suffer from a restart of
    tailscaled. With `strict` they don't: what had admitted them is gone.
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
                    state.unasked.discard(question.key)
                if not verdict.admitted and (verdict.authoritative or strict):
                    _end(state, question.key, verdict)
            # What the list alone decides takes no time, and there may be thousands.
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        for _ in range(side_by_side):
            nursery.start_soon(ask_in_turn)


def _end(state: RelayState, key: bytes, verdict: Verdict) -> None:
    """End whoever is connected with a key by now."""
    reason = f"no longer admitted by {verdict.source}: {verdict.reason}"
    for member in [member for member in state.hub.members if member.key == key]:
        if member.ending is None and not member.can_mesh:
            member.end(NotAdmitted(reason))
