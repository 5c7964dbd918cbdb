"""What is for arm64, in a Debian of that architecture, by emulation."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import derp
from tests.field.machine import NoMachineError
from tests.interop import relay
from tests.interop.relay import TestCA
from tests.release import debians
from tests.release.serving import run, serves

ENTER = Path(__file__).with_name("emulated.sh")

Inside = Callable[..., list[str]]


@pytest.fixture(autouse=True)
def more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Emulation takes ten times as long."""
    monkeypatch.setattr(relay, "START_TIMEOUT", 300)
    monkeypatch.setattr(relay, "STOP_TIMEOUT", 150)


@pytest.fixture(scope="module")
def arm64() -> Path:
    """The files of a Debian for arm64, with Python."""
    if os.uname().machine == "aarch64":
        pytest.skip("this machine is what it would emulate")
    if not shutil.which("qemu-aarch64-static"):
        pytest.skip("qemu-user-static is not installed: NOTHING IS RUN FOR ARM64")
    try:
        return debians.unpacked("bookworm", "arm64")
    except NoMachineError as error:
        pytest.skip(f"NOTHING IS RUN FOR ARM64: {error}")


@pytest.fixture
def inside(arm64: Path, tmp_path: Path) -> Inside:
    """Makes the command that runs another one there, where `tmp_path` is the same."""
    enter = ["unshare", "--user", "--map-root-user", "--mount", "--", "sh", str(ENTER)]

    def made(*command: str | Path) -> list[str]:
        return [*enter, str(arm64), str(tmp_path), *map(str, command)]

    done = subprocess.run(made("/bin/uname", "-m"), capture_output=True, text=True, check=False)
    if done.stdout.strip() != "aarch64":
        pytest.skip(f"NOTHING IS RUN FOR ARM64: {done.stderr.strip()}")
    return made


def test_the_one_file_serves(
    inside: Inside, pyz: Path, tmp_path: Path, binaries: dict[str, Path], test_ca: TestCA
) -> None:
    shutil.copy(pyz, tmp_path)
    command = inside("/usr/bin/python3", tmp_path / pyz.name)
    cache = {"DERPER_PYZ_CACHE": str(tmp_path / "cache")}
    assert run(*command, "-version", **cache).startswith(
        f"{derp.__version__} (trio-derper, Python 3"
    )
    serves(command, tmp_path, binaries, test_ca, **cache)


def test_the_debian_package_serves(
    inside: Inside, dist: Path, tmp_path: Path, binaries: dict[str, Path], test_ca: TestCA
) -> None:
    """Its files; that of amd64, which has the same scripts, is installed by test_debian.py."""
    (deb,) = dist.glob("*_arm64.deb")
    run("dpkg-deb", "-x", deb, tmp_path / "deb")
    command = inside("/usr/bin/python3", tmp_path / "deb/usr/bin/derper")
    serves(command, tmp_path, binaries, test_ca)
