"""deploy/handover.py, with somebody who changes the volume while it is looked at.

What is "root's" here is ours, and nothing is given to anybody: what would be is written down.
"""

import contextlib
import importlib.util
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.files import DEPLOY

spec = importlib.util.spec_from_file_location("handover", DEPLOY / "handover.py")
assert spec
assert spec.loader
handover: Any = importlib.util.module_from_spec(spec)
spec.loader.exec_module(handover)


class Giver(handover.Giver):
    """Writes down what it would give; `meanwhile` runs before each look and before each gift."""

    def __init__(self, folder: Path) -> None:
        super().__init__(user=65532, root=os.getuid())
        self.folder = folder
        self.own_file_system = -1
        self.given: list[str] = []
        self.meanwhile: Callable[[str], object] = lambda name: None

    def hold(self, name: str, directory: int | None = None) -> int:
        self.meanwhile(f"hold {name}")
        held: int = super().hold(name, directory)
        self.meanwhile(f"held {name}")
        return held

    def only_root_changes(self, directory: int) -> bool:
        # Those above are this machine's.
        is_above = self.folder.is_relative_to(where(directory))
        return is_above or super().only_root_changes(directory)

    def chown(self, held: int) -> None:
        self.given.append(str(where(held).relative_to(self.folder)))


def where(held: int) -> Path:
    return Path(f"/proc/self/fd/{held}").readlink()


@pytest.fixture
def giver(tmp_path: Path) -> Giver:
    return Giver(tmp_path)


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """With `inner/secret` in it, and beside it what is in no volume."""
    for folder in ("volume/inner", "outside"):
        (tmp_path / folder).mkdir(parents=True, mode=0o755)
        (tmp_path / folder / "secret").touch()
    (tmp_path / "outside").chmod(0o755)
    return tmp_path / "volume"


def swap(one: Path, other: Path) -> None:
    one.rename(one.with_name("aside"))
    other.rename(one)
    one.with_name("aside").rename(other)


INNER = ["volume/inner/secret", "volume/inner"]


class TestWhatIsGiven:
    def test_a_directory_after_what_is_in_it(self, giver: Giver, volume: Path) -> None:
        giver.hand_over(str(volume))
        assert giver.given == [*INNER, "volume"]

    def test_a_file(self, giver: Giver, volume: Path) -> None:
        giver.hand_over(str(volume / "inner/secret"))
        assert giver.given == ["volume/inner/secret"]

    def test_the_directory_of_a_file_to_come(self, giver: Giver, volume: Path) -> None:
        giver.hand_over(str(volume / "key"))
        assert giver.given == ["volume"]

    def test_nothing_where_nothing_is(self, giver: Giver, volume: Path) -> None:
        with pytest.raises(FileNotFoundError):
            giver.hand_over(str(volume / "x/y"))
        assert giver.given == []

    def test_what_is_somebodys_is_not(self, giver: Giver, volume: Path) -> None:
        giver.root += 1
        giver.hand_over(str(volume))
        assert giver.given == []

    def test_what_is_the_containers_own_is_not(self, giver: Giver, volume: Path) -> None:
        giver.own_file_system = volume.stat().st_dev
        giver.hand_over(str(volume))
        assert giver.given == []

    def test_another_file_system_is_not_looked_into(self, giver: Giver, volume: Path) -> None:
        held = giver.find(str(volume))
        giver.give_all(held, volume.stat().st_dev + 1, 9)
        os.close(held)
        assert giver.given == ["volume"]

    def test_links_pipes_and_sockets_are_not(self, giver: Giver, volume: Path) -> None:
        (volume / "inner/secret").unlink()
        (volume / "inner/link").symlink_to("../../outside")
        os.mkfifo(volume / "inner/pipe")
        os.mknod(volume / "inner/socket", stat.S_IFSOCK | 0o600)
        giver.hand_over(str(volume))
        assert giver.given == ["volume/inner", "volume"]

    def test_a_file_that_has_a_name_elsewhere_is_not(self, giver: Giver, volume: Path) -> None:
        (volume / "inner/hard").hardlink_to(volume.parent / "outside/secret")
        giver.hand_over(str(volume))
        assert giver.given == [*INNER, "volume"]

    def test_what_lies_too_deep_is_not(self, giver: Giver, volume: Path) -> None:
        deep = volume.joinpath(*["x"] * (handover.DEEPEST + 3))
        deep.mkdir(parents=True)
        giver.hand_over(str(volume))
        assert len(giver.given) == handover.DEEPEST + 2 + 1
        assert str(deep.relative_to(volume.parent)) not in giver.given

    def test_a_closed_directory_ends_nothing(self, giver: Giver, volume: Path) -> None:
        seen = handover.os.open

        def deny(name: str, flags: int, **more: Any) -> int:
            if name == "." and where(more["dir_fd"]) == volume / "inner":
                raise PermissionError
            return int(seen(name, flags, **more))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(handover.os, "open", deny)
            giver.hand_over(str(volume))
        assert giver.given == ["volume/inner", "volume"]

    def test_no_descriptor_is_left(self, giver: Giver, volume: Path) -> None:
        (volume / "link").symlink_to("inner")
        before = len(list(Path("/proc/self/fd").iterdir()))
        giver.make(str(volume / "a/b"))
        for path in (".", "inner/secret", "key", "link/secret", "x/y", "link/x/y"):
            with contextlib.suppress(OSError):
                giver.hand_over(str(volume / path))
        assert len(list(Path("/proc/self/fd").iterdir())) == before


