"""derper.8 as those programs see it that show it."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

WAYS = {
    "man": ["man", "--warnings", "-E", "UTF-8", "-Tutf8", "-l"],
    "mandoc": ["mandoc", "-T", "lint", "-W", "warning"],
}


@pytest.mark.parametrize("program", WAYS)
def test_it_has_no_mistake(program: str, dist: Path) -> None:
    if not shutil.which(program):
        pytest.skip(f"{program} is not installed")
    done = subprocess.run(
        [*WAYS[program], dist / "derper.8"],
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    if program == "man":
        shown = re.sub(r"(.)\x08\1", r"\1", done.stdout)
        assert "-verify-client-url-authorization" in shown
    else:
        assert done.stdout == ""


@pytest.mark.parametrize("program", WAYS)
def test_mistakes_are_found(program: str, tmp_path: Path, dist: Path) -> None:
    if not shutil.which(program):
        pytest.skip(f"{program} is not installed")
    wrong = tmp_path / "derper.8"
    wrong.write_text((dist / "derper.8").read_text() + ".XX\n.TP\n\\fZwrong\n")
    done = subprocess.run([*WAYS[program], wrong], capture_output=True, text=True, check=False)
    assert done.stderr + done.stdout * (program == "mandoc")
