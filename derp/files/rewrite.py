"""A file that operators' commands edit: whole or not at all, with its mode and owner."""

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, Protocol, TypeVar

from certs.wholefile import replace_content, state
from derp.errors import DerperError
from derp.net.oserrors import reason

TRIES: Final = 3
SETTLED_AFTER: Final = 1.0
"""Seconds after which a file that has not changed is taken to be whole."""


class Found(Protocol):
    """A file as it was read."""

    @property
    def data(self) -> bytes:
        """Its content."""

    @property
    def status(self) -> os.stat_result:
        """Its status when it was opened."""


FoundT = TypeVar("FoundT", bound=Found)
T = TypeVar("T")


class Rewriter(Generic[FoundT]):
    """The editor of the file at `path`. One thread at a time may use it."""

    def __init__(
        self,
        path: Path,
        read: Callable[[], FoundT],
        failure: type[DerperError],
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        """`read` returns the file as it is; `failure` is raised where it can't be replaced."""
        self.path = path
        self._read = read
        self._failure = failure
        self._wait = wait
        self._own: tuple[int, ...] = ()
        """The state of the file after the last edit."""

    def edit(self, edited: Callable[[FoundT], tuple[bytes, T]]) -> T:
        """Have the file hold what `edited` makes of it; return the second that it returns. Blocks.

        The file is read first, once it has settled, so that no other change of it is lost; one that
        comes in the moment of the replace_content itself is. Raises `failure`, and what `read` and
        `edited` raise; then the file is as it was.
        """
        path = self.path
        for _ in range(TRIES):
            if not self._has_settled():
                continue
            found = self._read()
            data, result = edited(found)
            if data == found.data:
                return result
            try:
                written = replace_content(Path(os.path.realpath(path)), data, found.status)
            except OSError as error:
                raise self._failure(f"{path} can't be replaced: {_why(error)}") from error
            if written is not None:
                self._own = state(written)
                return result
        raise self._failure(f"{path} is being changed by another program")

    def _has_settled(self) -> bool:
        """Wait, if the file was changed just now; return whether it has not changed meanwhile.

        A program that writes it in place, in parts, would else lose what it writes after the
        replace_content.
        """
        try:
            status = self.path.stat()
            if state(status) == self._own or time.time() - status.st_mtime >= SETTLED_AFTER:
                return True
            self._wait(SETTLED_AFTER)
            return state(self.path.stat()) == state(status)
        except (OSError, ValueError):
            return True  # reading it says what is wrong


def _why(error: OSError) -> str:
    if error.errno == errno.EBUSY:
        return "it is a mount of its own; mount the directory that it is in"
    return reason(error)