class TestMadeDirectory:
    def test_only_the_last_is_given(self, giver: Giver, volume: Path) -> None:
        giver.make(str(volume / "a/b"))
        assert giver.given == ["volume/a/b"]
        assert (volume / "a/b").is_dir()

    def test_one_that_is_there_is_not_given(self, giver: Giver, volume: Path) -> None:
        giver.make(str(volume / "inner"))
        assert giver.given == []

    def test_a_link_in_its_place(self, giver: Giver, volume: Path) -> None:
        """It is there between mkdir(2) and the look at what was made."""

        def meanwhile(step: str) -> None:
            if step == "hold new" and (volume / "new").is_dir():
                (volume / "new").rmdir()
                (volume / "new").symlink_to(volume.parent / "outside")

        volume.chmod(0o777)
        giver.meanwhile = meanwhile
        with pytest.raises(OSError, match="link"):
            giver.make(str(volume / "new"))
        assert (volume / "new").is_symlink()
        assert giver.given == []


class TestLinksOnTheWay:
    """As from /var/run to /run, or from a name to the version in force."""

    @pytest.mark.parametrize("target", ["inner", "./inner/", "../volume/inner", "{volume}/inner"])
    @pytest.mark.parametrize("rest", ["", "/secret"])
    def test_of_roots(self, giver: Giver, volume: Path, target: str, rest: str) -> None:
        (volume / "link").symlink_to(target.format(volume=volume))
        giver.hand_over(f"{volume}/link{rest}")
        assert giver.given == (INNER[:1] if rest else INNER)

    @pytest.mark.parametrize("mode", [0o775, 0o757, 0o1777])
    @pytest.mark.parametrize("rest", ["", "/secret"])
    def test_of_others(self, giver: Giver, volume: Path, mode: int, rest: str) -> None:
        (volume / "link").symlink_to("../outside")
        volume.chmod(mode)
        with pytest.raises(OSError, match="link"):
            giver.hand_over(f"{volume}/link{rest}")
        assert giver.given == []

    def test_of_roots_in_what_others_may_move(self, giver: Giver, volume: Path) -> None:
        (volume / "inner/link").symlink_to("../../outside")
        volume.chmod(0o777)
        with pytest.raises(OSError, match="link"):
            giver.hand_over(f"{volume}/inner/link")
        assert giver.given == []

    def test_a_ring(self, giver: Giver, volume: Path) -> None:
        (volume / "link").symlink_to("link")
        with pytest.raises(OSError, match="link"):
            giver.hand_over(str(volume / "link"))


class TestWhileItChanges:
    """`inner`, or what is in it, is another thing at each moment, and nothing outside is given."""

    @pytest.mark.parametrize("moment", ["hold inner", "held inner", "hold secret", "held secret"])
    @pytest.mark.parametrize("path", ["", "/inner", "/inner/secret"])
    def test_a_directory_becomes_a_link(
        self, giver: Giver, volume: Path, moment: str, path: str
    ) -> None:
        (volume / "link").symlink_to(volume.parent / "outside")
        volume.chmod(0o777)
        done = []

        def meanwhile(step: str) -> None:
            if step == moment and not done:
                swap(volume / "inner", volume / "link")
                done.append(step)

        giver.meanwhile = meanwhile
        try:
            giver.hand_over(f"{volume}{path}")
        except OSError:
            assert path
        assert done or (moment.endswith("secret") and path == "/inner")
        assert not [name for name in giver.given if name.startswith("outside")]

    @pytest.mark.parametrize("moment", ["hold secret", "held secret"])
    @pytest.mark.parametrize("as_link", [True, False])
    def test_a_file_becomes_one_outside(
        self, giver: Giver, volume: Path, moment: str, as_link: bool
    ) -> None:
        secret, outside = volume / "inner/secret", volume.parent / "outside/secret"

        def meanwhile(step: str) -> None:
            if step == moment:
                secret.unlink()
                if as_link:
                    secret.symlink_to(outside)
                else:
                    secret.hardlink_to(outside)

        giver.meanwhile = meanwhile
        giver.hand_over(str(volume))
        assert not [name for name in giver.given if "secret" in name and "deleted" not in name]


@pytest.mark.slow
def test_the_program_needs_nothing_but_itself(tmp_path: Path) -> None:
    """No package of the image is loaded; what can't be given is no failure."""
    program = [sys.executable, "-I", "-S", str(DEPLOY / "handover.py")]
    what = [str(tmp_path / "certs"), "/nowhere/at/all", "relative"]
    done = subprocess.run([*program, f"{os.getuid()}", *what], capture_output=True, check=True)
    assert done.stderr == b""
    assert (tmp_path / "certs").is_dir()
