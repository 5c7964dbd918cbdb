"""Files that are written whole or not at all, even in a crash.

The content goes into a temporary file beside the file, which is then renamed to it. A process that
is killed meanwhile leaves the temporary file, which a later write to the same file removes.
"""

import contextlib
import errno
import os
import stat
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

LEFT_AFTER: Final = 3600.0
"""Seconds after which a file that nobody has written to belongs to a process that was killed."""

_NO_HARD_LINKS: Final = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
_NO_ACL: Final = (errno.ENODATA, errno.EOPNOTSUPP)
_ACL: Final = "system.posix_acl_access"


def write_whole(file: Path, content: bytes, *, mode: int, replace: bool = True) -> bool:
    """Write a file whole or not at all; return whether it was. Raises OSError.

    Without `replace`, an existing file stays, and False is returned.
    """
    with _written(file, content, lambda descriptor: os.fchmod(descriptor, mode)) as temporary:
        if replace:
            temporary.replace(file)
            return True
        return _link(temporary, file)


def replace_content(file: Path, content: bytes, found: os.stat_result) -> os.stat_result | None:
    """Replace the content of a file, which keeps its owner, mode and access-control list.

    Returns the new status; None if the file is not as it was `found`, and stays as it is. Raises
    OSError.
    """
    with _written(
        file, content, lambda descriptor: _take_over(file, found, descriptor)
    ) as temporary:
        if state(file.stat()) != state(found):
            return None
        temporary.replace(file)
    return file.stat()


def state(status: os.stat_result) -> tuple[int, ...]:
    """Return what changes in a file's status when its content does."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


@contextlib.contextmanager
def _written(file: Path, content: bytes, prepare: Callable[[int], None]) -> Iterator[Path]:
    """Yield a file with `content`, to be moved or linked to `file`; it is on the disk.

    `prepare` is called with its descriptor while it is empty. Afterwards the directory is synced,
    too.
    """
    # Short, so that any file system that takes the name of `file` takes this one.
    prefix = f".new.{zlib.crc32(os.fsencode(file.name)):08x}."
    _remove_left_behind(file.parent, prefix)
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=prefix)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            prepare(descriptor)
            stream.write(content)
            stream.flush()
            os.fsync(descriptor)
        yield temporary
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    directory = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _remove_left_behind(directory: Path, prefix: str) -> None:
    """Remove what processes have left that were killed; another may be writing just now."""
    with contextlib.suppress(OSError):
        for each in directory.iterdir():
            if each.name.startswith(prefix) and time.time() - each.lstat().st_mtime > LEFT_AFTER:
                each.unlink()


def _link(temporary: Path, file: Path) -> bool:
    """Give a temporary file the name `file` unless that is taken; return whether it was free."""
    try:
        file.hardlink_to(temporary)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        # Some network file systems have no hard links. If two processes make the file there in the
        # same instant, the second may replace the file of the first.
        if file.is_symlink() or file.exists():
            return False
        temporary.rename(file)
    return True


def _take_over(file: Path, status: os.stat_result, descriptor: int) -> None:
    """Give a new file the owner, the access-control list and the mode of the old one."""
    own = os.fstat(descriptor)
    # Only root gives a file to a group that it is not in. Nothing is lost where the group has no
    # rights, as with a file that a container's root made and gave to the relay's user.
    has_rights = bool(status.st_mode & stat.S_IRWXG)
    group = status.st_gid if has_rights or os.geteuid() == 0 else own.st_gid
    if (own.st_uid, own.st_gid) != (status.st_uid, group):
        os.fchown(descriptor, status.st_uid, group)
    os.fchmod(descriptor, stat.S_IMODE(status.st_mode))
    if hasattr(os, "getxattr"):
        try:
            entries = os.getxattr(file, _ACL)
        except OSError as error:
            if error.errno not in _NO_ACL:
                raise
        else:
            os.setxattr(descriptor, _ACL, entries)
