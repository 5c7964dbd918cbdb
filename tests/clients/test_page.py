"""The table of releases: rows are added and renewed, and reasons are a line."""

from pathlib import Path

import pytest

from tests.clients import page
from tests.clients.checks import shown
from tests.clients.releases import PEERCRED, RELEASES, Release, beside, reason

EMPTY = f"# A\n\n{page.BEGIN}\n\n{page.END}\n\nthe end\n"


def test_rows_are_added_in_order_and_renewed() -> None:
    old, new = RELEASES[0].version, RELEASES[-1].version
    text = page.with_rows(EMPTY, {new: [new, "first"]})
    text = page.with_rows(text, {old: [old, "other"]})
    text = page.with_rows(text, {new: [new, "again"]})
    assert list(page.rows(text).values()) == [[old, "other"], [new, "again"]]
    assert text.startswith("# A\n")
    assert text.endswith("\n\nthe end\n")
    with pytest.raises(ValueError, match="want a line"):
        page.with_rows("# A", {})


def test_the_page_has_marks_and_only_releases_of_the_session() -> None:
    assert set(page.rows(page.PAGE.read_text())) <= set(page.NAMES)


def test_why_a_release_cannot_be_built_is_a_line() -> None:
    said = """go: downloading a.test/b v1.0.0
cmd/d.go:28:2: a.test/b@v1.0.0: reading https://proxy.test/a.test/b/@v/v1.0.0.zip: 403 Forbidden
	server response: not available
"""
    assert reason(said) == "the module proxy does not give a.test/b@v1.0.0"
    assert reason("go: downloading x\ngo: cannot find y\n") == "go: cannot find y"
    assert reason("") == "the go command says nothing"


def test_a_failure_is_a_cell() -> None:
    assert shown(AssertionError("a | b\nmore")) == "no: a / b"
    assert shown(AssertionError()) == "no: no"


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
