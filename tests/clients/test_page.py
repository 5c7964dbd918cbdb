"""The table of clients: rows are added and renewed, and a failure is a line."""

import pytest

from tests.clients import page
from tests.clients.checks import shown
from tests.clients.releases import RELEASES

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


def test_a_failure_is_a_cell() -> None:
    assert shown(AssertionError("a | b\nmore")) == "no: a / b"
    assert shown(AssertionError()) == "no: no"
