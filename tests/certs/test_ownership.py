"""Files that other users could swap, and files that they could not."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from certs.ownership import swap_warning

Chown = Callable[..., None]


@pytest.fixture(autouse=True)
def chown(monkeypatch: pytest.MonkeyPatch) -> Chown:
    """Say whose a path is, which only root can make true."""
    owners: dict[Path, tuple[int, int]] = {}
    real = Path.stat

    def stat(path: Path, **options: bool) -> os.stat_result:
        found = real(path, **options)
        fields = list(found)
        uid, gid = owners.get(Path(os.path.realpath(path)), (0, 0))
        fields[4], fields[5] = uid, gid
        return os.stat_result(fields)

    def chown(path: Path, uid: int, gid: int = 0) -> None:
        owners[Path(os.path.realpath(path))] = uid, gid

    monkeypatch.setattr(Path, "stat", stat)
    monkeypatch.setattr(os, "geteuid", lambda: 10)
    monkeypatch.setattr(os, "getegid", lambda: 20)
    monkeypatch.setattr(os, "getgroups", lambda: [30])
    return chown


@pytest.fixture
def file(tmp_path: Path) -> Path:
    directory = tmp_path / "derper"
    directory.mkdir(mode=0o755)
    file = directory / "key"
    file.write_text("secret")
    file.chmod(0o600)
    return file


@pytest.mark.parametrize("uid", [0, 10])
def test_files_of_root_and_the_relay_are_trusted(file: Path, chown: Chown, uid: int) -> None:
    chown(file, uid)
    chown(file.parent, uid)
    assert swap_warning(file) is None


def test_a_file_of_another_user(file: Path, chown: Chown) -> None:
    chown(file, 1000)
    assert swap_warning(file) == (
        f"{file}: the user with ID 1000 owns it, and so could swap it; run: chown 10 {file}"
    )


@pytest.mark.parametrize("up", [1, 2])
def test_a_directory_of_another_user(file: Path, chown: Chown, up: int) -> None:
    directory = file.parents[up - 1]
    chown(directory, 1000)
    warning = swap_warning(file)
    assert warning is not None
    assert f"ID 1000 owns {directory}, and" in warning
    assert warning.endswith(f"run: chown 10 {directory}")


@pytest.mark.parametrize("mode", [0o602, 0o666])
def test_a_file_that_every_user_can_write_to(file: Path, mode: int) -> None:
    file.chmod(mode)
    warning = swap_warning(file)
    assert warning is not None
    assert "every user can write to it, and" in warning
    assert warning.endswith(f"run: chmod go-w {file}")


def test_a_directory_that_every_user_can_write_to(file: Path) -> None:
    file.parent.chmod(0o777)
    assert f"every user can write to {file.parent}, and" in (swap_warning(file) or "")


def test_in_a_sticky_directory_users_can_swap_only_their_own_files(
    file: Path, chown: Chown
) -> None:
    file.parent.chmod(0o1777)
    assert swap_warning(file) is None
    chown(file, 1000)
    assert swap_warning(file) is not None


@pytest.mark.parametrize(("gid", "trusted"), [(0, True), (20, True), (30, True), (40, False)])
def test_groups(file: Path, chown: Chown, gid: int, trusted: bool) -> None:
    chown(file, 0, gid)
    file.chmod(0o660)
    warning = swap_warning(file)
    assert (warning is None) is trusted
    assert trusted or f"the group with ID {gid} can write to it" in (warning or "")


def test_a_file_that_a_group_can_only_read_is_trusted(file: Path, chown: Chown) -> None:
    chown(file, 0, 40)
    file.chmod(0o640)
    assert swap_warning(file) is None


def test_the_paths_of_a_link_and_of_its_target_are_checked(
    file: Path, tmp_path: Path, chown: Chown
) -> None:
    """As of certbot and Kubernetes: who owns the link's directory can turn it elsewhere."""
    links = tmp_path / "live"
    links.mkdir()
    link = links / "key"
    link.symlink_to(file)
    assert swap_warning(link) is None
    chown(links, 1000)
    assert f"ID 1000 owns {links}," in (swap_warning(link) or "")
    chown(links, 0)
    chown(file.parent, 1000)
    assert f"ID 1000 owns {file.parent}," in (swap_warning(link) or "")


def test_a_missing_file(file: Path, chown: Chown) -> None:
    missing = file.parent / "none" / "key"
    assert swap_warning(missing) is None
    chown(file.parent, 1000)
    assert f"ID 1000 owns {file.parent}," in (swap_warning(missing) or "")


def test_a_path_that_can_t_be_examined() -> None:
    assert swap_warning(Path("/dev/fd/none")) is None


def test_a_relative_path(file: Path, chown: Chown, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    assert swap_warning(Path("key")) is None
    chown(file, 1000)
    assert f"ID 1000 owns {file}," in (swap_warning(Path("key")) or "")
