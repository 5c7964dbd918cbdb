"""The sink where no file is named: what keys have used is known until the process ends."""

from collections.abc import Iterable

import trio

from derp.accounts.keeper import UsedBytes
from derp.accounts.unwritten import Unwritten


class MemorySink:
    """A sink that keeps nothing: Accounts remembers what each key has used."""

    name = "memory"
    is_shared = False

    async def write(self, unwritten: Unwritten, today: str, wanted: Iterable[bytes]) -> UsedBytes:  # noqa: ARG002
        """Know nothing of earlier processes; see Sink."""
        await trio.lowlevel.checkpoint()
        return {}

    async def close(self) -> None:
        """Do nothing."""
