"""The Debian package: lintian accepts it, and Debians with their own systemd live with it."""

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import derp
from release.debian import version_of
from tests.field.machine import Machine, NoMachineError, booted
from tests.field.test_systemd import HARDENED, configure, serves, status, stun_answers, talk, until
from tests.interop.relay import TestCA
from tests.release import debians

DPKG = ("env", "DEBIAN_FRONTEND=noninteractive", "dpkg")
VERSION = version_of(derp.__version__)
SETTINGS = ("DERP_DOMAIN=localhost", "DERP_CERT_MODE=manual")


def package(dist: Path, architecture: str = "amd64") -> Path:
    return dist / f"derper_{VERSION}_{architecture}.deb"


@pytest.mark.parametrize("architecture", ["amd64", "arm64"])
def test_lintian_accepts_it(architecture: str, dist: Path) -> None:
    if not shutil.which("lintian"):
        pytest.skip("lintian is not installed")
    command = ["lintian", "--allow-root", "--fail-on", "error,warning", "--pedantic"]
    done = subprocess.run(
        [*command, package(dist, architecture)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_lintian_finds_mistakes(dist: Path, tmp_path: Path) -> None:
    if not shutil.which("lintian"):
        pytest.skip("lintian is not installed")

    def without_terms(root: Path) -> None:
        (root / "usr/share/doc/derper/copyright").unlink()
        shutil.rmtree(root / "usr/lib/derper")

    wrong = changed(package(dist), tmp_path, without_terms)
    command = ["lintian", "--allow-root", "--fail-on", "error,warning"]
    done = subprocess.run([*command, wrong], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "E: derper: no-copyright-file" in done.stdout


def changed(deb: Path, folder: Path, change: Callable[[Path], object]) -> Path:
    """The package made anew after a change to what it is made of."""
    root, other = folder / "root", folder / "other.deb"
    subprocess.run(["dpkg-deb", "-R", deb, root], check=True)
    change(root)
    build = ["dpkg-deb", "--root-owner-group", "-Zgzip", "-b", root, other]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    return other


@pytest.fixture(scope="module", params=debians.SUITES)
def suite(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture(scope="module")
def machine(suite: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Each Debian, with its own Python and its own systemd, and without the relay."""
    try:
        below = debians.made(suite)
        with booted(tmp_path_factory.mktemp(suite), relay=False, below=below) as made:
            made.run("rm", "-f", "/usr/sbin/policy-rc.d")
            yield made
    except NoMachineError as error:
        pytest.skip(f"no {suite} with systemd can be run here: {error}")


def install(machine: Machine, deb: Path) -> str:
    shutil.copy(deb, machine.root / "root/derper.deb")
    return machine.run(*DPKG, "--install", "/root/derper.deb")


def state(machine: Machine, unit: str = "derper.service") -> tuple[str, str]:
    """Whether a unit is enabled, and whether it is active."""
    asked = (machine.attempt("systemctl", f"is-{what}", unit) for what in ("enabled", "active"))
    enabled, active = (done.stdout.strip() for done in asked)
    return enabled, active


def leftovers(machine: Machine) -> set[str]:
    """What has the relay's name, but for its user and logs."""
    places = ("/etc", "/usr", "/var/lib")
    found = machine.run("find", *places, "-xdev", "-iname", "*derper*").split()
    return {path for path in found if "/dpkg/info/" not in path}


def test_its_life(
    suite: str,
    machine: Machine,
    dist: Path,
    binaries: dict[str, Path],
    test_ca: TestCA,
    tmp_path: Path,
) -> None:
    """Installed, told its name, started, upgraded while it runs, and back, removed, purged."""
    before = leftovers(machine)
    install(machine, package(dist))
    told = machine.run("derper", "-version")
    assert told.startswith(f"{derp.__version__} (trio-derper, Python {debians.SUITES[suite]}.")
    assert state(machine) == ("disabled", "inactive")
    assert state(machine, "derper.socket") == ("disabled", "inactive")
    assert machine.run("getent", "passwd", "derper").split(":")[5] == "/var/lib/derper"
    shutil.copy(dist / "derper.pyz", machine.root / "root")
    pyz = ("env", "DERPER_PYZ_CACHE=/root", "python3", "/root/derper.pyz", "-version")
    assert machine.run(*pyz) == told
    machine.run("rm", "-rf", "/root/derper.pyz", "/root/derper-pyz")
    compiled = machine.run("find", "/usr/lib/derper", "-name", "*.pyc")
    assert "/derp/__pycache__/__init__." in compiled

    it_wants_a_name(machine)
    it_serves(machine, binaries, test_ca)
    it_is_upgraded(machine, binaries, test_ca, package(dist), tmp_path)
    it_is_removed(machine)
    install(machine, package(dist))
    it_is_purged(machine, before)


def it_wants_a_name(machine: Machine) -> None:
    machine.attempt("systemctl", "start", "derper")
    until(lambda: machine.show("derper", "ActiveState") == "failed", machine.journal)
    assert machine.show("derper", "ExecMainStatus") == "2"
    assert "-hostname ''" in machine.journal()
    machine.systemctl("reset-failed", "derper")


def it_serves(machine: Machine, binaries: dict[str, Path], ca: TestCA) -> None:
    """As the unit's own tests see it: Go's clients, STUN, few rights."""
    machine.run("mkdir", "-p", "/var/lib/derper/certs")
    ca.issue(machine.root / "var/lib/derper/certs", "localhost")
    configure(machine, *SETTINGS)
    machine.systemctl("enable", "--now", "derper")
    serves(machine)
    talk(machine, binaries, ca)
    assert stun_answers(machine, "127.0.0.1")
    proc = status(machine)
    uid = machine.run("id", "-u", "derper").strip()
    assert set(proc["Uid"].split()) == {uid}
    assert int(proc["CapEff"], 16) == 1 << 10, "CAP_NET_BIND_SERVICE"
    rated = machine.run("systemd-analyze", "--no-pager", "security", "derper.service")
    found = re.search(r"exposure level for derper.service: ([\d.]+)", rated)
    assert found
    assert float(found[1]) <= HARDENED, rated
    assert "Permission denied" not in machine.journal()


def it_is_upgraded(
    machine: Machine, binaries: dict[str, Path], ca: TestCA, deb: Path, folder: Path
) -> None:
    """The new one runs, with the key, the settings and the state that were there; then the old."""

    def newer(root: Path) -> None:
        control = root / "DEBIAN/control"
        control.write_text(control.read_text().replace(f"{VERSION}\n", f"{VERSION}+later\n"))

    key = machine.run("cat", "/var/lib/derper/derper.key")
    for each, is_later in ((changed(deb, folder, newer), True), (deb, False)):
        pid = machine.show("derper", "MainPID")
        install(machine, each)
        assert ("+later" in machine.run("dpkg-query", "-W", "derper")) == is_later
        assert state(machine) == ("enabled", "active")
        assert machine.show("derper", "MainPID") != pid
        serves(machine)
        talk(machine, binaries, ca)
        assert machine.run("cat", "/var/lib/derper/derper.key") == key
        assert machine.run("cat", "/etc/default/derper").split() == list(SETTINGS)


def it_is_removed(machine: Machine) -> None:
    """It is stopped; what is its own stays for another time."""
    machine.run(*DPKG, "--remove", "derper")
    assert state(machine)[1] == "inactive"
    assert not (machine.root / "usr/lib/derper").exists()
    assert machine.attempt("pgrep", "-u", "derper").stdout == ""
    machine.run("test", "-e", "/var/lib/derper/derper.key")
    machine.run("test", "-e", "/etc/default/derper")


def it_is_purged(machine: Machine, before: set[str]) -> None:
    """It was enabled, and is again once it is installed again; then nothing is left."""
    assert state(machine) == ("enabled", "inactive")
    machine.run(*DPKG, "--purge", "derper")
    assert leftovers(machine) == before
    assert machine.show("derper", "LoadState") == "not-found"


def test_its_manual_page_is_where_man_looks(dist: Path) -> None:
    listed = subprocess.run(
        ["dpkg-deb", "--contents", package(dist)], capture_output=True, text=True, check=True
    ).stdout
    assert "./usr/share/man/man8/derper.8.gz" in listed
    modes = {
        line.split()[-1 if "->" not in line else 5]: line.split()[:2]
        for line in listed.splitlines()
    }
    assert {owner for _, owner in modes.values()} == {"root/root"}
    writable = [name for name, (mode, _) in modes.items() if mode[0] != "l" and "w" in mode[5:]]
    assert writable == []
