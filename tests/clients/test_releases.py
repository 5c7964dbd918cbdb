"""Real tailscaled of many releases: how each is built, and what is said where it can't be."""

from pathlib import Path

import attrs
import pytest

from tests.clients import releases
from tests.clients.releases import PEERCRED, Release, beside, reason


def test_why_a_release_cannot_be_built_is_a_line() -> None:
    said = """go: downloading a.test/b v1.0.0
cmd/d.go:28:2: a.test/b@v1.0.0: reading https://proxy.test/a.test/b/@v/v1.0.0.zip: 403 Forbidden
	server response: not available
"""
    assert reason(said) == "the module proxy does not give a.test/b@v1.0.0"
    assert reason("go: downloading x\ngo: cannot find y\n") == "go: cannot find y"
    assert reason("") == "the go command says nothing"


def test_what_releases_know() -> None:
    older, between, newer = (Release(f"1.{minor}.0", "") for minor in (78, 80, 82))
    assert (older.is_old, between.is_old, newer.is_old) == (True, False, False)
    assert (older.knows_pins, between.knows_pins, newer.knows_pins) == (False, False, True)


def test_a_package_that_moved_is_taken_from_its_new_address(tmp_path: Path) -> None:
    source, made = tmp_path / "source", tmp_path / "made"
    for folder in (source, made):
        folder.mkdir()
    (source / "go.mod").write_text("module a.test/b\n")
    (source / "go.sum").write_text("c.test/d v1.0.0 h1:e=\n")
    assert beside(source, made, PEERCRED) == made / "go.mod"
    new = f"{PEERCRED.new} {PEERCRED.version}"
    assert (made / "go.mod").read_text().splitlines() == [
        "module a.test/b",
        f"replace inet.af/peercred => {new}",
    ]
    assert (made / "go.sum").read_text().splitlines() == [
        "c.test/d v1.0.0 h1:e=",
        f"{new} {PEERCRED.sum}",
        f"{new}/go.mod {PEERCRED.sum_of_mod}",
    ]


def test_the_table_says_that_a_package_has_moved() -> None:
    moved = Release("1.58.2", "1.21.13", PEERCRED)
    assert moved.built_with == "Go 1.21.13; inet.af/peercred from github.com/tailscale/peercred"
    assert Release("1.62.1", "1.22.12").built_with == "Go 1.22.12"


def test_a_release_is_built_again_where_go_or_the_flags_are_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[list[str]] = []

    def run(command: list[str], _: Release, folder: Path) -> str:
        assert folder == tmp_path
        built.append(command)
        Path(command[command.index("-o") + 1]).touch()
        return ""

    monkeypatch.setattr(releases, "BIN", tmp_path)
    monkeypatch.setattr(releases, "_source", lambda _: tmp_path)
    monkeypatch.setattr(releases, "_run", run)
    first = Release("1.90.9", "1.25.10")
    for release, times in (
        (first, 1),
        (first, 1),
        (attrs.evolve(first, go="1.25.11"), 2),
        (attrs.evolve(first, needs=frozenset({"logtail"})), 3),
    ):
        binaries = releases.build(release)
        assert len(built) == times
        assert all(path.exists() for path in binaries.values())
    left_out = ["ts_omit_logtail," in " ".join(command) for command in built]
    assert left_out == [True, True, False]
