"""The Pythons of this machine: those that the relay is for, and older ones."""

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

from release.bundle import PYTHONS

OLDEST = tuple(map(int, PYTHONS[0].split(".")))


@cache
def found() -> dict[str, Path]:
    """CPythons by version, such as "3.11", in their order; what only looks like one is none."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    places = [Path(sys.base_prefix, "bin"), *sorted(pyenv.glob("versions/*/bin"), reverse=True)]
    places += [Path(entry) for entry in os.environ.get("PATH", "").split(os.pathsep) if entry]
    pythons: dict[str, Path] = {}
    for place in places:
        for python in sorted(place.glob("python[23].*")):
            version = python.name.removeprefix("python")
            is_one = re.fullmatch(r"\d\.\d+", version) and version not in pythons
            if is_one and works(python, version):
                pythons[version] = python
    return dict(sorted(pythons.items(), key=lambda item: number(item[0])))


def number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def works(python: Path, version: str) -> bool:
    check = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run([python, "-c", check], capture_output=True, timeout=20, check=False)
    except OSError:
        return False
    return done.returncode == 0 and done.stdout.decode().strip() == version


def supported() -> list[str]:
    return [version for version in found() if version in PYTHONS]


def too_old() -> list[str]:
    return [version for version in found() if number(version) < OLDEST]


def missing() -> list[str]:
    """Those that a release is for, and that are not here."""
    return [version for version in PYTHONS if version not in found()]
