"""The recheck: admission asked again about connected clients, for changes at the sources."""

import random
from collections.abc import Iterable
from functools import partial
from typing import Final, NoReturn

import trio

from derp.admission.checker import Checker
from derp.admission.keep import keep_checker
from derp.admission.listkeeper import ListRequest
from derp.admission.model import Admission, Question, Verdict, not_admitted
from derp.session import health
from derp.session.isolation import check_group
from derp.session.state import RelayState

UNVERIFIED_EVERY: Final = 2.0
"""Seconds between attempts to ask about clients admitted while the sources couldn't be asked."""
CONCURRENCY: Final = 16
"""Concurrent questions about connected clients, for all processes of a relay together."""


async def run(
    state: RelayState,
    admission: Checker,
    every: float,
    requests: trio.MemoryReceiveChannel[ListRequest],
) -> None:
    """Keep ending clients that are no longer admitted; `requests` are those about the allow-list.

    `every`: seconds from the start of one round of questions to that of the next; 0 is never.
    """
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            keep_checker, admission, requests, partial(recheck, state, admission, strict=True)
        )
        nursery.start_soon(recheck_unverified, state, admission)
        if every:
            nursery.start_soon(recheck_forever, state, admission, every)


async def recheck_forever(
    state: RelayState, admission: Admission, every: float, concurrency: int = CONCURRENCY
) -> NoReturn:
    """Ask about all connected clients every `every` seconds."""
    next_round = trio.current_time() + every
    while True:
        await trio.sleep_until(next_round)
        next_round = max(next_round, trio.current_time()) + every
        keys = state.hub.keys(local=True)
        await recheck(state, admission, keys, concurrency=concurrency)


async def recheck_unverified(
    state: RelayState, admission: Admission, concurrency: int = CONCURRENCY
) -> NoReturn:
    """Ask about clients admitted while the sources couldn't be asked, as soon as they can be."""
    while True:
        await trio.sleep(UNVERIFIED_EVERY)
        keys = [key for key in state.unverified if state.hub.local(key) is not None]
        state.unverified.intersection_update(keys)
        # The first verdict decides whether to go on; shuffled, as the sources may have no answer
        # for just one key.
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
    """Ask about the clients with `keys`, concurrently; end those no longer admitted to their group.

    Clients stay where a source can't be asked, so that a restart of tailscaled ends none. `strict`
    ends them, too: it is for keys that were removed from the allow-list.
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
                elif verdict.admitted and verdict.authoritative:
                    for client in state.hub.clients(question.key):
                        if client.transport.remote.host == question.address:
                            check_group(state, client, verdict.source)
            # There may be thousands of keys, and the allow-list answers without waiting.
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        for _ in range(concurrency):
            nursery.start_soon(ask_in_turn)


def _end(state: RelayState, key: bytes, verdict: Verdict) -> None:
    reason = f"no longer admitted by {verdict.source}: {verdict.reason}"
    for member in state.hub.clients(key):
        if member.ending is None and not member.can_mesh:
            health.end_refused(state, member, not_admitted(verdict, reason))
