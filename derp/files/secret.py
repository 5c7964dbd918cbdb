"""The reading of small files with a secret."""

import os
from pathlib import Path

from certs.files import NOT_REGULAR, open_regular
from certs.ownership import warn_if_swappable
from derp.errors import StartError


def read_secret(path: Path, name: str, max_size: int) -> tuple[bytes, int]:
    """Return at most `max_size` + 1 bytes of a file, and its mode. Blocks.

    Warns if other users could replace it. Raises StartError, with `name`, for a file that is not
    regular (a pipe would wait for its writer); OSError; ValueError for a path with a NUL.
    """
    try:
        with open_regular(path) as file:
            warn_if_swappable(path)
            return file.read(max_size + 1), os.fstat(file.fileno()).st_mode
    except OSError as error:
        if error.errno in NOT_REGULAR:
            raise StartError(f"{name}: not a regular file; want the path of a file") from error
        raise
