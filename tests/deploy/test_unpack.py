"""derper.pyz: what it says it lacks, and how it unpacks itself."""

import os
import shutil
import stat
import sys
import threading
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from release import pyz
from release.bundle import Bundle
from release.inside import unpack
from release.inside.unpack import LackError

INDEX = {
    "pythons": ["3.11", "3.12"],
    "bundles": {
        "x86_64": {"digest": "d" * 64, "glibc": [2, 17], "folders": ["common", "x86_64"]},
        "aarch64": {"digest": "e" * 64, "glibc": [2, 28], "folders": ["common", "aarch64"]},
    },
}
GOOD = {
    "implementation": "cpython",
    "version": "3.12",
    "free_threaded": False,
    "system": "linux",
    "machine": "x86_64",
    "is_64_bit": True,
    "libc": "glibc 2.36",
    "missing": [],
}


def test_the_bundle_of_this_machine() -> None:
    assert unpack.choose(INDEX, SimpleNamespace(**GOOD)) is INDEX["bundles"]["x86_64"]
    arm = SimpleNamespace(**{**GOOD, "machine": "aarch64", "libc": "glibc 2.28"})
    assert unpack.choose(INDEX, arm) is INDEX["bundles"]["aarch64"]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"version": "3.15"}, "is Python 3.15; start this with 3.11 to 3.12"),
        ({"implementation": "pypy"}, "is pypy, and the packages here are for CPython"),
        ({"free_threaded": True}, "is a free-threaded Python"),
        ({"system": "darwin"}, "darwin: the packages here are for Linux"),
        ({"machine": "riscv64"}, "riscv64: the packages here are for x86_64 and aarch64"),
        ({"is_64_bit": False}, "x86_64 with a 32-bit Python"),
        ({"libc": ""}, "not glibc, but musl or another one; the packages here are for glibc 2.17"),
        ({"libc": "glibc 2.12"}, "is glibc 2.12; the packages here are for glibc 2.17 or later"),
        ({"missing": ["_ssl"]}, "was built without OpenSSL"),
    ],
)
def test_what_is_lacking_is_told_in_one_line(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(LackError) as failure:
        unpack.choose(INDEX, SimpleNamespace(**{**GOOD, **wrong}))
    assert told in str(failure.value)
    assert "\n" not in str(failure.value)
    assert str(failure.value).rpartition("; ")[2].split()[0] in {"start", "the"}, "what to do"


def test_what_is_read_of_this_machine() -> None:
    here = unpack.Here()
    assert here.version == ".".join(map(str, sys.version_info[:2]))
    assert here.machine == os.uname().machine
    assert here.missing == []


def test_where_it_unpacks() -> None:
    assert unpack.cache_home({"DERPER_PYZ_CACHE": "/a", "XDG_CACHE_HOME": "/b"}) == Path("/a")
    assert unpack.cache_home({"XDG_CACHE_HOME": "/b"}) == Path("/b")
    assert unpack.cache_home({"XDG_CACHE_HOME": "b"}) == Path("~/.cache").expanduser()
    with pytest.raises(LackError, match="DERPER_PYZ_CACHE=b: want an absolute path"):
        unpack.cache_home({"DERPER_PYZ_CACHE": "b"})


def test_the_folder_is_this_users_alone(tmp_path: Path) -> None:
    folder = unpack.private(tmp_path / "new" / "cache")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert unpack.private(tmp_path / "new" / "cache") == folder


class TestRefused:
    def test_a_folder_that_others_can_use(self, tmp_path: Path) -> None:
        (tmp_path / "derper-pyz").mkdir()
        (tmp_path / "derper-pyz").chmod(0o755)
        with pytest.raises(LackError, match=r"others can use it \(mode 0755\)"):
            unpack.private(tmp_path)

    def test_a_link(self, tmp_path: Path) -> None:
        (tmp_path / "there").mkdir(mode=0o700)
        (tmp_path / "derper-pyz").symlink_to("there")
        with pytest.raises(LackError, match="not a directory"):
            unpack.private(tmp_path)

    def test_a_place_where_everybody_can_rename(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o777)
        with pytest.raises(LackError, match="every user can replace"):
            unpack.private(tmp_path)
        tmp_path.chmod(0o1777)
        unpack.private(tmp_path)

    def test_another_users(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        unpack.private(tmp_path)
        own = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: own + 1)
        with pytest.raises(LackError, match=f"belongs to the user {own}, and this is {own + 1}"):
            unpack.private(tmp_path)

    def test_one_where_nothing_may_be_executed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        flags = SimpleNamespace(f_flag=os.ST_NOEXEC)
        monkeypatch.setattr(os, "statvfs", lambda path: flags)
        with pytest.raises(LackError, match="noexec"):
            unpack.private(tmp_path)


BUNDLE = Bundle("x86_64", {"derper": b"s", "some/a.py": b"a", "some/b.so": b"x"}, (2, 17))
OTHER = Bundle("aarch64", {"derper": b"s", "some/a.py": b"a", "some/b.so": b"y"}, (2, 17))


@pytest.fixture
def archive(tmp_path: Path) -> zipfile.ZipFile:
    pyz.write(tmp_path / "derper.pyz", [BUNDLE, OTHER], 1_700_000_000)
    return zipfile.ZipFile(tmp_path / "derper.pyz")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return unpack.private(tmp_path)


def entry(bundle: Bundle = BUNDLE) -> dict[str, Any]:
    return {"digest": bundle.digest, "folders": ["common", bundle.architecture]}


def content(place: Path) -> dict[str, bytes]:
    return {str(f.relative_to(place)): f.read_bytes() for f in place.rglob("*") if f.is_file()}


@pytest.mark.parametrize("bundle", [BUNDLE, OTHER], ids=lambda bundle: bundle.architecture)
def test_it_is_unpacked_once(archive: zipfile.ZipFile, folder: Path, bundle: Bundle) -> None:
    with archive:
        place = unpack.unpacked(archive, entry(bundle), folder)
        assert place == folder / bundle.digest
        assert content(place) == bundle.files
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
        (place / "derper").write_bytes(b"as it was")
        assert unpack.unpacked(archive, entry(bundle), folder) == place
    assert (place / "derper").read_bytes() == b"as it was"
    assert list(folder.iterdir()) == [place]


def test_what_fails_in_between_leaves_nothing(
    archive: zipfile.ZipFile, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with archive, pytest.raises(OSError, match="No space left"):
        unpack.unpacked(archive, entry(), folder)
    assert list(folder.iterdir()) == []


def test_two_at_the_same_time(
    archive: zipfile.ZipFile, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have written everything before either gives it its name."""
    both = threading.Barrier(2)
    monkeypatch.setattr(os, "sync", both.wait)
    places: list[Path] = []

    def do(own: zipfile.ZipFile) -> None:
        with own:
            places.append(unpack.unpacked(own, entry(), folder))

    assert archive.filename
    second = threading.Thread(target=do, args=(zipfile.ZipFile(archive.filename),))
    second.start()
    do(archive)
    second.join()
    assert places == [folder / BUNDLE.digest] * 2
    assert list(folder.iterdir()) == [folder / BUNDLE.digest]
    assert content(places[0]) == BUNDLE.files


def test_what_a_killed_one_has_left_goes_after_a_day(
    archive: zipfile.ZipFile, folder: Path
) -> None:
    old, new = folder / "new-old", folder / "new-new"
    for left in (old, new):
        left.mkdir()
    yesterday = time.time() - 90_000
    os.utime(old, (yesterday, yesterday))
    with archive:
        unpack.unpacked(archive, entry(), folder)
    assert not old.exists()
    assert new.exists()
