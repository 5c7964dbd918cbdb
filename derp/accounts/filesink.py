"""The sink of the process that has the file: SQLite in a thread."""

from collections.abc import Iterable
from pathlib import Path

import trio

from derp.accounts.file import AccountsFile
from derp.accounts.keeper import UsedBytes
from derp.accounts.unwritten import Unwritten


class FileSink:
    """The sink of the process that has the file."""

    is_shared = False

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._file = AccountsFile(path)

    async def write(self, unwritten: Unwritten, today: str, wanted: Iterable[bytes]) -> UsedBytes:
        """Write to the file, in a thread; see Sink."""
        keys = list(wanted)
        return await trio.to_thread.run_sync(
            self._file.write, unwritten, today, keys, abandon_on_cancel=True
        )

    async def close(self) -> None:
        """Close the file."""
        await trio.to_thread.run_sync(self._file.close, abandon_on_cancel=True)
