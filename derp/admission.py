"""Who may use the relay, from the configuration to the clients that are connected.

The gate decides at login. This makes it, and sees to it that a changed list, and what tailscaled
and the URLs say by now, reach the clients that are in.
"""

import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from functools import partial
from typing import Final, NoReturn

import trio

from derp import log
from derp.admit.gate import VERDICTS, Gate
from derp.admit.judge import Judge
from derp.admit.memory import Verdict
from derp.admit.nodelist import Listing, load
from derp.admit.question import Question
from derp.config import Config
from derp.errors import NotAdmitted, ReloadError, StartError
from derp.metrics import Metrics
from derp.ownership import warn_if_swappable
from derp.server import Server

LOOK_EVERY: Final = 5.0
"""Seconds between looks at the list; a change is read after one to two of them."""

UNASKED_EVERY: Final = 2.0
"""Seconds between attempts to ask about those who were admitted since nobody could be asked."""

SIDE_BY_SIDE: Final = 16
"""Questions at a time about those who are connected, to whichever process of a relay."""

logger = log.get("admit")

Removed = Callable[[set[bytes]], Awaitable[object]]
"""Sees to those who are connected with keys that a changed list does not have any more."""


def make_gate(config: Config, metrics: Metrics) -> Gate | None:
    """Make the gate, or None where everybody may use the relay. Blocks.

    Raises StartError where the list or the CA bundle can't be read.
    """
    if not config.verifies:
        return None
    # Alerts want to see what has not happened yet.
    metrics.admission_verdicts.update(dict.fromkeys(VERDICTS, 0))
    listing = tailscaled = None
    if (path := config.verify_client_file) is not None:
        listing = Listing(path, load(path, StartError))
    if config.verify_clients:
        from derp.admit.tailscaled import Tailscaled  # noqa: PLC0415 - loads httpx

        # What takes the socket's place is believed. The socket itself is for every user.
        warn_if_swappable(config.socket.parent)
        tailscaled = Tailscaled(config.socket)
    controllers = []
    if config.verify_client_url:
        from derp.admit.controller import Controller  # noqa: PLC0415 - as above

        if config.verify_client_url_ca_bundle is not None:
            warn_if_swappable(config.verify_client_url_ca_bundle)
        controllers = [
            Controller(
                url,
                config.verify_client_url_authorization,
                config.verify_client_url_ca_bundle,
            )
            for url in config.verify_client_url
        ]
    return Gate(
        metrics,
        listing=listing,
        tailscaled=tailscaled,
        controllers=controllers,
        fail_open=config.verify_client_url_fail_open,
        remember=config.verify_remember,
    )


@contextlib.asynccontextmanager
async def opened(gate: Judge | None) -> AsyncIterator[None]:
    """Close what connections to the URLs are open, at the end."""
    async with contextlib.AsyncExitStack() as stack:
        for source in gate.controllers if isinstance(gate, Gate) else ():
            if isinstance(source, contextlib.AbstractAsyncContextManager):
                await stack.enter_async_context(source)
        yield


def announce(config: Config, gate: Gate | None) -> None:
    """Say who may use the relay."""
    if gate is None:
        logger.warning("any client may use this relay; see -verify-clients and -verify-client-file")
        return
    order = []
    if config.verify_client_file is not None:
        order.append("in -verify-client-file")
    asked = []
    if config.verify_clients:
        asked.append("known to tailscaled")
    if config.verify_client_url:
        asked.append("allowed by -verify-client-url")
    if asked:
        order.append(" and ".join(asked))
    keys = None if gate.listing is None else len(gate.listing.keys)
    logger.info("clients are checked", admitted=", or ".join(order), listed_keys=keys)
    if config.verify_client_url and config.verify_client_url_fail_open:
        logger.warning(
            "while no -verify-client-url can be reached, every client is admitted; "
            "-verify-client-url-fail-open=false refuses them"
        )


