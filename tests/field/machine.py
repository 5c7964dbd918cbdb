"""A real systemd that knows the relay's units, in namespaces of its own.

It runs over an overlay of this machine's files, or another Debian's: nothing is installed, nothing
that it writes stays, and the kernel ends all its processes when the tests are gone.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from tests.interop.netns import Namespace
from tests.interop.relay import REPO, die_with_parent

BOOT = Path(__file__).resolve().parent / "boot.sh"
HERE = Path("/")
SYSTEMD = Path("lib/systemd/systemd")
START_TIMEOUT = 60
TIMEOUT = 60


class NoMachineError(Exception):
    """No systemd can be booted here; says why."""


@attrs.frozen
class Machine:
    """One that runs. `pid` is its first process, as seen from here."""

    pid: int
    network: Namespace

    @property
    def prefix(self) -> list[str]:
        """What runs a command in it."""
        return ["nsenter", "--target", str(self.pid), "--all", "--wd=/", "--"]

    @property
    def root(self) -> Path:
        return Path(f"/proc/{self.pid}/root")

    def attempt(self, *command: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*self.prefix, *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )

    def run(self, *command: str) -> str:
        done = self.attempt(*command)
        assert done.returncode == 0, (command, done.stdout, done.stderr, self.journal())
        return done.stdout

    def systemctl(self, *arguments: str) -> str:
        return self.run("systemctl", "--no-pager", *arguments).strip()

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.systemctl("show", "--value", "--property", name, unit)

    def journal(self) -> str:
        """What the relay has said."""
        done = self.attempt("journalctl", "--no-pager", "--output=cat", "--unit=derper.service")
        return done.stdout


def _need(below: Path, tools: Sequence[str]) -> None:
    if os.geteuid() != 0:
        raise NoMachineError("only root can boot a systemd")
    if not (below / SYSTEMD).exists():
        raise NoMachineError("systemd is not installed")
    if missing := [tool for tool in tools if not shutil.which(tool)]:
        raise NoMachineError(f"not installed: {', '.join(missing)}")


def _cgroup() -> Path:
    """The hierarchy of version 2, in which systemd gets a group of its own."""
    for place in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
        if Path(place, "cgroup.procs").exists():
            return Path(place)
    raise NoMachineError("there is no cgroup2")


@contextlib.contextmanager
def booted(folder: Path, *, relay: bool = True, below: Path = HERE) -> Iterator[Machine]:
    """Boot it, with the relay installed as deploy/derper.service says, or without `relay`.

    `below` has the files of another Debian, which stay as they are. Raises NoMachineError, saying
    why it can't be.
    """
    _need(below, ["unshare", "nsenter", "ip", "mount", "pivot_root"])
    group = _cgroup() / f"derper-field-{os.getpid()}"
    work = folder / "machine"
    work.mkdir()
    log_file = folder / "machine.log"
    try:
        group.mkdir()
    except OSError as error:
        raise NoMachineError(f"no cgroup can be made: {error}") from None
    spaces = ["--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup", "--fork", "--kill-child"]
    there = [work, below]
    if relay:
        there += [sys.base_prefix, sysconfig.get_paths()["purelib"], REPO]
    enter = f'echo 0 >{group}/cgroup.procs && exec unshare {" ".join(spaces)} -- sh {BOOT} "$@"'
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            ["sh", "-c", enter, "sh", *map(str, there)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            text=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509 — no threads here yet
        )
    try:
        yield _wait(process, log_file)
    finally:
        process.kill()
        process.wait()
        _remove(group)


def _wait(process: "subprocess.Popen[str]", log_file: Path) -> Machine:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        said = log_file.read_text(errors="replace").strip()[-500:]
        if process.poll() is not None:
            raise NoMachineError(f"systemd ended: {said}")
        if time.monotonic() > deadline:
            raise NoMachineError(f"systemd has not started in {START_TIMEOUT} s: {said}")
        with contextlib.suppress(OSError, ValueError):
            machine = Machine(int(children.read_text()), Namespace(process))
            if Path(f"/proc/{machine.pid}/exe").readlink().name == "systemd":
                done = machine.attempt("systemctl", "is-system-running")
                if done.stdout.strip() in {"running", "degraded"}:
                    return machine
        time.sleep(0.1)


def _remove(group: Path) -> None:
    """Remove it and what is in it; its processes may take a moment to go."""
    deadline = time.monotonic() + 5
    while group.exists() and time.monotonic() < deadline:
        for folder, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()
        time.sleep(0.05)
