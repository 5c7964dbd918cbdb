"""What is among the files of a release, and what they say of each other."""

import hashlib
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import derp
from release.bundle import pins
from release.debian import version_of
from tests.interop.relay import REPO


def test_the_checksums_are_those_of_all_files(dist: Path) -> None:
    lines = (dist / "SHA256SUMS").read_text().splitlines()
    told = dict(reversed(line.split("  ")) for line in lines)
    there = {file for file in dist.iterdir() if file.name != "SHA256SUMS"}
    assert told == {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in there}
    done = subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=dist, check=False)
    assert done.returncode == 0


def test_all_are_there(dist: Path) -> None:
    version = derp.__version__
    assert {file.name for file in dist.iterdir()} == {
        f"trio_derper-{version}.tar.gz",
        f"trio_derper-{version}-py3-none-any.whl",
        "derper.8",
        "derper.pyz",
        f"derper_{version_of(version)}_amd64.deb",
        f"derper_{version_of(version)}_arm64.deb",
        f"derper-{version}.cdx.json",
        "SHA256SUMS",
    }


def test_the_bill_of_materials_has_each_package_that_is_pinned(dist: Path) -> None:
    bill = json.loads((dist / f"derper-{derp.__version__}.cdx.json").read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    relay = bill["metadata"]["component"]
    assert (relay["name"], relay["version"]) == ("trio-derper", derp.__version__)
    pinned = set(re.findall(r"(?m)^([\w-]+)==(\S+)", pins()))
    named = {
        (part["name"].lower().replace("_", "-"), part["version"]) for part in bill["components"]
    }
    assert named == pinned
    untold = {part["name"] for part in bill["components"] if not part.get("licenses")}
    # Its metadata name none; the text is in its dist-info.
    assert untold <= {"requests-unixsocket"}


def test_made_again_they_are_the_same(dist: Path, tmp_path: Path) -> None:
    """So that whoever doubts a release can make it, and compare the checksums."""
    if not importlib.util.find_spec("build"):
        pytest.skip("what makes a release is not installed: `python3 noxfile.py -s release`")
    again = tmp_path / "again"
    subprocess.run([sys.executable, "-m", "release.make", again], cwd=REPO, check=True)
    assert (again / "SHA256SUMS").read_text() == (dist / "SHA256SUMS").read_text()
