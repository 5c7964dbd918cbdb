"""The flags and variables of a running derper, for commands with -of."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from derp.errors import UsageError
from derp.net.oserrors import reason

_PROGRAM: Final = "derper"
_MODULE: Final = ["-m", "derp"]
_WORKER: Final = "worker"
"""The command of a worker; a descriptor and the flags of its supervisor come after it."""


def arguments_of(pid: int, proc: Path = Path("/proc")) -> list[str]:
    """Return the flags that the process was given. Raises UsageError if there is no process.

    The process may be another program that runs derper: only what follows derper's name counts.
    """
    try:
        line = (proc / str(pid) / "cmdline").read_bytes()
    except OSError as error:
        raise UsageError(f"-of {pid}: {reason(error)}") from error
    return flags_in([word.decode("utf-8", "surrogateescape") for word in line.split(b"\0")[:-1]])


def variables_of(pid: int, proc: Path = Path("/proc")) -> dict[str, str]:
    """Return the environment of the process; empty unless this user may read it."""
    try:
        block = (proc / str(pid) / "environ").read_bytes()
    except OSError:
        return {}
    words = [word.decode("utf-8", "surrogateescape") for word in block.split(b"\0")]
    return {name: value for name, sign, value in (word.partition("=") for word in words) if sign}


def flags_in(words: Sequence[str]) -> list[str]:
    """Return the flags after the last mention of the program in a command line."""
    for position in range(len(words), 0, -1):
        named = words[position - 1].rpartition("/")[2] == _PROGRAM
        if named or list(words[position - 2 : position]) == _MODULE:
            flags = list(words[position:])
            return flags[2:] if flags[:1] == [_WORKER] else flags
    return []
