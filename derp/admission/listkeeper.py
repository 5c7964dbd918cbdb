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
from derp.errors import ListNotWritten, SteeringFailed

LIST_TIMEOUT: Final = 6.0
"""Seconds for a change: the file may be on a disk that does not answer."""

logger = log.get("admit")

Recheck = Callable[[set[bytes]], Awaitable[object]]
"""The recheck of connected clients, called with the keys that a list no longer has."""


@attrs.define(eq=False)
class ListWish:
    """A change that an operator wants, on its way to `keep_list`."""

    change: ListChange
    written: Written | None = None
    failure: str = ""
    """Why it is not written; empty if it is, or as long as that is not known."""
    ended: trio.Event = attrs.field(factory=trio.Event)


ListWishes = ListWish | None
"""What `keep_list` is sent: a change, or None to have the file read at once."""


async def change_list(to_keeper: trio.MemorySendChannel[ListWishes], change: ListChange) -> Written:
    """Have a change written and put in force. Raises ListNotWritten and SteeringFailed."""
    wish = ListWish(change)
    try:
        with trio.move_on_after(LIST_TIMEOUT):
            await to_keeper.send(wish)
            await wish.ended.wait()
    except trio.BrokenResourceError as error:
        raise SteeringFailed("the relay is stopping") from error
    if wish.written is None:
        late = f"not within {LIST_TIMEOUT:.0f} s; see to the disk of -verify-client-file"
        raise ListNotWritten(wish.failure or late)
    return wish.written


async def keep_list(
    checker: Checker,
    allowlist: AllowList,
    wishes: trio.MemoryReceiveChannel[ListWishes],
    recheck: Recheck,
) -> NoReturn:
    """Put each changed list in force, and each change that is wished for."""
    rewriter = ListRewriter(allowlist.path)
    # From the stop on, nobody waits for a task that has ended.
    async with wishes, trio.open_nursery() as nursery:

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
            wish, is_woken = None, False
            with trio.move_on_after(CHECK_EVERY):
                wish = await wishes.receive()
                is_woken = True
            if wish is not None:
                await _write(rewriter, wish)
                if wish.written is not None and wish.written.keys != allowlist.keys:
                    put_in_force(wish.written.keys)
                wish.ended.set()
                continue
            event = "the old list stays in force"
            keys = await check(allowlist.read_changed, event, at_once=is_woken)
            if keys is not None:
                put_in_force(keys)


async def _write(rewriter: ListRewriter, wish: ListWish) -> None:
    try:
        wish.written = await trio.to_thread.run_sync(
            partial(rewriter.write, wish.change), abandon_on_cancel=True
        )
    except ListNotWritten as error:
        wish.failure = str(error)
