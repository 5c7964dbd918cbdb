"""A listening unix socket with a path, which only this user may open."""

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from derp.errors import StartError
from derp.net.oserrors import reason

_BACKLOG: Final = 128
_OTHERS: Final = 0o177


@contextlib.contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """Listen at `path` while the block runs; remove the socket afterwards. Raises StartError.

    The mode is 0600 from the first moment on: the process's umask is changed for that moment, so
    call it before there are threads that make files. A socket that a process has left there, and on
    which nobody listens, is replaced.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.setblocking(False)
        try:
            _remove_left_behind(path)
            umask = os.umask(_OTHERS)
            try:
                listener.bind(str(path))
            finally:
                os.umask(umask)
            made = path.lstat()
            listener.listen(_BACKLOG)
        except OSError as error:
            raise StartError(f"can't listen on unix:{path}: {reason(error)}") from error
        try:
            yield listener
        finally:
            with contextlib.suppress(OSError):
                if os.path.samestat(made, path.lstat()):
                    path.unlink()


def _remove_left_behind(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise StartError(f"can't listen on unix:{path}: want a path where no other file is")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:
            pass  # its queue is full
    raise StartError(f"can't listen on unix:{path}: the socket is in use by another program")
