"""What the attacks of one run have in common."""

import os
import shlex
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.record import ROOT, said, surroundings
from bench.servers import Program
from tests.hostile import table
from tests.hostile.attacks import Attack
from tests.hostile.measure import Measured

SHORT_SECONDS, LONG_SECONDS = 1.0, 10.0
SPARE_DESCRIPTORS = 200
COMMAND = "python3 noxfile.py -s hostile"


@dataclass
class Session:
    """What the attacks of one run have in common, and what they have come to."""

    long: bool
    programs: dict[str, Program]
    load: Path
    work: Path
    descriptors: int
    """How many files a process may have open."""
    results: dict[Attack, dict[str, Measured]] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        return LONG_SECONDS if self.long else SHORT_SECONDS

    def fitted(self, attack: Attack) -> Attack:
        """Return an attack of no more connections than there may be."""
        return replace(attack, count=min(attack.count, self.descriptors - SPARE_DESCRIPTORS))

    def text(self) -> str:
        """Return the tables and where they come from."""
        about = surroundings()
        for name, program in self.programs.items():
            about[name] = said([*program.command, "-version"], program.directory)
        compared = " -- --beside" if "theirs" in self.programs else ""
        about["command"] = f"{COMMAND}{' -- --long' if self.long else compared}"
        results = {attack: both for attack, both in self.results.items() if both}
        return f"{table.tables(results)}\n\n{table.origin(about, results, self.seconds)}"


def program(name: str, command: str) -> Program:
    """Return a relay that can be started. Raises AssertionError where there is none."""
    words = shlex.split(command)
    executable = shutil.which(words[0])
    assert executable, f"{command}: there is no such program"
    # A venv's links must stay.
    return Program(name, [os.path.abspath(executable), *words[1:]], ROOT)  # noqa: PTH100
