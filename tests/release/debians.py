"""Debians other than this machine's, made by debootstrap, once: they stay in .nox/."""

import os
import shutil
import subprocess
from pathlib import Path

from tests.field.machine import NoMachineError
from tests.interop.relay import REPO, die_with_parent

SUITES = {"bookworm": "3.11", "trixie": "3.13", "forky": "3.14"}
"""By the Python that they have."""

PACKAGES = "adduser,init-system-helpers,python3,systemd"
SCRIPTS = Path("/usr/share/debootstrap/scripts")
TIMEOUT = 600
KEPT = REPO / ".nox" / "debians"


def made(suite: str) -> Path:
    """The files of a Debian that has what the package needs. Raises NoMachineError."""
    root = KEPT / suite
    if root.is_dir():
        return root
    work = _bootstrap(KEPT / f"{suite}.new", suite, f"--include={PACKAGES}")
    shutil.rmtree(work / "var/cache/apt/archives")
    work.rename(root)
    return root


def unpacked(suite: str, architecture: str) -> Path:
    """The files of a Debian with Python, of another architecture: none of its programs has run.

    Raises NoMachineError.
    """
    root = KEPT / f"{suite}-{architecture}"
    if root.is_dir():
        return root
    options = (f"--arch={architecture}", "--foreign", "--include=python3")
    work = _bootstrap(KEPT / f"{suite}-{architecture}.new", suite, *options)
    made = KEPT / f"{suite}-{architecture}.unpacked"
    shutil.rmtree(made, ignore_errors=True)
    for package in sorted((work / "var/cache/apt/archives").glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", package, made], check=True)
    shutil.rmtree(work)
    made.rename(root)
    return root


def _bootstrap(work: Path, suite: str, *options: str) -> Path:
    if not shutil.which("debootstrap"):
        raise NoMachineError("debootstrap is not installed")
    if os.geteuid() != 0:
        raise NoMachineError("only root can make another Debian")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    # Whatever it started or mounted is gone when it is.
    contained = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]
    command = ["debootstrap", "--variant=minbase", *options, suite, str(work)]
    if not (SCRIPTS / suite).exists():
        # A suite that is younger than this debootstrap; the default mirror.
        command += ["", str(SCRIPTS / "sid")]
    done = subprocess.run(
        [*contained, *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT,
        check=False,
        preexec_fn=die_with_parent,
    )
    if done.returncode:
        why = done.stdout[-300:].strip()
        raise NoMachineError(f"debootstrap {suite} ended with {done.returncode}: {why}")
    return work
