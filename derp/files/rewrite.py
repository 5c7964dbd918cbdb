"""A file that operators' commands edit: whole or not at all, with its mode and owner."""

import contextlib
import errno
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Generic, Protocol, TypeVar

from derp.errors import DerperError
from derp.net.oserrors import reason

TRIES: Final = 3
SETTLED_AFTER: Final = 1.0
"""Seconds after which a file that has not changed is taken to be whole."""

_ACL: Final = "system.posix_acl_access"


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
    """What edits the file at `path`. One thread at a time may use it."""

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
        comes in the moment of the exchange itself is. Raises `failure`, and what `read` and
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
                written = _replace(Path(os.path.realpath(path)), found.status, data)
            except OSError as error:
                raise self._failure(f"{path} can't be replaced: {_why(error)}") from error
            if written is not None:
                self._own = _state(written)
                return result
        raise self._failure(f"{path} is being changed by another program")

    def _has_settled(self) -> bool:
        """Wait, if the file was changed just now; return whether it has not changed meanwhile.

        A program that writes it in place, in parts, would else lose what it writes after the
        exchange.
        """
        try:
            status = self.path.stat()
            if _state(status) == self._own or time.time() - status.st_mtime >= SETTLED_AFTER:
                return True
            self._wait(SETTLED_AFTER)
            return _state(self.path.stat()) == _state(status)
        except (OSError, ValueError):
            return True  # reading it says what is wrong


def _replace(path: Path, found: os.stat_result, data: bytes) -> os.stat_result | None:
    """Put `data` in the place of what was found; return its status there.

    Returns None if what was found is no longer there.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".new.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            _take_over(path, found, descriptor)
            stream.write(data)
            stream.flush()
            os.fsync(descriptor)
        if _state(path.stat()) != _state(found):
            return None
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    with _directory(path.parent) as directory:
        os.fsync(directory)
    return path.stat()


def _take_over(path: Path, status: os.stat_result, descriptor: int) -> None:
    """Give a new file the owner, the access-control list and the mode of the old one."""
    own = os.fstat(descriptor)
    if (own.st_uid, own.st_gid) != (status.st_uid, status.st_gid):
        os.fchown(descriptor, status.st_uid, status.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(status.st_mode))
    if hasattr(os, "getxattr"):
        try:
            entries = os.getxattr(path, _ACL)
        except OSError as error:
            if error.errno not in (errno.ENODATA, errno.EOPNOTSUPP):
                raise
        else:
            os.setxattr(descriptor, _ACL, entries)


def _state(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


@contextlib.contextmanager
def _directory(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _why(error: OSError) -> str:
    if error.errno == errno.EBUSY:
        return "it is a mount of its own; mount the directory that it is in"
    return reason(error)
