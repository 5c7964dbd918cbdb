"""Reading a small file that holds a secret."""

import os
import stat
from pathlib import Path

from derp.errors import StartError
from derp.files.ownership import warn_if_swappable


def read_secret(path: Path, name: str, most: int) -> tuple[bytes, int]:
    """Return at most `most` + 1 bytes of a file, and its mode. Blocks.

    Warns if other users could replace it. Raises StartError, in which `name` stands for the file,
    if it is not a regular one (a pipe would wait for its writer); OSError; and ValueError for a
    path with a NUL in it.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise StartError(f"{name}: not a regular file; want the path of a file")
        warn_if_swappable(path)
        return os.read(descriptor, most + 1), mode
    finally:
        os.close(descriptor)
