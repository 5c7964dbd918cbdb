"""The list of node keys, read again when it changes."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, NoReturn

import trio

from certs.tasks.clock import woken_within
from derp import log
from derp.admission.allowlist import AllowList
from derp.admission.checker import Checker
from derp.errors import ReloadError

LOOK_EVERY: Final = 5.0
"""Seconds between looks at the list; a change is read after one to two of them."""

logger = log.get("admit")

Removed = Callable[[set[bytes]], Awaitable[object]]
"""Sees to those who are connected with keys that a changed list does not have any more."""


async def keep_checker(
    checker: Checker, wake: trio.MemoryReceiveChannel[None], removed: Removed
) -> None:
    """See that the checker can be asked, and has the list as it is by now."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(checker.probe)
        if checker.listing is not None:
            nursery.start_soon(watch_list, checker, checker.listing, wake, removed)


async def watch_list(
    checker: Checker, listing: AllowList, wake: trio.MemoryReceiveChannel[None], removed: Removed
) -> NoReturn:
    """Put a changed list in force, from time to time and at once when told by `wake`."""
    async with trio.open_nursery() as nursery:
        while True:
            look = partial(listing.look, at_once=await woken_within(LOOK_EVERY, wake))
            try:
                keys = await trio.to_thread.run_sync(look, abandon_on_cancel=True)
            except ReloadError as error:
                logger.error("the old list stays in force", reason=str(error))  # noqa: TRY400
                continue
            if keys is None:
                continue
            added, gone = keys.keys() - listing.keys, listing.keys.keys() - keys
            listing.keys = keys
            checker.forget()
            logger.info(
                "new list of node keys", keys=len(keys), added=len(added), removed=len(gone)
            )
            # Beside the next looks: those who are to be asked may be slow.
            nursery.start_soon(removed, gone)
