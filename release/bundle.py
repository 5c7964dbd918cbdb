"""A bundle: one folder with the relay and all that it needs, for one architecture.

It serves every Python of PYTHONS. Compiled modules for several of them lie side by side, as their
names tell them apart; everything else is the same in the wheels for each, which is checked. The
versions, and the hashes of the wheels, are those of deploy/requirements.txt.

`derper` in the folder starts the relay with the Python that runs it: a script's folder comes first
in the module path.
"""

import hashlib
import re
import sys
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import attrs
from packaging.markers import Marker

from release.project import DEPLOY, ReleaseError, run

PYTHONS: Final = ("3.11", "3.12", "3.13", "3.14")
"""Each has to have wheels of all that is compiled."""
ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
"""As the kernel calls them, and as Debian does."""
GLIBC_MINORS: Final = range(17, 29)
"""Of version 2, those that a wheel may need."""

_LINUX: Final = {
    "implementation_name": "cpython",
    "os_name": "posix",
    "platform_python_implementation": "CPython",
    "platform_system": "Linux",
    "sys_platform": "linux",
}

SCRIPT: Final = b"""\
#!/usr/bin/python3
from derp.cli.entry import script

script()
"""

_LEFT_OUT: Final = re.compile(
    # What only pip and type checkers read, and tests, which have private keys among them.
    r".*\.dist-info/(RECORD|WHEEL|INSTALLER|REQUESTED|direct_url\.json)|.*\.pyi|(.*/)?_?tests/.*"
)
_SUFFIX: Final = re.compile(r"\.cpython-3(\d+)-\w+-linux-gnu\.so$")


@attrs.frozen
class Bundle:
    """The content of a bundle."""

    architecture: str
    files: Mapping[str, bytes]
    """By path, with slashes; in the order of the paths."""
    glibc: tuple[int, int]
    """The oldest that will do."""

    @property
    def digest(self) -> str:
        """SHA-256 over the names and contents, in hex."""
        return digest_of(self.files)


def digest_of(files: Mapping[str, bytes]) -> str:
    """Return SHA-256 over names, lengths and contents, in hex."""
    total = hashlib.sha256()
    for name, content in sorted(files.items()):
        total.update(f"{name}\0{len(content)}\0".encode())
        total.update(content)
    return total.hexdigest()


def make(architecture: str, own: Path, folder: Path) -> Bundle:
    """Return the bundle for an architecture; `own` is the relay's wheel, `folder` keeps others.

    Raises ReleaseError if a wheel can't be had, is not what its hash says, or is at odds.
    """
    wheels = {own.name: own}
    for python in PYTHONS:
        place = folder / f"{architecture}-{python}"
        _download(architecture, python, place)
        wheels |= {wheel.name: wheel for wheel in place.glob("*.whl")}
    files = merged(wheels.values())
    files["derper"] = SCRIPT
    for name in files:
        if name.endswith(".so") and not (name.endswith(".abi3.so") or _SUFFIX.search(name)):
            raise ReleaseError(f"{name}: its name does not say which Python it is for")
    needed = max(glibc_of(name, architecture) for name in wheels)
    return Bundle(architecture, dict(sorted(files.items())), needed)


def _download(architecture: str, python: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    wanted = folder / "requirements.txt"
    wanted.write_text(pins(), "utf-8")
    # Pip prefers what is named first: what serves older systems, too.
    platforms = [f"--platform=manylinux_2_{minor}_{architecture}" for minor in GLIBC_MINORS]
    run(
        *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"),
        *("--only-binary=:all:", "--implementation=cp", f"--python-version={python}"),
        *platforms,
        *("--requirement", str(wanted), "--dest", str(folder)),
    )


def pins() -> str:
    """Return what a bundle has, as requirements with hashes."""
    return for_all((DEPLOY / "requirements.txt").read_text("utf-8"))


def for_all(requirements: str) -> str:
    """Return requirements for all PYTHONS at once: one version of each, and no markers.

    Pip would judge a marker by the Python that runs it. Of several versions, that for the oldest
    Python is taken: the others serve only newer ones.
    """
    chosen: dict[str, str] = {}
    for python in PYTHONS:
        # As old as there is: Debian 12 has 3.11.2.
        environment = {**_LINUX, "python_version": python, "python_full_version": f"{python}.0"}
        for block in re.findall(r"(?m)^\w.*\n(?: +--hash.*\n?)*", requirements):
            head, _, hashes = block.partition("\n")
            pin, _, marker = head.removesuffix("\\").strip().partition(" ; ")
            if not marker or Marker(marker).evaluate(environment):
                chosen.setdefault(pin.partition("==")[0], f"{pin} \\\n{hashes}")
    return "".join(block for _, block in sorted(chosen.items()))


def merged(wheels: Iterable[Path]) -> dict[str, bytes]:
    """Return what is in all of the wheels, by path. Raises ReleaseError for two that disagree."""
    files: dict[str, bytes] = {}
    for wheel in sorted(wheels):
        with zipfile.ZipFile(wheel) as archive:
            for entry in archive.infolist():
                name = entry.filename
                if entry.is_dir() or _LEFT_OUT.fullmatch(name):
                    continue
                if ".data/" in name or ".." in name.split("/") or name.startswith("/"):
                    raise ReleaseError(f"{wheel.name}: has {name}, which a bundle has no place for")
                content = archive.read(entry)
                if files.setdefault(name, content) != content:
                    raise ReleaseError(f"{wheel.name}: {name} is another one than in other wheels")
    return files


def glibc_of(wheel: str, architecture: str) -> tuple[int, int]:
    """Return the glibc that a wheel needs, by its name; (0, 0) if it needs none.

    Raises ReleaseError for the wheel of another platform.
    """
    platforms = wheel.removesuffix(".whl").rpartition("-")[2]
    if platforms == "any":
        return 0, 0
    found = re.findall(rf"manylinux_(\d+)_(\d+)_{architecture}(?![a-z0-9_])", platforms)
    if not found:
        raise ReleaseError(f"{wheel}: not for Linux with glibc on {architecture}")
    return min((int(major), int(minor)) for major, minor in found)
