"""Whom the parts of a relay with workers ask: a worker its supervisor, and that all workers."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from derp.workers.rpc import Json

Call = Callable[[str, Json], Awaitable[Json]]
"""Asks the supervisor; see Control.call. Raises ControlLost."""


class Workers(Protocol):
    """All workers, to be asked."""

    @property
    def size(self) -> int:
        """How many there are to be."""

    async def each(self, what: str, body: Json = None) -> dict[int, Json]:
        """Ask all that live; leave out those that don't answer in time."""
