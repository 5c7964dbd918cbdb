"""The list of node keys, read again when its file changes."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, NoReturn

import trio

from certs.tasks.clock import woken_within
from derp import log
from derp.admission.allowlist import AllowList
from derp.admission.checker import Checker
from derp.errors import ReloadError

CHECK_EVERY: Final = 5.0
"""Seconds between checks of the file; a change is read within two of them."""

logger = log.get("admit")

Recheck = Callable[[set[bytes]], Awaitable[object]]
"""The recheck of connected clients, called with the keys that a new list no longer has."""


async def keep_checker(
    checker: Checker, wake: trio.MemoryReceiveChannel[None], recheck: Recheck
) -> None:
    """Probe tailscaled once, and run `watch_list` if there is a list."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(checker.probe)
        if checker.allowlist is not None:
            nursery.start_soon(watch_list, checker, checker.allowlist, wake, recheck)


async def watch_list(
    checker: Checker, allowlist: AllowList, wake: trio.MemoryReceiveChannel[None], recheck: Recheck
) -> NoReturn:
    """Read a changed list: check the file every CHECK_EVERY seconds, and at once on `wake`."""
    async with trio.open_nursery() as nursery:
        while True:
            read = partial(allowlist.read_changed, at_once=await woken_within(CHECK_EVERY, wake))
            try:
                keys = await trio.to_thread.run_sync(read, abandon_on_cancel=True)
            except ReloadError as error:
                logger.error("the old list stays in force", reason=str(error))  # noqa: TRY400
                continue
            if keys is None:
                continue
            added, gone = keys.keys() - allowlist.keys, allowlist.keys.keys() - keys
            allowlist.keys = keys
            checker.forget()
            logger.info(
                "new list of node keys", keys=len(keys), added=len(added), removed=len(gone)
            )
            # In a task of its own, as sources may be slow, and the file may change again.
            nursery.start_soon(recheck, gone)
