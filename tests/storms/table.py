"""The table of what storms have come to, for whoever runs them and for a page of the docs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench.report import between_marks, commit, render
from tests.storms.measure import Kind, Measured
from tests.storms.storms import Storm

BEGIN, END = "<!-- storms -->", "<!-- /storms -->"
NAMES = {"theirs": "Go derper", "ours": "this relay"}
HEAD = (
    *("asked", "relay", "come", "in: half / all, s", "tries that failed", "strangers ever in"),
    *("questions", "memory, MB", "packets, p99, ms"),
)

Results = Mapping[Storm, Mapping[str, Measured]]
"""By storm, then by relay ("theirs", "ours")."""


def rows(results: Results) -> list[tuple[str, ...]]:
    found = []
    for storm, both in results.items():
        for relay, name in NAMES.items():
            if (one := both.get(relay)) is not None:
                found.append(row(storm, name, one))
    return found


def row(storm: Storm, name: str, one: Measured) -> tuple[str, ...]:
    belong, strangers = one.belong, one.strangers
    come = f"{belong.count:,}" + (f" + {strangers.count:,}" if strangers.count else "")
    return (
        storm.says,
        name,
        come,
        f"{short(belong.half)} / {all_in(belong)}",
        f"{belong.refusals:,}",
        f"{strangers.ever:,}" if strangers.count else "",
        ", ".join(f"{count.asked:,}" for count in one.asked),
        f"{one.memory / 1e6:.0f} to {one.peak / 1e6:.0f}",
        "lost" if one.pair.p99 > 9_000 else short(one.pair.p99),
    )


def all_in(kind: Kind) -> str:
    return short(kind.last) if kind.last else f"{kind.count - kind.here:,} not in"


def short(value: float) -> str:
    return f"{value:.0f}" if value >= 99.95 else f"{value:.1f}"


def text(results: Results, about: Mapping[str, Any]) -> str:
    """Return the table, and where it comes from, as Markdown."""
    return f"{render([HEAD, *rows(results)])}\n\n{origin(about)}"


def origin(about: Mapping[str, Any]) -> str:
    theirs = f"Go derper: {about['theirs']}.\n" if "theirs" in about else ""
    return (
        f"{about['date'][:10]}, commit {commit(about)}.\n"
        f"This relay: {about['ours']}.\n"
        f"{theirs}"
        f"Machine: {about['machine']}, Linux {about['kernel']}; a core for the relay, one for all"
        " that comes and that is asked.\n"
        f"Made by `{about['command']}`."
    )


def into(page: str, made: str) -> str:
    """Put a text between the two marks of a page. Raises ValueError without them."""
    return between_marks(page, made, BEGIN, END)


def one_line(storm: Storm, relay: str, one: Measured, wrong: Sequence[str] = ()) -> str:
    """Return what somebody who waits for the end wants to see of one storm."""
    cells: Callable[..., tuple[str, ...]] = row
    shown = zip(HEAD[2:], cells(storm, relay, one)[2:], strict=True)
    told = "; ".join(f"{head} {cell}" for head, cell in shown if cell)
    return f"{storm.id}, {relay}: {told}{''.join(f': {each}' for each in wrong)}"
