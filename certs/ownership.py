"""Which users, besides root and the relay's own, could replace a trusted file.

They are the users who own the file or a directory on its path, or may write to it; in a sticky
directory such as /tmp they can replace only their own files. OpenSSH calls this StrictModes.
"""

import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

logger = logging.getLogger("derper.files")

_warned: set[str] = set()


def swap_warning(file: Path) -> str | None:
    """Return a line on who could replace a file and how to prevent it; None if nobody could.

    Blocks. A path that can't be examined counts as safe: reading the file reports the error.
    """
    for path in _paths_to(file):
        try:
            found = path.stat()
        except (OSError, ValueError):
            continue
        if (who := _others(found)) is not None:
            what = "it" if path == file else path
            return f"{file}: {who} {what}, and so could swap it; run: {_cure(found, path)}"
    return None


def warn_if_swappable(file: Path) -> None:
    """Log what `swap_warning` returns, each text only once. Blocks.

    It is no error: in containers, files of the host often belong to users unknown there.
    """
    warning = swap_warning(file)
    if warning is not None and warning not in _warned:
        _warned.add(warning)
        logger.warning(warning)


def _paths_to(file: Path) -> Iterator[Path]:
    """Yield the file and the directories on its path, with symbolic links and resolved."""
    real = Path(os.path.realpath(file))
    yield from dict.fromkeys((real, *real.parents, *file.absolute().parents))


def _others(found: os.stat_result) -> str | None:
    if found.st_uid not in {0, os.geteuid()}:
        return f"the user with ID {found.st_uid} owns"
    if stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX:
        return None
    if found.st_mode & stat.S_IWOTH:
        return "every user can write to"
    ours = {0, os.getegid(), *os.getgroups()}
    if found.st_mode & stat.S_IWGRP and found.st_gid not in ours:
        return f"the group with ID {found.st_gid} can write to"
    return None


def _cure(found: os.stat_result, path: Path) -> str:
    if found.st_uid not in {0, os.geteuid()}:
        return f"chown {os.geteuid()} {path}"
    return f"chmod go-w {path}"
