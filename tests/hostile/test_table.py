"""The table that the docs show, and that it has every attack there is."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.hostile import table
from tests.hostile.attacks import (
    ATTACKS,
    CONNECTION_BYTES,
    LATE,
    LINK,
    LITTLE,
    LOGGED,
    MIB,
    PENDING,
    QUEUES,
    Attack,
    Who,
)
from tests.hostile.samples import GOOD, pair

ROOT = Path(__file__).parents[2]
HELD = Attack(Who.STRANGER, "idle", "{count} idle connections", 1000, many=10_000)
AT_ONCE = Attack(Who.CLIENT, "leaves", "leaves", 1, rate=0)
REFUSED = Attack(Who.STRANGER, "strangers", "{count} strangers", 300, refused=True)
SENT = replace(GOOD, sent=1_250_000, attacked=1.0, growth=5 * MIB, cpu=0.25)


def cells(text: str, line: int) -> list[str]:
    return [cell.strip() for cell in text.splitlines()[line].strip("|").split("|")]


def test_the_load_client_has_the_attacks_of_the_list_and_no_others() -> None:
    source = (ROOT / "bench/load/attacks.go").read_text()
    assert set(re.findall(r'^\t"([a-z-]+)":', source, re.MULTILINE)) == {a.name for a in ATTACKS}


def test_the_docs_state_the_bounds() -> None:
    page = (ROOT / "docs/security.md").read_text()
    for bound in (PENDING // MIB, QUEUES // MIB, LITTLE // MIB):
        assert f"{bound} MiB" in page
    for bound in (CONNECTION_BYTES >> 10, LOGGED >> 10):
        assert f"{bound} KiB" in page
    assert f"{LATE:.0f} ms" in page
    assert f"{LINK / 1e6:.0f} Mbit/s" in page


def test_no_two_attacks_have_one_name() -> None:
    assert len({attack.id for attack in ATTACKS}) == len(ATTACKS)


def test_both_relays_stand_side_by_side() -> None:
    theirs = replace(SENT, pair=pair(10_000), growth=MIB)
    text = table.tables({HELD.long(): {"theirs": theirs, "ours": SENT}})
    assert text.startswith("Attacks without a login:\n")
    assert cells(text, 4) == [
        *("10,000 idle connections", "10.0", "0.1 / lost", "0.1 / 50.0"),
        *("0.25", "0.25", "1.0", "5.2"),
    ]


def test_a_relay_that_was_not_measured_has_no_figures() -> None:
    text = table.tables({AT_ONCE: {"ours": SENT}})
    assert text.startswith("Attacks by clients")
    assert cells(text, 4) == ["leaves", "", "-", "0.1 / 50.0", "-", "0.25", "-", "5.2"]


def test_stun_answers_stand_behind_the_packets() -> None:
    asked = replace(SENT, stun=pair(3.0))
    text = table.tables({HELD: {"ours": asked}})
    assert cells(text, 4)[3] == "0.1 / 50.0, 0.1 / 3.0"


def test_who_was_admitted_is_told() -> None:
    both = {"theirs": replace(SENT, admitted=17), "ours": SENT}
    text = table.tables({REFUSED: both})
    assert text.endswith("\n\nOf 300 strangers, admitted: Go derper 17, this relay 0.")


def test_a_page_keeps_what_is_around_the_marks() -> None:
    page = f"# A\n\n{table.BEGIN}\nold\n{table.END}\n\nthe end\n"
    assert table.into(page, "new") == f"# A\n\n{table.BEGIN}\n\nnew\n\n{table.END}\n\nthe end\n"
    with pytest.raises(ValueError, match=f"want a line {table.BEGIN}"):
        table.into("# A", "new")


def test_where_it_comes_from_is_told() -> None:
    about = {
        "changed_files": 0,
        "commit": "0123456789abcdef",
        "date": "2026-01-02T03:04:05",
        "ours": "0.1.0",
        "theirs": "1.102.5",
        "machine": "a machine",
        "kernel": "6.1",
        "command": "nox",
    }
    told = table.origin(about, {HELD: {"ours": GOOD}}, 10.0)
    assert "to send; 2026-01-02, commit 0123456789ab.\n" in told
    assert "This relay: 0.1.0, 31 MB before an attack." in told
    assert "Go derper: 1.102.5, unknown." in told
