"""The policy file on disk."""

import os
import stat
from pathlib import Path
from typing import Final

from certs.files import NOT_REGULAR, open_regular
from certs.ownership import warn_if_swappable
from derp.errors import DerperError, StartError
from derp.policy.document import MAX_SIZE, PolicyFormError, parse
from derp.policy.model import Policy

FLAG: Final = "-policy"


def load(path: Path, failure: type[DerperError] = StartError) -> Policy:
    """Read the policy at `path`; warn if other users could replace it. Blocks. Raises `failure`.

    A file that every user may write to is an error: it says who may use the relay.
    """
    name = f"{FLAG} {str(path)!r}"
    try:
        with open_regular(path) as stream:
            data, mode = stream.read(MAX_SIZE + 1), os.fstat(stream.fileno()).st_mode
    except OSError as error:
        reason = "not a regular file" if error.errno in NOT_REGULAR else error.strerror
        raise failure(f"{name}: {reason}; want a policy in TOML that derper may read") from error
    except ValueError as error:
        raise failure(f"{name}: {error}; want the path of a policy in TOML") from error
    if mode & stat.S_IWOTH:
        others = f"every user can write to it (mode {stat.S_IMODE(mode):04o})"
        raise failure(f"{name}: {others}; run: chmod o-w {path}")
    try:
        policy = parse(data)
    except PolicyFormError as error:
        raise failure(f"{name}: {error}") from None
    warn_if_swappable(path)
    return policy
