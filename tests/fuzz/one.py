"""One target under atheris, in a child of a process that has imported all targets already.

libFuzzer mutates the inputs of the corpus, keeps those that reach new code, and writes one that
raises to a file. To import and instrument the program takes longer than many a target runs.
"""

import contextlib
import io
import os
from collections.abc import Sequence
from pathlib import Path

import atheris

_INCLUDED = ["derp", "stun", "certs", "h11", "websockets"]

# A line for each module is told there.
with contextlib.redirect_stderr(io.StringIO()), atheris.instrument_imports(include=_INCLUDED):
    from tests.fuzz import targets


def run(name: str, arguments: Sequence[str], said: Path) -> None:
    """Fuzz one target with libFuzzer's `arguments`; its words go to `said`. Ends the process."""
    with said.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    target = targets.planted if name == targets.planted.__name__ else targets.TARGETS[name]
    atheris.Setup([name, *arguments], target)
    atheris.Fuzz()
