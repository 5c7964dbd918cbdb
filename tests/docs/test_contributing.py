"""The diffs in CONTRIBUTING.md, which show how to add things, apply to the tree as it is."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DIFFS = re.findall(r"```diff\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.DOTALL)


def test_there_are_diffs() -> None:
    assert len(DIFFS) == 4


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
@pytest.mark.parametrize("diff", DIFFS, ids=["flag", "gauge", "page", "source"])
def test_it_applies(diff: str) -> None:
    done = subprocess.run(
        ["git", "apply", "--check", "-C1", "-"],
        input=diff,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
