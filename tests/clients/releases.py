"""Real tailscaled of many releases, each built from its own module with the Go that it asks for.

The go command takes toolchain and packages from the module proxy. What the flags leave out is as in
`tests.interop.golang`; of a release that has no such switch, nothing.

A release's own sources are never changed. Where the module proxy gives no package at the address
that the release names, the package comes from the address that later releases name: a copy of the
release's go.mod says so to the go command, and the table to the reader.
"""

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import attrs

from tests.interop import golang

BIN = golang.BIN / "releases"
BUILD_TIMEOUT = 1800


@attrs.frozen
class Move:
    """A module that has another address now; the sums are as in a go.sum."""

    old: str
    new: str
    version: str
    sum: str
    sum_of_mod: str

    @property
    def replacement(self) -> str:
        """The line of a go.mod."""
        return f"replace {self.old} => {self.new} {self.version}\n"

    @property
    def sums(self) -> str:
        """The lines of a go.sum."""
        module = f"{self.new} {self.version}"
        return f"{module} {self.sum}\n{module}/go.mod {self.sum_of_mod}\n"


PEERCRED = Move(
    "inet.af/peercred",
    "github.com/tailscale/peercred",
    "v0.0.0-20240214030740-b535050b2aa4",
    "h1:Gz0rz40FvFVLTBk/K8UNAenb36EbDSnh+q7Z9ldcC8w=",
    "h1:phI29ccmHQBc+wvroosENp1IF9195449VDnFDhJ4rJU=",
)
"""Tells who is at the other end of LocalAPI's socket. New address and sums are those of 1.62."""


@attrs.frozen
class Release:
    """A release of Tailscale, and the version of Go that builds it."""

    version: str
    go: str
    moved: Move | None = None
    needs: frozenset[str] = frozenset()
    """What must not be left out."""

    @property
    def built_with(self) -> str:
        """A cell of the table."""
        taken = f"; {self.moved.old} from {self.moved.new}" if self.moved else ""
        return f"Go {self.go}{taken}"

    @property
    def minor(self) -> int:
        return int(self.version.split(".")[1])

    @property
    def knows_pins(self) -> bool:
        """Whether `CertName` in a DERP map may be the hash of a certificate."""
        return self.minor >= 82

    @property
    def is_old(self) -> bool:
        """Whether it must be told of a peer's home as releases before capability 111 are."""
        return self.minor < 80


RELEASES = (
    Release("1.24.2", "1.18.10"),
    Release("1.32.3", "1.19.13", PEERCRED),
    Release("1.38.4", "1.20.14", PEERCRED),
    Release("1.44.3", "1.20.14", PEERCRED),
    Release("1.50.1", "1.21.13", PEERCRED),
    Release("1.58.2", "1.21.13", PEERCRED),
    Release("1.62.1", "1.22.12"),
    Release("1.66.4", "1.22.12"),
    Release("1.68.2", "1.26.8"),
    Release("1.74.1", "1.23.12"),
    Release("1.76.6", "1.23.12"),
    Release("1.80.3", "1.23.12"),
    Release("1.86.2", "1.24.13"),
    # Without logtail it dies of its first metric.
    Release("1.90.9", "1.25.11", needs=frozenset({"logtail"})),
    Release("1.92.5", "1.25.11"),
    Release("1.96.5", "1.26.8"),
    Release("1.98.10", "1.26.8"),
    Release("1.102.5", "1.26.8"),
    Release("1.104.0", "1.27.4"),
    Release("1.104.7", "1.27.4"),
)


class CannotBuildError(Exception):
    """Why a release can't be built here, in a few words."""


def build(release: Release) -> dict[str, Path]:
    """The paths of a release's tailscaled and tailscale, built anew if its flags or Go changed.

    Raises CannotBuildError.
    """
    folder = BIN / release.version
    binaries = {name: folder / name for name in ("tailscaled", "tailscale")}
    stamp = folder / "stamp"
    flags = golang.flags(golang.MAIN._replace(needs=release.needs))
    now = repr((release, flags))
    fresh = stamp.exists() and stamp.read_text() == now
    if not fresh or not all(path.exists() for path in binaries.values()):
        folder.mkdir(parents=True, exist_ok=True)
        stamp.unlink(missing_ok=True)
        source = _source(release)
        if release.moved:
            flags.append(f"-modfile={beside(source, folder, release.moved)}")
        command = ["nice", "go", "build", "-p=2", *flags, "-o", f"{binaries['tailscaled']}"]
        _run([*command, "./cmd/tailscaled"], release, source)
        binaries["tailscale"].unlink(missing_ok=True)
        binaries["tailscale"].symlink_to("tailscaled")
        stamp.write_text(now)
    return binaries


def _source(release: Release) -> Path:
    """The folder of the release's module, in the module cache."""
    module = f"tailscale.com@v{release.version}"
    downloaded = _run(["go", "mod", "download", "-json", module], release, Path(golang.HERE.root))
    return Path(json.loads(downloaded)["Dir"])


def beside(source: Path, folder: Path, move: Move) -> Path:
    """Write the source's go.mod and go.sum, with the move, into the folder; return the go.mod."""
    for name, more in (("go.mod", move.replacement), ("go.sum", move.sums)):
        (folder / name).write_text((source / name).read_text() + more)
    return folder / "go.mod"


def _run(command: list[str], release: Release, folder: Path) -> str:
    keep = {key: value for key, value in os.environ.items() if key not in {"GOFLAGS", "GOROOT"}}
    env = {**keep, "GOTOOLCHAIN": f"go{release.go}", "GOWORK": "off", "CGO_ENABLED": "0"}
    return run(command, folder, env)


def run(command: list[str], folder: Path, env: Mapping[str, str]) -> str:
    """Run a command that builds; return what it prints. Raises CannotBuildError."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=env,
            capture_output=True,
            text=True,
            timeout=BUILD_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CannotBuildError(f"not built within {error.timeout:g} s") from error
    if done.returncode:
        raise CannotBuildError(reason(f"{done.stdout}\n{done.stderr}"))
    return done.stdout


def reason(said: str) -> str:
    """The line that says why, of all that the go command has said."""
    lines = [line.strip() for line in said.splitlines() if "downloading" not in line]
    for line in lines:
        if ": reading " in line:
            wanted = line.partition(": reading")[0].split()[-1]
            return f"the module proxy does not give {wanted}"
    return next((line for line in lines if line), "the go command says nothing")
