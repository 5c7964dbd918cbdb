"""Programs that are run within a time; one that takes longer is ended with all it started."""

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from typing import BinaryIO, Final

import attrs

from certs.dns01.budget import Budget
from certs.errors import IssueError

OUTPUT_LIMIT: Final = 65536
"""Most bytes of an output that are read."""
_CHECK_EVERY: Final = 0.1


@attrs.frozen
class Ended:
    """The end of a program, and the beginnings of its output."""

    status: int | None
    """As of subprocess; None if its time was up."""
    output: bytes
    """The first bytes of standard output."""
    errors: bytes
    """The first bytes of standard error."""


def run(
    command: Sequence[str], variables: Mapping[str, str], budget: Budget, call: bytes = b""
) -> Ended:
    """Run a program, with `call` as its standard input, until it ends or the time is up.

    Raises OSError if it can't be started, and IssueError if the order is given up meanwhile.
    """
    with contextlib.ExitStack() as stack:
        source, output, errors = (stack.enter_context(_scratch()) for _ in range(3))
        source.write(call)
        source.seek(0)
        process = subprocess.Popen(  # noqa: S603 - ours, or one that the operator named
            command,
            stdin=source,
            stdout=output,
            stderr=errors,
            env=dict(variables),
            start_new_session=True,
        )
        status = None
        try:
            while status is None and budget.left():
                budget.check()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    status = process.wait(budget.left(_CHECK_EVERY))
        finally:
            if status is None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        found = []
        for stream in (output, errors):
            stream.seek(0)
            found.append(stream.read(OUTPUT_LIMIT))
        return Ended(status, *found)


def _scratch() -> BinaryIO:
    """Return an empty file without a name; in memory, where the system has such."""
    if hasattr(os, "memfd_create"):
        with contextlib.suppress(OSError):
            return os.fdopen(os.memfd_create("derper"), "w+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)


def last_line(errors: bytes) -> str:
    """Return the last line of an output that is not blank; empty without one."""
    lines = errors.decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def unstartable(name: str, error: OSError) -> IssueError:
    """Return the IssueError for a program that can't be started."""
    return IssueError(f"{name} can't be started ({error.strerror}); name a program that can be")
