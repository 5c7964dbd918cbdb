"""The table of what each relay lost."""

from tests.chaos.table import Outcome, table


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
