"""A unix socket with a path: for this user only, and never in another program's way."""

import errno
import fcntl
import os
import pwd
import socket
import stat
import threading
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from derp.errors import StartError
from derp.net import unixlistener
from derp.net.listenaddress import UnixSocket
from derp.net.unixlistener import listening


def listen(path: Path, **more: Any) -> AbstractContextManager[socket.socket]:
    return listening(UnixSocket(path, **more))


def refusal(path: Path, **more: Any) -> str:
    with pytest.raises(StartError) as caught, listen(path, **more):
        pass
    assert "\n" not in str(caught.value)
    return str(caught.value)


def left_behind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left:
        left.bind(str(path))


def connect(path: Path) -> socket.socket:
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    found.connect(str(path))
    return found


def test_only_this_user_may_open_it_and_it_is_gone_afterwards(tmp_path: Path) -> None:
    path, umask = tmp_path / "m", os.umask(0o022)
    try:
        with listen(path) as listener:
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
    with listen(path):
        connect(path).close()


def test_one_in_use_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "m"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as theirs:
        theirs.bind(str(path))
        theirs.listen(0)
        waiting = [connect(path)]
        # Also once its queue is full.
        for _ in range(2):
            with pytest.raises(StartError) as caught, listen(path):
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
    with (
        pytest.raises(StartError, match="want a path where no other file is"),
        listen(path),
    ):
        pass
    assert path.read_text() == "precious"


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "none" / "m"
    with pytest.raises(StartError) as caught, listen(path):
        pass
    assert str(caught.value) == f"can't listen on unix:{path}: no such file or directory"


def test_what_has_taken_its_place_stays(tmp_path: Path) -> None:
    path = tmp_path / "m"
    with listen(path):
        path.unlink()
        path.write_text("of another")
    assert path.read_text() == "of another"


ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")


def test_the_mode_is_that_which_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "m"
    with listen(path, mode=0o666):
        assert stat.S_IMODE(path.stat().st_mode) == 0o666


@ROOT
def test_the_owner_is_who_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "m"
    with listen(path, mode=0o660, user="daemon", group="54321"):
        status = path.stat()
        assert (status.st_uid, status.st_gid) == (pwd.getpwnam("daemon").pw_uid, 54321)
        assert stat.S_IMODE(status.st_mode) == 0o660
    assert not path.exists()


@ROOT
def test_one_left_behind_with_that_owner_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "m"
    left_behind(path)
    os.chown(path, 54321, -1)
    assert refusal(path) == (
        f"can't listen on unix:{path}: a socket of the user with the number 54321 is there; "
        f"remove it if nobody needs it, or name another path"
    )
    assert path.is_socket()
    with listen(path, user="54321"):
        connect(path).close()


@pytest.mark.parametrize("kind", ["user", "group"])
def test_who_is_not_known_gets_no_socket(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "m"
    assert refusal(path, **{kind: "nobody-at-all"}) == (
        f"can't listen on unix:{path}: {kind}=nobody-at-all: this machine has no such {kind}"
    )
    assert not path.exists()


def test_what_can_t_be_given_away_is_removed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refuse)
    path = tmp_path / "m"
    assert refusal(path, user="0", group="daemon") == (
        f"can't listen on unix:{path}: user=0,group=daemon: not permitted; only root may give a "
        f"socket to another user, or to a group that it is not in"
    )
    assert not path.exists()


def test_a_socket_for_datagrams_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "m"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as theirs:
        theirs.bind(str(path))
        assert refusal(path).endswith("the socket is in use by another program")
        assert path.is_socket()


def test_a_socket_that_took_its_place_stays_though_it_has_its_number(tmp_path: Path) -> None:
    path, other = tmp_path / "m", tmp_path / "n"
    with listen(path):
        number = path.stat().st_ino
        # As some file systems give the number of a file that is gone to the next one.
        os.link(path, other)
        path.unlink()
        other.rename(path)
        assert path.stat().st_ino == number
    assert path.is_socket()


def test_of_two_that_find_the_same_one_left_behind_one_gets_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m"
    left_behind(path)
    second_is_through_or_waits, first_is_done = threading.Event(), threading.Event()
    failures: list[str] = []

    def start_second() -> None:
        try:
            with listen(path):
                second_is_through_or_waits.set()
                first_is_done.wait(60)
        except StartError as error:
            failures.append(str(error))

    second = threading.Thread(target=start_second)
    is_in_use, flock = unixlistener._is_in_use, fcntl.flock

    def found_by_both(path: Path) -> bool:
        found = is_in_use(path)
        if threading.current_thread() is not second:
            second.start()
            assert second_is_through_or_waits.wait(60)
        return found

    def noted(descriptor: int, operation: int) -> None:
        try:
            flock(descriptor, operation)
        except BlockingIOError:
            second_is_through_or_waits.set()
            raise

    monkeypatch.setattr(unixlistener, "_is_in_use", found_by_both)
    monkeypatch.setattr(fcntl, "flock", noted)
    monkeypatch.setattr(unixlistener, "_LOCK_TRIES", 10_000)
    with listen(path) as listener:
        first_is_done.set()
        second.join(60)
        with connect(path):
            listener.accept()[0].close()
    assert failures == [f"can't listen on unix:{path}: the socket is in use by another program"]
    assert not path.exists()


def test_a_lock_that_another_program_keeps_holds_up_nobody_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m"
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with listen(path):
            connect(path).close()
    finally:
        os.close(descriptor)
    assert 0 < sum(pauses) < 2
