"""Finds the release before this commit, and takes its tree out of git.

It is the newest tag of a release below this commit. While there is none, it is BEFORE_RELEASES.
"""

import io
import re
import subprocess
import tarfile
from pathlib import Path

from tests.interop.relay import REPO

BEFORE_RELEASES = "cfcb431759e7f38b3cf3b51aa096245f0f56e2fd"
"""A commit that was in use before there were releases; it has all that a relay keeps on disk."""

_RELEASE = re.compile(r"v\d+\.\d+\.\d+")
_TIMEOUT = 60


class NoTreeError(Exception):
    """The tree of a revision can't be had; says why."""


def last_release(repository: Path = REPO) -> str:
    """Return the revision of the last release. Raises NoTreeError."""
    # The tag of this very commit is no earlier release.
    below = ("--merged", "HEAD", "--no-contains", "HEAD")
    listed = _git(repository, "tag", "--list", *below, "--sort=-version:refname").decode()
    releases = [tag for tag in listed.split() if _RELEASE.fullmatch(tag)]
    return releases[0] if releases else BEFORE_RELEASES


def take(revision: str, folder: Path, repository: Path = REPO) -> None:
    """Put the tree of a revision into a folder. Raises NoTreeError."""
    archive = _git(repository, "archive", "--format=tar", f"{revision}^{{commit}}")
    with tarfile.open(fileobj=io.BytesIO(archive)) as tree:
        tree.extractall(folder, filter="data")


def _git(repository: Path, *arguments: str) -> bytes:
    command = ["git", "-C", str(repository), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_TIMEOUT, check=False)
    except OSError as error:
        raise NoTreeError(f"git can't be run: {error.strerror}") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["it says nothing"]
        raise NoTreeError(f"`git {arguments[0]}` ended with {done.returncode}: {said[-1]}")
    return done.stdout
