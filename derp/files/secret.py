"""Reading a small file that holds a secret."""

import os
from pathlib import Path

from certs.files import NOT_REGULAR, open_regular
from certs.ownership import warn_if_swappable
from derp.errors import StartError


def read_secret(path: Path, name: str, max_size: int) -> tuple[bytes, int]:
    """Return at most `max_size` + 1 bytes of a file, and its mode. Blocks.

    Warns if other users could replace it. Raises StartError, in which `name` stands for the file,
    if it is not a regular one (a pipe would wait for its writer); OSError; and ValueError for a
    path with a NUL in it.
    """
    try:
        with open_regular(path) as file:
            warn_if_swappable(path)
            return file.read(max_size + 1), os.fstat(file.fileno()).st_mode
    except OSError as error:
        if error.errno in NOT_REGULAR:
            raise StartError(f"{name}: not a regular file; want the path of a file") from error
        raise
