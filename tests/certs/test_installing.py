"""The command that installs a library is one that this Python's pip, or another's, takes.

Each was run once by hand: in Debian's Python, and in an environment as the image has it.
"""

import sys
import sysconfig
from pathlib import Path

import pytest

from certs import installing
from certs.installing import how_to_install

PYTHON, BASE = "/app/venv/bin/python", "/usr/local"
DEBIAN = "Debian: apt install python3-pip"


@pytest.mark.parametrize(
    ("is_venv", "has_pip", "is_managed", "command"),
    [
        (True, True, False, f"run: {PYTHON} -m pip install 'a[b]>=1'"),
        (True, True, True, f"run: {PYTHON} -m pip install 'a[b]>=1'"),
        (True, False, True, f"run: {BASE}/bin/python3 -m pip --python {PYTHON} install 'a[b]>=1'"),
        (False, True, False, f"run: {PYTHON} -m pip install 'a[b]>=1'"),
        (False, True, True, f"run: {PYTHON} -m pip install --break-system-packages 'a[b]>=1'"),
        (
            False,
            False,
            True,
            f"run, with pip ({DEBIAN}): {PYTHON} -m pip install --break-system-packages 'a[b]>=1'",
        ),
    ],
)
def test_it_is_for_the_python_that_runs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_venv: bool,
    has_pip: bool,
    is_managed: bool,
    command: str,
) -> None:
    monkeypatch.setattr(sys, "executable", PYTHON)
    monkeypatch.setattr(sys, "base_prefix", BASE)
    monkeypatch.setattr(sys, "prefix", "/app/venv" if is_venv else BASE)
    monkeypatch.setattr(installing, "find_spec", lambda _name: has_pip or None)
    monkeypatch.setattr(sysconfig, "get_path", lambda _name: str(tmp_path))
    if is_managed:
        (tmp_path / "EXTERNALLY-MANAGED").touch()
    assert how_to_install("a[b]>=1") == command
