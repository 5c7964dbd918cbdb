"""A change written into the list: nothing is lost of the file that was there."""

import os
import stat
from pathlib import Path

import pytest

from derp.admission import allowlist
from derp.admission.listedit import ListChange
from derp.admission.listrewrite import NEW_MODE, ListRewriter, Written
from derp.errors import ListNotWritten, StartError
from derp.wire.keys import node_public_text

ONE, TWO = bytes([1]) * 32, bytes([2]) * 32
A, B = map(node_public_text, (ONE, TWO))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "nodekeys"
    found.write_text(f"# the office\n{A} printer # old\n")
    return found


def write(path: Path, change: ListChange) -> Written:
    return ListRewriter(path, lambda _: None).write(change)


def test_a_key_is_added_and_taken_out(path: Path) -> None:
    found = write(path, ListChange({ONE: None, TWO: "laptop"}))
    assert found == Written({ONE: "printer", TWO: "laptop"}, added=(TWO,))
    assert path.read_text() == f"# the office\n{A} printer # old\n{B}  laptop\n"
    assert allowlist.load(path) == found.keys
    assert write(path, ListChange(remove=[ONE])) == Written({TWO: "laptop"}, removed=(ONE,))
    assert path.read_text() == f"# the office\n# old\n{B}  laptop\n"
    assert [each.name for each in path.parent.iterdir()] == ["nodekeys"]


def test_what_it_says_already_is_not_written_again(path: Path) -> None:
    before = path.stat()
    assert write(path, ListChange({ONE: None}, remove=[TWO])) == Written({ONE: "printer"})
    assert path.stat() == before


def test_mode_owner_and_odd_bytes_stay(path: Path) -> None:
    odd = b"\xef\xbb\xbf" + A.encode() + b" caf\xe9\r\n"
    path.write_bytes(odd)
    path.chmod(0o640)
    if os.getuid() == 0:
        os.chown(path, 1234, 4321)
    before = path.stat()
    write(path, ListChange({TWO: None}))
    assert path.read_bytes() == odd + B.encode() + b"\r\n"
    after = path.stat()
    assert stat.S_IMODE(after.st_mode) == 0o640
    assert (after.st_uid, after.st_gid) == (before.st_uid, before.st_gid)


def test_the_last_key_stays(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(ListNotWritten, match=f"no other key is in {path}, and with none the"):
        write(path, ListChange(remove=[ONE]))
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("text", "message"),
    [("nodekey:\n", "line 1: want one key"), (None, "No such file")],
)
def test_a_file_that_is_not_edited(path: Path, text: str | None, message: str) -> None:
    path.unlink()
    if text is not None:
        path.write_text(text)
    with pytest.raises(ListNotWritten, match=message):
        write(path, ListChange({TWO: None}))
    assert not path.exists() or path.read_text() == text


def test_a_disk_that_takes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ListNotWritten, match="can't be replaced: no space left on device"):
        write(path, ListChange({TWO: None}))
    with pytest.raises(ListNotWritten, match="can't be made: no space left on device"):
        ListRewriter(path.with_name("new")).create(ListChange({TWO: None}))
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == ["nodekeys"]


def test_one_that_is_not_there_is_made(path: Path) -> None:
    new = path.with_name("new")
    assert ListRewriter(new).create(ListChange({TWO: "x"})) == Written({TWO: "x"}, added=(TWO,))
    assert allowlist.load(new, StartError) == {TWO: "x"}
    assert stat.S_IMODE(new.stat().st_mode) == NEW_MODE
    assert ListRewriter(path).create(ListChange({TWO: "x"})) is None
    assert "printer" in path.read_text()