async def keep(
    server: Server, gate: Gate, every: float, wake: trio.MemoryReceiveChannel[None]
) -> None:
    """Keep out who belongs no longer; `wake` says to look at the list at once.

    `every` is the number of seconds from the start of one round of questions to the next; 0 is
    never.
    """
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_gate, gate, wake, partial(ask_again, server, gate, strict=True))
        nursery.start_soon(ask_about_unasked, server, gate)
        if every:
            nursery.start_soon(ask_again_forever, server, gate, every)


async def keep_gate(gate: Gate, wake: trio.MemoryReceiveChannel[None], removed: Removed) -> None:
    """See that the gate can be asked, and has the list as it is by now."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(gate.probe)
        if gate.listing is not None:
            nursery.start_soon(watch_list, gate, gate.listing, wake, removed)


async def watch_list(
    gate: Gate, listing: Listing, wake: trio.MemoryReceiveChannel[None], removed: Removed
) -> NoReturn:
    """Put a changed list in force, from time to time and at once when told by `wake`."""
    async with trio.open_nursery() as nursery:
        while True:
            at_once = False
            with trio.move_on_after(LOOK_EVERY):
                await wake.receive()
                at_once = True
            look = partial(listing.look, at_once=at_once)
            try:
                keys = await trio.to_thread.run_sync(look, abandon_on_cancel=True)
            except ReloadError as error:
                logger.error("the old list stays in force", reason=str(error))  # noqa: TRY400
                continue
            if keys is None:
                continue
            added, gone = keys.keys() - listing.keys, listing.keys.keys() - keys
            listing.keys = keys
            gate.forget()
            logger.info(
                "new list of node keys", keys=len(keys), added=len(added), removed=len(gone)
            )
            # Beside the next looks: those who are to be asked may be slow.
            nursery.start_soon(removed, gone)


async def ask_again_forever(
    server: Server, gate: Judge, every: float, side_by_side: int = SIDE_BY_SIDE
) -> NoReturn:
    """Ask about all clients that are connected, `every` so many seconds."""
    next_round = trio.current_time() + every
    while True:
        await trio.sleep_until(next_round)
        next_round = max(next_round, trio.current_time()) + every
        keys = server.hub.keys(local=True)
        await ask_again(server, gate, keys, side_by_side=side_by_side)


async def ask_about_unasked(
    server: Server, gate: Judge, side_by_side: int = SIDE_BY_SIDE
) -> NoReturn:
    """Ask about those who were admitted since nobody could be asked, as soon as somebody can."""
    while True:
        await trio.sleep(UNASKED_EVERY)
        keys = [key for key in server.unasked if server.hub.local(key) is not None]
        server.unasked.intersection_update(keys)
        # By chance, so that the first one is not for ever the same, who alone can't be asked about.
        random.shuffle(keys)
        for some in (keys[:1], keys[1:]):
            await ask_again(server, gate, some, side_by_side=side_by_side)
            if server.unasked.issuperset(keys[:1]):
                break


async def ask_again(
    server: Server,
    gate: Judge,
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
            for member in server.hub.members
            if member.key in wanted and not member.can_mesh
        )
    )

    async def ask_in_turn() -> None:
        for question in questions:
            if server.hub.local(question.key) is not None:
                verdict = await gate.ask_again(question)
                if verdict.certain:
                    server.unasked.discard(question.key)
                if not verdict.admitted and (verdict.certain or strict):
                    _end(server, question.key, verdict)
            # What the list alone decides takes no time, and there may be thousands.
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        for _ in range(side_by_side):
            nursery.start_soon(ask_in_turn)


def _end(server: Server, key: bytes, verdict: Verdict) -> None:
    """End whoever is connected with a key by now."""
    reason = f"no longer admitted by {verdict.source}: {verdict.reason}"
    for member in [member for member in server.hub.members if member.key == key]:
        if member.ending is None and not member.can_mesh:
            member.end(NotAdmitted(reason))
