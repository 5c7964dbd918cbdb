"""RELEASING.md can be followed word for word: what it names is there, what it has typed works."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from release.bundle import ARCHITECTURES
from release.debian import REVISION
from release.notes import notes
from tests.deploy.files import ROOT

TEXT = (ROOT / "RELEASING.md").read_text("utf-8")
COMMANDS = [
    line.strip().removeprefix("# ")
    for block in re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL)
    for line in block.splitlines()
]


def test_the_sessions_and_modules_are_there() -> None:
    sessions = [found[1] for c in COMMANDS if (found := re.search(r"noxfile\.py -s (\w+)", c))]
    assert {"pins", "coverage", "hostile", "bench", "release"} <= set(sessions)
    noxfile = (ROOT / "noxfile.py").read_text("utf-8")
    for session in sessions:
        assert f"\ndef {session}(session: nox.Session)" in noxfile
    for module in re.findall(r"-m (release\.\w+)", TEXT):
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file()


def test_what_it_links_to_is_there() -> None:
    links = re.findall(r"\]\(([\w./-]+)\)", TEXT)
    assert len(links) > 5
    for link in links:
        assert (ROOT / link).is_file(), link


def test_the_names_of_the_files_are_right() -> None:
    for architecture in ARCHITECTURES.values():
        assert f"_{architecture}.deb`" in TEXT
    assert f"`derper_VERSION-{REVISION}_amd64.deb`" in TEXT


@pytest.mark.slow
def test_the_version_is_set_as_it_says(tmp_path: Path) -> None:
    (tmp_path / "derp").mkdir()
    shutil.copy(ROOT / "derp/__init__.py", tmp_path / "derp")
    changed = (ROOT / "CHANGELOG.md").read_text("utf-8")
    changed = changed.replace("## Unreleased\n", "## Unreleased\n\n- A change.\n")
    (tmp_path / "CHANGELOG.md").write_text(changed, "utf-8")
    typed = [command for command in COMMANDS if command.startswith("sed -i")]
    assert len(typed) == 2
    script = "\n".join(["set -e", "export VERSION=9.8.7", *typed])
    subprocess.run(["sh", "-c", script], cwd=tmp_path, check=True)
    assert '\n__version__ = "9.8.7"\n' in (tmp_path / "derp/__init__.py").read_text("utf-8")
    after = (tmp_path / "CHANGELOG.md").read_text("utf-8")
    assert notes("v9.8.7", "9.8.7", after).startswith("- A change.\n")
