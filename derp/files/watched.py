"""A file with a secret that is read again while the relay runs.

It is read every READ_EVERY seconds, so that no request can make the relay read files.
"""

from pathlib import Path
from typing import ClassVar, Final

import attrs
import trio

from derp import log
from derp.errors import StartError
from derp.files.secret import read_secret
from derp.net.oserrors import plain_reason

READ_EVERY: Final = 5.0
"""Seconds between reads of the file."""
MAX_SIZE: Final = 4096
"""Bytes, white space included."""

logger = log.get("http")


@attrs.define
class WatchedSecret:
    """The secret in the file as it was last read; a class for each flag."""

    flag: ClassVar[str]
    unusable: ClassVar[str]
    """What to log when the file can't be used."""

    path: Path | None
    value: bytes = attrs.field(init=False, default=b"", repr=False)
    """Without white space around it; empty for none."""
    _trouble: str = attrs.field(init=False, default="")

    def read(self) -> None:
        """Read the file, if there is one. Blocks.

        A failure leaves no secret, and is logged once.
        """
        if self.path is None:
            return
        try:
            self.value, trouble = self.load(self.path), ""
        except (OSError, ValueError, StartError) as error:
            self.value, trouble = b"", plain_reason(error)
        if trouble and trouble != self._trouble:
            logger.warning(self.unusable, path=str(self.path), reason=trouble)
        self._trouble = trouble

    async def watch(self) -> None:
        """Read the file every READ_EVERY seconds, if there is one."""
        while self.path is not None:
            await trio.sleep(READ_EVERY)
            await trio.to_thread.run_sync(self.read, abandon_on_cancel=True)

    def load(self, path: Path) -> bytes:
        """Return the secret in the file. Blocks. Raises OSError, ValueError or StartError."""
        content, mode = read_secret(path, self.flag, MAX_SIZE)
        if len(content) > MAX_SIZE:
            raise ValueError(f"want at most {MAX_SIZE} bytes")
        if not (secret := content.strip()):
            raise ValueError("it is empty")
        self.check(secret, mode)
        return secret

    def check(self, secret: bytes, mode: int) -> None:
        """Raise ValueError for what is no secret, or a mode of the file that reveals it."""
