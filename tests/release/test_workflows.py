"""The forge's workflows, as far as they can be checked without the forge."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.deploy.files import ROOT
from tests.release.tools import built

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


@pytest.fixture(scope="module")
def actionlint() -> Path:
    return built()["actionlint"]


def lint(actionlint: Path, *paths: Path) -> "subprocess.CompletedProcess[str]":
    # It reads the scripts with shellcheck, where that is installed.
    command = [actionlint, "-no-color", "-shellcheck", shutil.which("shellcheck") or "", *paths]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_actionlint_has_nothing_against_them(actionlint: Path) -> None:
    assert [path.name for path in WORKFLOWS] == ["ci.yml", "release.yml"]
    done = lint(actionlint, *WORKFLOWS)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_mistakes_are_found(actionlint: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "release.yml"
    text = (ROOT / ".github/workflows/release.yml").read_text()
    wrong.write_text(text.replace("needs: [ready, files, image, pypi]", "needs: [ready, filse]"))
    done = lint(actionlint, wrong)
    assert done.returncode == 1
    assert '"filse"' in done.stdout


def test_what_they_run_is_there() -> None:
    text = "\n".join(path.read_text() for path in WORKFLOWS)
    sessions = re.findall(r"noxfile\.py -s (\w+)", text)
    modules = re.findall(r"python3? -m (release\.\w+)", text)
    files = re.findall(r"(?:--file|go-version-file:) (\S+)|(\.ci/\w+)", text)
    assert all((sessions, modules, files))
    for session in sessions:
        assert f"\ndef {session}(session: nox.Session)" in (ROOT / "noxfile.py").read_text()
    for module in modules:
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file()
    for one, other in files:
        assert (ROOT / (one or other)).is_file()


def test_no_right_is_given_that_a_job_does_not_take() -> None:
    """The token of a workflow may read; each job that writes says what."""
    for path in WORKFLOWS:
        head = path.read_text().partition("\njobs:")[0]
        assert "\npermissions:\n  contents: read\n" in head
        assert "write-all" not in path.read_text()
