"""Tells at the end of a session what was skipped and why, aloud."""

import os
from pathlib import Path

import pytest


def tell(reporter: pytest.TerminalReporter, suite: str, title: str) -> None:
    """Print a section of this title if anything of a suite was skipped; tell $DERPER_UNTESTED."""
    skipped: dict[str, list[str]] = {}
    for report in reporter.stats.get("skipped", []):
        if not report.nodeid.startswith(f"tests/{suite}/"):
            continue
        why = report.longrepr[2].removeprefix("Skipped: ")
        skipped.setdefault(why, []).append(Path(report.nodeid.partition("::")[0]).name)
    if not skipped:
        return
    reporter.section(f"{title} WAS SKIPPED", red=True)
    told = [
        f"{len(files)} tests in {', '.join(sorted(set(files)))}: {why}"
        for why, files in skipped.items()
    ]
    for line in told:
        reporter.line(line)
    if note := os.environ.get("DERPER_UNTESTED"):
        with Path(note).open("a") as file:
            file.write("; ".join([f"{title} WAS SKIPPED: {told[0]}", *told[1:]]) + "\n")
