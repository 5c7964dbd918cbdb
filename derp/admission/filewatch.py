"""A look at a file that says who may use the relay, whether it has changed: list or policy."""

from functools import partial
from typing import Final, Protocol, TypeVar

import trio

from derp import log
from derp.errors import ReloadError

CHECK_EVERY: Final = 5.0
"""Seconds between checks of the file; a change is read within two of them."""

T_co = TypeVar("T_co", covariant=True)

logger = log.get("admit")


class ReadChanged(Protocol[T_co]):
    """A call that returns what a file holds if that is not in force yet, else None."""

    def __call__(self, *, at_once: bool = False) -> T_co | None:
        """Block; with `at_once`, do not wait until the file has settled. Raises ReloadError."""


async def check(read_changed: ReadChanged[T_co], event: str, *, at_once: bool) -> T_co | None:
    """Return what a file holds if it has changed, else None; in a thread.

    For a file that can't be used, logs `event` with the reason.
    """
    try:
        return await trio.to_thread.run_sync(
            partial(read_changed, at_once=at_once), abandon_on_cancel=True
        )
    except ReloadError as error:
        logger.error(event, reason=str(error))  # noqa: TRY400
        return None
