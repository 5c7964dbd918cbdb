"""Listening unix sockets with a path, open to whom the operator says."""

import contextlib
import errno
import fcntl
import grp
import os
import pwd
import socket
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from derp.errors import StartError
from derp.net.listenaddress import UnixSocket
from derp.net.listener import BACKLOG
from derp.net.oserrors import reason

_BACKLOG: Final = 4096
_LOCK_TRIES: Final = 50
_LOCK_PAUSE: Final = 0.02
"""Seconds between tries to get the lock of a directory. A relay holds it for some milliseconds."""
_UNCHANGED: Final = -1
"""The number that chown(2) takes for an owner that stays."""


@contextlib.contextmanager
def listening(address: UnixSocket) -> Iterator[socket.socket]:
    """Listen at a path while the block runs; remove the socket afterwards. Raises StartError.

    The mode is right from the first moment on: the process's umask is changed for that moment, so
    call it before there are threads that make files. A socket that a process of this user has left
    there, and on which nobody listens, is replaced; of two that start at once, one gets the path.
    """
    path = address.path
    user = _number(address, "user", address.user, lambda name: pwd.getpwnam(name).pw_uid)
    group = _number(address, "group", address.group, lambda name: grp.getgrnam(name).gr_gid)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.setblocking(False)
        made = None
        try:
            with _start_errors(address), _locked(path.parent):
                _remove_left_behind(address, user)
                umask = os.umask(0o777 & ~address.mode)
                try:
                    listener.bind(str(path))
                finally:
                    os.umask(umask)
                made = _identity(path)
                if (user, group) != (_UNCHANGED, _UNCHANGED):
                    _give(address, user, group)
                    made = _identity(path)
                listener.listen(BACKLOG)
            yield listener
        finally:
            with contextlib.suppress(OSError):
                if made is not None and made == _identity(path):
                    path.unlink()


@contextlib.contextmanager
def _start_errors(address: UnixSocket) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StartError(f"can't listen on {address}: {reason(error)}") from error


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold the lock of a directory while the block runs.

    Without it, a relay that has found a socket with no listener could remove the one that another
    relay has put in its place since, or is about to listen on. Whoever may read the directory can
    hold the lock, so nobody waits long for it; and some network file systems have none.
    """
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        yield  # one that may not be read; or what is wrong shows when the socket is made
        return
    try:
        for _ in range(_LOCK_TRIES):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(_LOCK_PAUSE)
            except OSError:
                break
        yield
    finally:
        os.close(descriptor)


def _number(address: UnixSocket, kind: str, name: str, find: Callable[[str], int]) -> int:
    """Return the number of a user or group, given by name or number."""
    if not name:
        return _UNCHANGED
    if name.isascii() and name.isdecimal():
        return int(name)
    try:
        return find(name)
    except KeyError:
        raise StartError(
            f"can't listen on {address}: {kind}={name}: this machine has no such {kind}"
        ) from None


def _give(address: UnixSocket, user: int, group: int) -> None:
    try:
        os.chown(address.path, user, group, follow_symlinks=False)
    except PermissionError as error:
        given = {"user": address.user, "group": address.group}
        wanted = ",".join(f"{kind}={name}" for kind, name in given.items() if name)
        raise StartError(
            f"can't listen on {address}: {wanted}: not permitted; only root may give a socket to "
            f"another user, or to a group that it is not in"
        ) from error


def _identity(path: Path) -> tuple[int, int, int]:
    """Return what tells a file from one that takes its place, perhaps with its inode's number."""
    status = path.lstat()
    return status.st_dev, status.st_ino, status.st_ctime_ns


def _remove_left_behind(address: UnixSocket, user: int) -> None:
    path = address.path
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise StartError(f"can't listen on {address}: want a path where no other file is")
    if _is_in_use(path):
        raise StartError(f"can't listen on {address}: the socket is in use by another program")
    if status.st_uid not in {os.geteuid(), user}:
        raise StartError(
            f"can't listen on {address}: a socket of the user with the number {status.st_uid} is "
            f"there; remove it if nobody needs it, or name another path"
        )
    path.unlink()


def _is_in_use(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        except BlockingIOError:
            return True  # its queue is full
        except OSError as error:
            # A socket of another type, such as one for datagrams.
            if error.errno != errno.EPROTOTYPE:
                raise
    return True
