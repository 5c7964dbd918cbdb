"""A unix socket with a path: for this user only, and never in another program's way."""

import os
import socket
import stat
from pathlib import Path

import pytest

from derp.errors import StartError
from derp.net.unixlistener import listening


def connect(path: Path) -> socket.socket:
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    found.connect(str(path))
    return found


def test_only_this_user_may_open_it_and_it_is_gone_afterwards(tmp_path: Path) -> None:
    path, umask = tmp_path / "m", os.umask(0o022)
    try:
        with listening(path) as listener:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            connect(path).close()
            assert not listener.getblocking()
        assert not path.exists()
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(umask)


def test_one_that_was_left_behind_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "m"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left:
        left.bind(str(path))
        left.listen()
    with listening(path):
        connect(path).close()


def test_one_in_use_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "m"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as theirs:
        theirs.bind(str(path))
        theirs.listen(0)
        waiting = [connect(path)]
        # Also once its queue is full.
        for _ in range(2):
            with pytest.raises(StartError) as caught, listening(path):
                pass
            assert f"{caught.value}" == (
                f"can't listen on unix:{path}: the socket is in use by another program"
            )
        assert path.is_socket()
        for each in waiting:
            each.close()


def test_a_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.write_text("precious")
    with pytest.raises(StartError, match="want a path where no other file is"), listening(path):
        pass
    assert path.read_text() == "precious"


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "none" / "m"
    with pytest.raises(StartError) as caught, listening(path):
        pass
    assert str(caught.value) == f"can't listen on unix:{path}: no such file or directory"


def test_what_has_taken_its_place_stays(tmp_path: Path) -> None:
    path = tmp_path / "m"
    with listening(path):
        path.unlink()
        path.write_text("of another")
    assert path.read_text() == "of another"
