"""The list of node keys, read again when its file changes."""

from collections.abc import Awaitable, Callable
from typing import NoReturn

import trio

from derp import log
from derp.admission.allowlist import AllowList
from derp.admission.checker import Checker
from derp.admission.filewatch import next_change

logger = log.get("admit")

Recheck = Callable[[set[bytes]], Awaitable[object]]
"""The recheck of connected clients, called with the keys that a list no longer has."""


async def watch_list(
    checker: Checker, allowlist: AllowList, wake: trio.MemoryReceiveChannel[None], recheck: Recheck
) -> NoReturn:
    """Put each changed list in force; a message on `wake` has the file read at once."""
    async with trio.open_nursery() as nursery:
        while True:
            keys = await next_change(allowlist.read_changed, wake, "the old list stays in force")
            added, gone = keys.keys() - allowlist.keys, allowlist.keys.keys() - keys
            allowlist.keys = keys
            checker.forget()
            logger.info(
                "new list of node keys", keys=len(keys), added=len(added), removed=len(gone)
            )
            # In a task of its own, as sources may be slow, and the file may change again.
            nursery.start_soon(recheck, gone)
