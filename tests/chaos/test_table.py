"""The table of what each relay lost."""

import pytest

from tests.chaos.table import BEGIN, END, Outcome, into, origin, table


def test_it_has_a_column_for_each_relay() -> None:
    ours = Outcome(sent=200, received=150, accounts_sent=1000, accounts_kept=900)
    text = table({"ours": ours, "derper": Outcome(failures=["second 3: clients"])})
    rows = {cells[1].strip(): cells[2:-1] for cells in (x.split("|") for x in text.splitlines())}
    assert [cell.strip() for cell in rows[""]] == ["ours", "derper"]
    assert [cell.strip() for cell in rows["packets lost"]] == ["25.00 %", ""]
    assert [cell.strip() for cell in rows["bytes missing in accounts"]] == [
        "10.00 %",
        "no accounts",
    ]
    assert [cell.strip() for cell in rows["books that did not balance"]] == ["0", "1"]


def test_it_stands_between_the_marks_of_a_page_with_what_it_was_made_with() -> None:
    about = {
        "date": "2026-12-01T10:00:00+00:00",
        "commit": "0123456789abcdef",
        "changed_files": 2,
        "machine": "a machine",
        "kernel": "6.1",
    }
    told = origin(about, 2000, 7, 600.0, 1.6)
    assert "2,000 clients, 600 s of faults, seed 7" in told
    assert "load average 2" in told
    assert "commit 0123456789ab with 2 changed files" in told
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert into(page, "new") == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    with pytest.raises(ValueError, match="want a line"):
        into("no marks", "new")
