"""The operator's token, in -admin-token-file: whoever shows it may steer the relay's clients."""

import stat
from pathlib import Path
from typing import ClassVar, Final

from derp.errors import StartError
from derp.files.watched import MAX_SIZE, WatchedSecret

MIN_LENGTH: Final = 16
"""Characters, so that nobody guesses it."""

_WANT: Final = f"want {MIN_LENGTH} to {MAX_SIZE} ASCII characters without spaces, such as those of"
_CURE: Final = "openssl rand -hex 32"


class AdminToken(WatchedSecret):
    """The operator's token."""

    flag: ClassVar = "-admin-token-file"
    unusable: ClassVar = "nobody may steer clients on /debug/, as the token's file can't be used"

    def check(self, secret: bytes, mode: int) -> None:
        """Raise ValueError for what is no token, or a file that others can use."""
        if mode & stat.S_IRWXO:
            others = f"others can use it (mode {stat.S_IMODE(mode):04o})"
            raise ValueError(f"{others}; run chmod 600 on it, or mount it with that mode")
        if len(secret) < MIN_LENGTH or any(not 0x21 <= byte <= 0x7E for byte in secret):
            raise ValueError(f"not a token; {_WANT} {_CURE}")


def load_token(path: Path | None) -> AdminToken:
    """Return the token at the start. Blocks. Raises StartError where its file can't be used."""
    token = AdminToken(path)
    if path is None:
        return token
    name = f"{AdminToken.flag} {str(path)!r}"
    try:
        token.value = token.load(path)
    except OSError as error:
        cure = f"make it, in mode 600, with the output of {_CURE}"
        raise StartError(f"{name}: can't be read: {error.strerror}; {cure}") from error
    except ValueError as error:
        raise StartError(f"{name}: {error}") from error
    return token
