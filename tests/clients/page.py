"""The table in docs/compatibility.md: a row for each client, made and renewed by the session."""

from collections.abc import Mapping
from pathlib import Path

from bench.report import around_marks, between_marks
from tests.clients.checks import CHECKS, PINNED
from tests.clients.others import OTHERS
from tests.clients.releases import RELEASES

PAGE = Path(__file__).resolve().parents[2] / "docs/compatibility.md"
BEGIN, END = "<!-- releases: begin -->", "<!-- releases: end -->"
COLUMNS = (*CHECKS, PINNED)
NAMES = (*(release.version for release in RELEASES), *(other.name for other in OTHERS))
HEAD = ("client", "built with", *COLUMNS, "tried")

Row = list[str]


def rows(page: str) -> dict[str, Row]:
    """The cells of each row of the page's table, by release. Raises ValueError without marks."""
    before, after = around_marks(page, BEGIN, END)
    table = page[len(before) : len(page) - len(after)]
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table.splitlines()
        if line.startswith("|")
    ]
    # Without the head, and the line below it.
    return {each[0]: each for each in cells[2:]}


def with_rows(page: str, new: Mapping[str, Row]) -> str:
    """The page with these rows in place of those of the same name; releases, the oldest first."""
    found = {**rows(page), **new}
    kept = [found[name] for name in NAMES if name in found]
    lines = [HEAD, ["---"] * len(HEAD), *kept]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return between_marks(page, table, BEGIN, END)
