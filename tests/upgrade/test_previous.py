"""Which release is the last one, in a repository made for it."""

import subprocess
from pathlib import Path

import pytest

from tests.upgrade.previous import BEFORE_RELEASES, NoTreeError, last_release, take

IDENTITY = ("-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    return tmp_path


def git(repository: Path, *arguments: str) -> None:
    command = ["git", "-C", str(repository), *IDENTITY, *arguments]
    subprocess.run(command, check=True, timeout=60)


def commit(repository: Path, text: str, *tags: str) -> None:
    (repository / "text").write_text(text)
    git(repository, "add", "text")
    git(repository, "commit", "-qm", text)
    for tag in tags:
        git(repository, "tag", tag)


def test_the_newest_release_below_this_commit(repository: Path) -> None:
    """Neither this commit's own, nor one of another branch, nor a tag that is no release."""
    commit(repository, "first", "v0.9.0")
    commit(repository, "second", "v0.10.0", "v0.11.0-rc.1", "nightly")
    git(repository, "checkout", "-qb", "other")
    commit(repository, "elsewhere", "v0.12.0")
    git(repository, "checkout", "-q", "-")
    commit(repository, "this", "v0.11.0")
    assert last_release(repository) == "v0.10.0"


def test_before_there_are_releases(repository: Path) -> None:
    commit(repository, "first", "nightly")
    assert last_release(repository) == BEFORE_RELEASES


def test_the_tree_of_a_revision(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    commit(repository, "first", "v0.1.0")
    commit(repository, "second")
    folder = tmp_path_factory.mktemp("tree")
    take("v0.1.0", folder, repository)
    assert (folder / "text").read_text() == "first"


def test_a_revision_that_there_is_not(repository: Path, tmp_path: Path) -> None:
    commit(repository, "first")
    with pytest.raises(NoTreeError, match=r"v7\.0\.0"):
        take("v7.0.0", tmp_path, repository)


def test_no_repository(tmp_path: Path) -> None:
    """As an unpacked source archive is."""
    with pytest.raises(NoTreeError, match="not a git repository"):
        last_release(tmp_path)
