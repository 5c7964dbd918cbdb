"""What the suite makes of a podman that can't be used: the reason, for the session to tell.

A script stands in for podman; whatever isn't said here succeeds in silence.
"""

import os
from pathlib import Path

import pytest

from tests.container import images
from tests.container import podman as containers
from tests.container.podman import NoPodmanError, Podman, PodmanError
from tests.support.waiting import until

SCRIPT = """#!/bin/sh
while [ "$1" = --runtime ]; do shift 2; done
case "$1 $2" in
{cases}
"image exists") exit 1 ;;
esac
"""
GONE = "00000"
"""No process has this number."""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which `podman` is found, and what it did is written down; no debootstrap."""
    monkeypatch.delenv("DERPER_TEST_BASE", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(images, "_debootstrap", lambda _: "debootstrap is not installed")
    return tmp_path


def does(folder: Path, *cases: str) -> None:
    script = folder / "podman"
    script.write_text(SCRIPT.format(cases="\n".join(f"{case} ;;" for case in cases)))
    script.chmod(0o755)


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (
            "info*) echo 'no cgroups' >&2; exit 125",
            r"^`podman info .*` ended with 125: no cgroups$",
        ),
        ("pull*) exit 125", "podman pull .*ended with 125: it says nothing; debootstrap is not"),
        ("pull*) echo 'a'; echo 'no route' >&2; exit 125", "ended with 125: no route; debootstrap"),
        ("run*) echo 'no crun' >&2; exit 126", "^podman can't run `true` in .*no crun; .*no crun$"),
    ],
)
def test_a_command_that_fails(stand_in: Path, case: str, reason: str) -> None:
    does(stand_in, case)
    with pytest.raises(NoPodmanError, match=reason):
        images.find()


@pytest.mark.parametrize("case", ["ps*) {}", "volume*) {}", "images*) {}"])
def test_leftovers_that_can_not_be_listed(
    stand_in: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    """A listing fails where something goes meanwhile; that is no reason to skip the suite."""
    does(stand_in, case.format("echo 'it has gone' >&2; exit 125"))
    images.find()
    assert ": it has gone\n" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["info", "ps", "pull", "run"])
def test_a_command_that_hangs(
    stand_in: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """With all that it started."""
    monkeypatch.setattr(containers, "TIMEOUT", 1)
    monkeypatch.setattr(images, "PULL_TIMEOUT", 1)
    does(stand_in, f"{command}*) sleep 60 & echo $! >{stand_in}/pid; wait")
    with pytest.raises(NoPodmanError, match=f"`podman .*{command} .*took more than 1 s"):
        images.find()
    status = Path(f"/proc/{int((stand_in / 'pid').read_text())}/status")
    until("it is gone", lambda: not status.exists() or "State:\tZ" in status.read_text())


def test_a_base_that_is_mistyped(stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever names one wants the tests to run."""
    monkeypatch.setenv("DERPER_TEST_BASE", "localhost/debain")
    does(stand_in, "pull*) echo 'not known' >&2; exit 125")
    with pytest.raises(
        images.WrongBaseError, match=r"^DERPER_TEST_BASE=localhost/debain: .*known$"
    ):
        images.find()


def test_a_build_that_fails(stand_in: Path) -> None:
    """It is a failure, and leaves none of the containers in which it worked."""
    ours = f"{containers.PREFIX}{os.getpid()}-base-working-container"
    does(
        stand_in,
        "build*) echo 'no such file' >&2; exit 1",
        f"ps*) echo somebodys-working-container; echo {ours}; echo {ours}-1",
        f'rm*|untag*) echo "$*" >>{stand_in}/done',
    )
    with pytest.raises(PodmanError, match="ended with 1: no such file"):
        images.build(Podman(), "base", "localhost/tag:ours")
    done = [line.split()[-1] for line in (stand_in / "done").read_text().splitlines()]
    assert done == [ours, f"{ours}-1", f"localhost/{containers.PREFIX}{os.getpid()}-base:base"]


def test_what_was_left(stand_in: Path) -> None:
    """What belongs to tests that are no more is removed; nobody else's is."""
    left, now = f"{containers.PREFIX}{GONE}-1", f"{containers.PREFIX}{os.getpid()}-1"
    does(
        stand_in,
        f"ps*) echo {left}-working-container; echo {now}; echo somebodys",
        f"'volume ls') echo {left}; echo {now}; echo somebodys",
        f"images*) echo localhost/{left}:ours; echo localhost/{left}:base; echo localhost/{now}:a",
        f'rm*|rmi*|untag*|volume*) echo "$*" >>{stand_in}/done',
    )
    containers.installed()
    assert (stand_in / "done").read_text().splitlines() == [
        f"rm --force --time 0 --volumes {left}-working-container",
        f"volume rm --force {left}",
        f"rmi --force localhost/{left}:ours",
        f"untag localhost/{left}:base localhost/{left}:base",
    ]
