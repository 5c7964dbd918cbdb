"""derper.pyz on each Python of this machine: it serves, or says in one line what is missing."""

import contextlib
import os
import re
import subprocess
import zipfile
from pathlib import Path

import pytest

import derp
from tests.interop.relay import Relay, TestCA, running
from tests.release import pythons
from tests.release.serving import attempt, clean, run, serves

PYTHON = pytest.mark.parametrize("python", pythons.supported())


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@PYTHON
def test_it_serves(
    python: str, pyz: Path, cache: Path, binaries: dict[str, Path], test_ca: TestCA
) -> None:
    command = [pythons.found()[python], pyz]
    folder = cache.parent
    told = run(*command, "-version", DERPER_PYZ_CACHE=str(cache))
    assert told.startswith(f"{derp.__version__} (trio-derper, Python {python}.")
    (place,) = (cache / "derper-pyz").iterdir()
    inode = place.stat().st_ino
    serves(command, folder, binaries, test_ca, DERPER_PYZ_CACHE=str(cache))
    assert [each.stat().st_ino for each in (cache / "derper-pyz").iterdir()] == [inode]


def test_several_workers_and_the_commands(
    pyz: Path, cache: Path, binaries: dict[str, Path], test_ca: TestCA
) -> None:
    """Whatever starts a process of its own finds the packages; -of finds the flags."""
    python = pythons.found()[pythons.supported()[-1]]
    variables = {"DERPER_PYZ_CACHE": str(cache)}
    log = serves([python, pyz], cache.parent, binaries, test_ca, "-workers", "2", **variables)
    assert re.search(r"stopped worker=0$", log, re.MULTILINE), log

    folder = cache.parent / "pinned"
    folder.mkdir()
    command, environment = [str(python), str(pyz)], clean(**variables)
    relay = Relay("relay", command, folder, hostname="127.0.0.1", env=environment)
    with running(relay):
        assert relay.process
        of = ("-of", str(relay.process.pid))
        assert run(python, pyz, "healthcheck", *of, **variables)
        assert '"CertName": "sha256-raw:' in run(python, pyz, "derpmap", *of, **variables)


def test_it_can_be_started_by_itself(pyz: Path, cache: Path) -> None:
    """By its first line, from a PATH on which python3 is one that will do."""
    (cache.parent / "bin").mkdir()
    link = cache.parent / "bin/python3"
    link.symlink_to(pythons.found()[pythons.supported()[0]])
    path = f"{link.parent}:/usr/bin:/bin"
    assert run(pyz, "-version", PATH=path, DERPER_PYZ_CACHE=str(cache)).startswith(derp.__version__)


def test_exit_codes_are_the_relays(pyz: Path, cache: Path) -> None:
    python = pythons.found()[pythons.supported()[0]]
    done = attempt(python, pyz, "-hostname", "", DERPER_PYZ_CACHE=str(cache))
    assert done.returncode == 2
    assert done.stderr.startswith("derper: -hostname ''")


@pytest.mark.parametrize("python", pythons.too_old())
def test_an_older_python_says_so(python: str, pyz: Path, cache: Path) -> None:
    interpreter = pythons.found()[python]
    done = attempt(interpreter, pyz, "-version", DERPER_PYZ_CACHE=str(cache))
    assert done.returncode == 1
    version = ".".join(python.split(".")[:2])
    told = f"is Python {version}; start this with Python 3.11 or later\n"
    assert re.fullmatch(rf"derper\.pyz: \S+ {re.escape(told)}", done.stderr)
    assert not cache.exists()


def one_line(pyz: Path, cache: Path, *before: str, **variables: str) -> str:
    python = pythons.found()[pythons.supported()[0]]
    variables = {"DERPER_PYZ_CACHE": str(cache), **variables}
    done = attempt(*before, python, pyz, "-version", **variables)
    assert done.returncode == 1, done
    assert done.stderr.startswith("derper.pyz: ")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_a_damaged_file_says_so(pyz: Path, cache: Path) -> None:
    content = bytearray(pyz.read_bytes())
    with zipfile.ZipFile(pyz) as archive:
        big = max(
            archive.infolist(), key=lambda entry: entry.compress_size * ("x86_64" in entry.filename)
        )
    content[big.header_offset + big.compress_size // 2] ^= 0xFF
    other = cache.parent / "derper.pyz"
    other.write_bytes(content)
    assert "damaged" in one_line(other, cache)
    assert list((cache / "derper-pyz").iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount, and become somebody else")
class TestTrouble:
    def mounted(self, options: str, cache: Path) -> list[str]:
        cache.mkdir()
        script = f'mount -t tmpfs -o {options} tmpfs {cache} && exec "$@"'
        return ["unshare", "--mount", "sh", "-c", script, "sh"]

    def test_no_room(self, pyz: Path, cache: Path) -> None:
        told = one_line(pyz, cache, *self.mounted("size=8m,mode=700", cache))
        assert f"{cache}/derper-pyz: No space left on device; make room, or set " in told

    def test_noexec(self, pyz: Path, cache: Path) -> None:
        told = one_line(pyz, cache, *self.mounted("noexec,mode=700", cache))
        assert "is mounted noexec; set DERPER_PYZ_CACHE to " in told

    def test_read_only(self, pyz: Path, cache: Path) -> None:
        told = one_line(pyz, cache, *self.mounted("ro,mode=700", cache))
        assert f"{cache}/derper-pyz: Read-only file system; set DERPER_PYZ_CACHE to " in told

    def test_somebody_elses(self, pyz: Path, cache: Path) -> None:
        """As with sudo, where HOME may be the user's still: root runs nothing of that."""
        (cache / "derper-pyz").mkdir(parents=True, mode=0o700)
        os.chown(cache / "derper-pyz", 65534, 65534)
        assert "belongs to the user 65534, and this is 0" in one_line(pyz, cache)


def test_two_first_starts_at_a_time(pyz: Path, cache: Path) -> None:
    python = pythons.found()[pythons.supported()[0]]
    with contextlib.ExitStack() as stack:
        both = [
            stack.enter_context(
                subprocess.Popen(
                    [python, pyz, "-version"],
                    env=clean(DERPER_PYZ_CACHE=str(cache)),
                    stdout=subprocess.PIPE,
                )
            )
            for _ in range(2)
        ]
        said = [process.communicate(timeout=120)[0].decode() for process in both]
    assert all(line.startswith(derp.__version__) for line in said), said
    assert len(list((cache / "derper-pyz").iterdir())) == 1
