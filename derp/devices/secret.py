"""A secret that an operator gives as a value, or in a file that may be replaced while in use."""

import re
import stat
from pathlib import Path
from typing import Final

import attrs

from derp import log
from derp.errors import StartError
from derp.files.secret import read_secret
from derp.net.oserrors import plain_reason

MAX_SIZE: Final = 4096
"""Bytes of the largest file that is read."""

_TEXT: Final = re.compile(r"[!-~]+")

logger = log.get("admit")


@attrs.frozen
class Secret:
    """A secret: ASCII without spaces."""

    where: str
    """The flag and the variable that the operator may have used, for messages."""
    value: str = attrs.field(default="", repr=False)
    path: Path | None = None
    """The file to read, where there is no value."""

    def read(self, *, at_start: bool = False) -> str:
        """Return the secret. Blocks if it is in a file. Raises StartError.

        `at_start`, also warns if others could use the file.
        """
        if self.path is None:
            return self.value
        name = f"{self.where} {str(self.path)!r}"
        try:
            data, mode = read_secret(self.path, name, MAX_SIZE)
        except (OSError, ValueError) as error:
            raise StartError(
                f"{name}: can't be read ({plain_reason(error)}); want a file with the secret"
            ) from error
        text = data.decode("ascii", "replace").strip()
        if len(data) > MAX_SIZE or not _TEXT.fullmatch(text):
            raise StartError(f"{name}: want nothing in it but the secret, in one line of ASCII")
        if at_start and mode & stat.S_IRWXO:
            logger.warning(
                "others can use the file of a secret",
                path=str(self.path),
                mode=f"{stat.S_IMODE(mode):04o}",
                cure="run chmod 600 on it",
            )
        return text
