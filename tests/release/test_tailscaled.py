"""Each form of the release serves two real tailscaled, that reach each other only through it."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.interop.netns import skip_unless_possible
from tests.interop.relay import TestCA
from tests.interop.tailnet import REGION, eventually, tailnet
from tests.release import pythons
from tests.release.test_installed import installed

SIZE = 5_000_000


def from_wheel(dist: Path, folder: Path) -> list[str]:
    (wheel,) = dist.glob("*.whl")
    return [str(installed(pythons.supported()[-1], wheel, folder / "environment"))]


def from_sdist(dist: Path, folder: Path) -> list[str]:
    (sdist,) = dist.glob("*.tar.gz")
    return [str(installed(pythons.supported()[0], sdist, folder / "environment"))]


def from_pyz(dist: Path, folder: Path) -> list[str]:
    python = pythons.found()[pythons.supported()[-1]]
    return ["env", f"DERPER_PYZ_CACHE={folder}/cache", str(python), str(dist / "derper.pyz")]


def from_deb(dist: Path, folder: Path) -> list[str]:
    """As the package has it, with Debian's own Python; test_debian.py installs it."""
    python = Path("/usr/bin/python3")
    if not python.exists() or not shutil.which("dpkg-deb"):
        pytest.skip("this is no Debian")
    (deb,) = dist.glob("*_amd64.deb")
    subprocess.run(["dpkg-deb", "-x", deb, folder / "deb"], check=True)
    return [str(python), str(folder / "deb/usr/bin/derper")]


FORMS = [from_wheel, from_sdist, from_pyz, from_deb]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_packets_go_both_ways(
    form: Callable[[Path, Path], list[str]],
    dist: Path,
    binaries: dict[str, Path],
    test_ca: TestCA,
    tmp_path: Path,
) -> None:
    skip_unless_possible("no real tailscaled here")
    command = form(dist, tmp_path)
    with tailnet(command, binaries, test_ca, tmp_path, blob_size=SIZE) as net:
        for one, other in ((net.alice, net.bob), (net.bob, net.alice)):
            eventually("a ping comes back", 60, lambda o=one, t=other: o.ping(t) is not None)
            assert f"via DERP({REGION})" in (one.ping(other) or "")
        fetched = net.fetch()
        assert fetched["sha256"] == net.checksum
