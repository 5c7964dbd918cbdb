"""The policy file on disk."""

import os
import stat
from pathlib import Path
from typing import Final

import attrs

from certs.files import NOT_REGULAR, open_regular
from certs.ownership import warn_if_swappable
from derp.errors import DerperError, StartError
from derp.policy.document import MAX_SIZE, PolicyFormError, parse
from derp.policy.model import Policy

FLAG: Final = "-policy"


@attrs.frozen
class Found:
    """A policy file as it was read."""

    data: bytes
    status: os.stat_result
    policy: Policy


def load(path: Path, failure: type[DerperError] = StartError) -> Policy:
    """Read the policy at `path`; warn if other users could replace it. Blocks. Raises `failure`.

    A file that every user may write to is an error: it says who may use the relay.
    """
    return read(path, failure).policy


def read(path: Path, failure: type[DerperError]) -> Found:
    """Read the file at `path`, as `load` does."""
    name = f"{FLAG} {str(path)!r}"
    try:
        with open_regular(path) as stream:
            status = os.fstat(stream.fileno())
            data = stream.read(MAX_SIZE + 1)
    except OSError as error:
        reason = "not a regular file" if error.errno in NOT_REGULAR else error.strerror
        raise failure(f"{name}: {reason}; want a policy in TOML that derper may read") from error
    except ValueError as error:
        raise failure(f"{name}: {error}; want the path of a policy in TOML") from error
    if status.st_mode & stat.S_IWOTH:
        others = f"every user can write to it (mode {stat.S_IMODE(status.st_mode):04o})"
        raise failure(f"{name}: {others}; run: chmod o-w {path}")
    try:
        policy = parse(data)
    except PolicyFormError as error:
        raise failure(f"{name}: {error}") from None
    warn_if_swappable(path)
    return Found(data, status, policy)
