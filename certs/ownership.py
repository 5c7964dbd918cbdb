"""Other users than root and the relay's own who could swap a trusted file for another.

They own the file or a directory on its path, or may write to one of these; in a sticky directory
such as /tmp users can swap only their own files. OpenSSH's StrictModes is a check of the same kind.
"""

import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

logger = logging.getLogger("derper.files")

_warned: set[str] = set()


def swap_warning(file: Path) -> str | None:
    """Return a line on who could swap a file and how to prevent it; None if no other user could.

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
    """Log the warning of `swap_warning`, each text only once. Blocks.

    It is not an error: in a container, the host's files often belong to users unknown there.
    """
    warning = swap_warning(file)
    if warning is not None and warning not in _warned:
        _warned.add(warning)
        logger.warning(warning)


def _paths_to(file: Path) -> Iterator[Path]:
    """Yield the file and the directories on its path, as given and with links resolved."""
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
