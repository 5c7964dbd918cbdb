"""The policy file on disk: what can't be used is an error of one line, with the cure."""

import errno
import os
import re
from pathlib import Path

import pytest

from derp.errors import ReloadError, StartError
from derp.policy.document import MAX_SIZE
from derp.policy.file import load
from derp.policy.model import EMPTY


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "policy.toml"


def refusal(path: Path) -> str:
    with pytest.raises(ReloadError) as caught:
        load(path, ReloadError)
    with pytest.raises(StartError, match=re.escape(str(caught.value))):
        load(path)
    name, _, message = str(caught.value).partition(f" {str(path)!r}: ")
    assert name == "-policy"
    assert message.isprintable()
    return message


def test_a_policy(path: Path) -> None:
    path.write_text("[defaults]\n")
    assert load(path) == EMPTY


def test_a_mistake_is_named_by_its_line(path: Path) -> None:
    path.write_text('# ours\n[defaults]\nrate = "10"\n')
    assert refusal(path).startswith('line 3: rate 10: want a rate such as "10 Mbit/s"')


def test_every_user_may_write_to_it(path: Path) -> None:
    path.write_text("[defaults]\n")
    path.chmod(0o646)
    assert refusal(path) == f"every user can write to it (mode 0646); run: chmod o-w {path}"


def test_no_file(path: Path) -> None:
    want = "; want a policy in TOML that derper may read"
    assert refusal(path) == f"No such file or directory{want}"
    path.mkdir()
    assert refusal(path) == f"not a regular file{want}"
    path.rmdir()
    os.mkfifo(path)  # and nobody waits for its writer
    assert refusal(path) == f"not a regular file{want}"


def test_a_file_that_may_not_be_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> None:  # root may read everything
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("derp.policy.file.open_regular", refuse)
    assert refusal(path).startswith("Permission denied; want")


def test_no_more_is_read_than_is_used(path: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate(MAX_SIZE << 10)
    assert "the file is too large; want 1 MiB at most" in refusal(path)


def test_a_path_with_a_nul() -> None:
    with pytest.raises(StartError, match="want the path of a policy"):
        load(Path("a\0b"))
