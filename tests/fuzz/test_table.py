"""The table of a fuzzing session."""

import pytest

from tests.fuzz.table import BEGIN, END, Run, into, table

ABOUT = {
    "date": "2026-12-01T10:00:00+00:00",
    "commit": "0123456789abcdef",
    "changed_files": 0,
    "machine": "a machine",
    "kernel": "6.1",
}


def test_it_has_a_row_for_each_target() -> None:
    runs = [Run("logins", 1000, 20, ""), Run("key_files", 3, 1, "it broke")]
    lines = table(runs, 60, ABOUT).splitlines()
    assert lines[2:4] == [
        "| key files | 3 | 1 | found something |",
        "| logins | 1,000 | 20 | nothing |",
    ]
    assert "60 s each; 2026-12-01, commit 0123456789ab." in lines


def test_it_stands_between_the_marks_of_a_page() -> None:
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert into(page, "new") == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    with pytest.raises(ValueError, match="want a line"):
        into("no marks", "new")
