"""The command that installs a library for the Python that runs the relay."""

import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path


def how_to_install(requirement: str) -> str:
    """Return a command by which pip installs `requirement`, with the flags this Python needs."""
    python, pip = sys.executable, "-m pip install"
    if sys.prefix != sys.base_prefix:
        if find_spec("pip") is None:  # as in the image
            base = Path(sys.base_prefix) / "bin/python3"
            return f"run: {base} -m pip --python {python} install '{requirement}'"
    elif Path(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED").exists():  # as Debian's
        pip = f"{pip} --break-system-packages"
    command = f"{python} {pip} '{requirement}'"
    if find_spec("pip") is None:
        return f"run, with pip (Debian: apt install python3-pip): {command}"
    return f"run: {command}"
