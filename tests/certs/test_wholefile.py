"""Files written whole or not at all, and what a process leaves that is killed meanwhile."""

import errno
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from certs.wholefile import LEFT_AFTER, write_whole

KILLED_MEANWHILE = """
import os, signal, sys
from pathlib import Path
from certs.wholefile import write_whole

os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
write_whole(Path(sys.argv[1]), b"new", mode=0o600)
"""


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"old")
    assert write_whole(file, b"new", mode=0o640)
    assert file.read_bytes() == b"new"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("hard_links", [True, False])
def test_without_replace_only_a_new_file_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hard_links: bool
) -> None:
    def no_hard_links(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    if not hard_links:
        monkeypatch.setattr(os, "link", no_hard_links)
    file = tmp_path / "file"
    assert write_whole(file, b"first", mode=0o600, replace=False)
    assert not write_whole(file, b"second", mode=0o600, replace=False)
    assert file.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("replace", [True, False])
def test_a_full_disk_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replace: bool
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    file = tmp_path / "file"
    file.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(file, b"new", mode=0o600, replace=replace)
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """What a process has left that was killed while it wrote `file`."""
    program = (sys.executable, "-c", KILLED_MEANWHILE, tmp_path / "file")
    assert subprocess.run(program, check=False).returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    return left


def age(file: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(file, (then, then))


def test_what_a_killed_process_left_is_removed(tmp_path: Path, left: Path) -> None:
    age(left, LEFT_AFTER + 60)
    assert write_whole(tmp_path / "file", b"newer", mode=0o600)
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"newer"


def test_what_another_process_is_writing_stays(tmp_path: Path, left: Path) -> None:
    age(left, LEFT_AFTER - 60)
    assert write_whole(tmp_path / "file", b"newer", mode=0o600)
    assert left.exists()


def test_what_is_for_another_file_stays(tmp_path: Path, left: Path) -> None:
    age(left, LEFT_AFTER + 60)
    assert write_whole(tmp_path / "other", b"new", mode=0o600)
    assert left.exists()


OF_ANOTHER_GROUP = """
import os, sys
from pathlib import Path
from certs.wholefile import replace_content

folder = Path(sys.argv[1])
file = folder / "policy"
file.write_bytes(b"old")
os.chmod(file, int(sys.argv[2], 8))
os.chown(folder, 65532, 65532)
os.chown(file, 65532, 0)
os.setgroups([])
os.setgid(65532)
os.setuid(65532)
assert replace_content(file, b"new", file.stat())
assert file.read_bytes() == b"new"
"""


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root has files of another group")
@pytest.mark.parametrize(("mode", "status"), [("600", 0), ("640", 1)])
def test_a_file_of_a_group_that_one_is_not_in(mode: str, status: int) -> None:
    """It is exchanged unless its group would lose rights by it."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        command = [sys.executable, "-c", OF_ANOTHER_GROUP, folder, mode]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stderr
        assert ("PermissionError" in done.stderr) == bool(status)
