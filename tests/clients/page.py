"""The table in docs/compatibility.md: a row for each release, made and renewed by the session."""

from collections.abc import Mapping
from pathlib import Path

from bench.report import around_marks
from tests.clients.checks import CHECKS, PINNED
from tests.clients.releases import RELEASES

PAGE = Path(__file__).resolve().parents[2] / "docs/compatibility.md"
BEGIN, END = "<!-- releases: begin -->", "<!-- releases: end -->"
COLUMNS = (*CHECKS, PINNED)
HEAD = ("tailscaled", "built with", *COLUMNS, "tried")

Row = list[str]


def rows(page: str) -> dict[str, Row]:
    """The cells of each row of the page's table, by release. Raises ValueError without marks."""
    before, after = around_marks(page, BEGIN, END)
    table = page[len(before) : len(page) - len(after)]
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table.splitlines()
        if line.startswith("| 1.")
    ]
    return {each[0]: each for each in cells}


def with_rows(page: str, new: Mapping[str, Row]) -> str:
    """The page with these rows in place of those of the same releases, the oldest first."""
    found = {**rows(page), **new}
    kept = [found[release.version] for release in RELEASES if release.version in found]
    lines = [HEAD, ["---"] * len(HEAD), *kept]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    before, after = around_marks(page, BEGIN, END)
    return f"{before}\n\n{table}\n\n{after}"
