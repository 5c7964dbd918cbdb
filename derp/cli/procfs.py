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
    return flags_in(_words(line))


def relay_of_container(proc: Path = Path("/proc")) -> int:
    """Return the process ID of a container's relay; 0 where the first process runs none."""
    if not _is_relay(proc / "1"):
        return 0
    # The first process may be one that started the relay.
    found = (int(entry.name) for entry in proc.iterdir() if entry.name.isdecimal())
    return max(pid for pid in found if _is_relay(proc / str(pid)))


def _is_relay(process: Path) -> bool:
    """Return whether a process is a relay, or runs one."""
    try:
        words = _words((process / "cmdline").read_bytes())
    except OSError:
        return False
    position = _after_program(words)
    # A relay has flags only; a command comes first, as `worker` does.
    return position > 0 and all(word.startswith("-") for word in words[position : position + 1])


def directory_of(pid: int, proc: Path = Path("/proc")) -> Path:
    """Return the working directory of the process; our own if this user may not see it."""
    try:
        return (proc / str(pid) / "cwd").readlink()
    except OSError:
        return Path.cwd()


def variables_of(pid: int, proc: Path = Path("/proc")) -> dict[str, str]:
    """Return the environment of the process; empty unless this user may read it."""
    try:
        block = (proc / str(pid) / "environ").read_bytes()
    except OSError:
        return {}
    return {
        name: value for name, sign, value in (word.partition("=") for word in _words(block)) if sign
    }


def _words(block: bytes) -> list[str]:
    return [
        word.decode("utf-8", "surrogateescape") for word in block.removesuffix(b"\0").split(b"\0")
    ]


def flags_in(words: Sequence[str]) -> list[str]:
    """Return the flags after the last mention of the program in a command line."""
    position = _after_program(words)
    flags = list(words[position:]) if position else []
    return flags[2:] if flags[:1] == [_WORKER] else flags


def _after_program(words: Sequence[str]) -> int:
    """Return the position after the last mention of the program; 0 if there is none."""
    for position in range(len(words), 0, -1):
        named = words[position - 1].rpartition("/")[2] == _PROGRAM
        if named or list(words[position - 2 : position]) == _MODULE:
            return position
    return 0
