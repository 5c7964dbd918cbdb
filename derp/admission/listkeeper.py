"""The list of node keys, kept by one task: read again when its file changes, changed by operators.

A change stands in the file first, and then it is in force. So the file alone says who is listed.
"""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final, NoReturn

import attrs
import trio

from derp import log
from derp.admission.allowlist import AllowList
from derp.admission.checker import Checker
from derp.admission.filewatch import CHECK_EVERY, check
from derp.admission.listedit import ListChange
from derp.admission.listrewrite import ListRewriter, Written
from derp.admission.requests import hand_over, next_request
from derp.errors import ListNotWritten

LIST_TIMEOUT: Final = 6.0
"""Seconds for a change: the file may be on a disk that does not answer."""

logger = log.get("admit")

Recheck = Callable[[set[bytes]], Awaitable[object]]
"""The recheck of connected clients, called with the keys that a list no longer has."""


@attrs.define(eq=False)
class ListEdit:
    """A change that an operator wants, on its way to `keep_list`."""

    change: ListChange
    written: Written | None = None
    failure: str = ""
    """Why it is not written; empty if it is, or as long as that is not known."""
    ended: trio.Event = attrs.field(factory=trio.Event)


ListRequest = ListEdit | None
"""A message to `keep_list`: a change, or None to have the file read at once."""


async def change_list(
    to_keeper: trio.MemorySendChannel[ListRequest], change: ListChange
) -> Written:
    """Have a change written and put in force. Raises ListNotWritten and SteeringFailed."""
    request = ListEdit(change)
    await hand_over(to_keeper, request, LIST_TIMEOUT)
    if request.written is None:
        late = f"not within {LIST_TIMEOUT:.0f} s; see to the disk of -verify-client-file"
        raise ListNotWritten(request.failure or late)
    return request.written


async def keep_list(
    checker: Checker,
    allowlist: AllowList,
    requests: trio.MemoryReceiveChannel[ListRequest],
    recheck: Recheck,
) -> NoReturn:
    """Put each changed list in force, and each change that is requested."""
    rewriter = ListRewriter(allowlist.path)
    # From the stop on, nobody waits for a task that has ended.
    async with requests, trio.open_nursery() as nursery:

        def put_in_force(keys: Mapping[bytes, str]) -> None:
            added, gone = keys.keys() - allowlist.keys, allowlist.keys.keys() - keys
            allowlist.keys = keys
            checker.forget()
            logger.info(
                "new list of node keys", keys=len(keys), added=len(added), removed=len(gone)
            )
            # In a task of its own, as sources may be slow, and the file may change again.
            nursery.start_soon(recheck, gone)

        while True:
            request, is_woken = await next_request(requests, CHECK_EVERY)
            if request is not None:
                await _write(rewriter, request)
                if request.written is not None and request.written.keys != allowlist.keys:
                    put_in_force(request.written.keys)
                request.ended.set()
                continue
            event = "the old list stays in force"
            keys = await check(allowlist.read_changed, event, at_once=is_woken)
            if keys is not None:
                put_in_force(keys)


async def _write(rewriter: ListRewriter, edit: ListEdit) -> None:
    try:
        edit.written = await trio.to_thread.run_sync(
            partial(rewriter.write, edit.change), abandon_on_cancel=True
        )
    except ListNotWritten as error:
        edit.failure = str(error)
