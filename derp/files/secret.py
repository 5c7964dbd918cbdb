"""Reading a small file that holds a secret."""

import os
from pathlib import Path

from certs.files import NOT_REGULAR, open_regular
from certs.ownership import warn_if_swappable
from derp.errors import StartError


def read_secret(path: Path, name: str, most: int) -> tuple[bytes, int]:
    """Return what is in a file, and its mode; of one larger than `most` bytes, a byte more. Blocks.

    Warns of one that others could swap.
    Raises StartError, in which `name` is what the operator calls it, for what is no regular file,
    and OSError; ValueError for a path that can't be one.
    """
    try:
        with open_regular(path) as file:
            warn_if_swappable(path)
            return file.read(most + 1), os.fstat(file.fileno()).st_mode
    except OSError as error:
        if error.errno in NOT_REGULAR:
            raise StartError(f"{name}: not a regular file; want the path of a file") from error
        raise
