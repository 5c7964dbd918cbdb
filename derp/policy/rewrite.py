"""A change written into the policy file: whole or not at all, with its mode, owner and comments."""

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from certs.wholefile import exchange, state
from derp.errors import PolicyNotWritten
from derp.net.oserrors import reason
from derp.policy.change import Change
from derp.policy.document import PolicyFormError, parse
from derp.policy.edit import NotEditable, edited
from derp.policy.file import read
from derp.policy.model import Policy

TRIES: Final = 3
SETTLED_AFTER: Final = 1.0
"""Seconds after which a file that has not changed is taken to be whole."""

_BOM: Final = b"\xef\xbb\xbf"


class Rewriter:
    """The writer of changes into the file at `path`. One thread at a time may use it."""

    def __init__(self, path: Path, wait: Callable[[float], None] = time.sleep) -> None:
        self._path = path
        self._wait = wait
        self._own: tuple[int, ...] = ()
        """The state of the file after the last write of this relay."""

    def write(self, change: Change) -> Policy:
        """Write a change into the file; return what the file says then. Blocks.

        What the file says is read first, once it has settled, so that no other change of it is
        lost; one that comes in the moment of the exchange itself is. Raises PolicyNotWritten; then
        the file is as it was.
        """
        path = self._path
        for _ in range(TRIES):
            if not self._has_settled():
                continue
            found = read(path, PolicyNotWritten)
            data = _changed(path, found.data, change)
            if data == found.data:
                return found.policy
            try:
                policy = parse(data)
            except PolicyFormError as error:
                raise PolicyNotWritten(f"{path} would have a mistake with it: {error}") from None
            if not change.explains(found.policy, policy):
                raise PolicyNotWritten(f"{path} would say something else with it, too")
            try:
                written = exchange(Path(os.path.realpath(path)), data, found.status)
            except OSError as error:
                raise PolicyNotWritten(f"{path} can't be replaced: {_why(error)}") from error
            if written is not None:
                self._own = state(written)
                return policy
        raise PolicyNotWritten(f"{path} is being changed by another program")

    def _has_settled(self) -> bool:
        """Wait, if the file was changed just now; return whether it has not changed meanwhile.

        A program that writes it in place, in parts, would else lose what it writes after the
        exchange.
        """
        try:
            status = self._path.stat()
            if state(status) == self._own or time.time() - status.st_mtime >= SETTLED_AFTER:
                return True
            self._wait(SETTLED_AFTER)
            return state(self._path.stat()) == state(status)
        except (OSError, ValueError):
            return True  # reading it says what is wrong


def _changed(path: Path, data: bytes, change: Change) -> bytes:
    bom = _BOM if data.startswith(_BOM) else b""
    text = data.removeprefix(bom).decode()
    try:
        return bom + edited(text, change.key, change.assignments).encode()
    except NotEditable as error:
        raise PolicyNotWritten(f"{path} can't be edited: {error}") from None


def _why(error: OSError) -> str:
    if error.errno == errno.EBUSY:
        return "it is a mount of its own; mount the directory that it is in"
    return reason(error)
