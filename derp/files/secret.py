"""Reading a small file that holds a secret: no pipe, which would wait for its writer."""

import os
import stat
from pathlib import Path

from derp.errors import StartError
from derp.files.ownership import warn_if_swappable


def read_secret(path: Path, name: str, most: int) -> tuple[bytes, int]:
    """Return what is in a file, and its mode; of one larger than `most` bytes, a byte more. Blocks.

    Warns of one that others could swap.
    Raises StartError, in which `name` is what the operator calls it, for what is no regular file,
    and OSError; ValueError for a path that can't be one.
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
