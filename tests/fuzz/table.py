"""The table of a fuzzing session, for a page of the documentation. Sans-I/O."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from bench.report import between_marks, commit

BEGIN: Final = "<!-- fuzz -->"
END: Final = "<!-- /fuzz -->"


class Run(NamedTuple):
    """How the run of one target ended."""

    target: str
    executions: int
    coverage: int
    """Edges of the program's code that were reached."""
    trouble: str
    """The end of what was printed, where an input was found or nothing was run; else empty."""


def table(runs: Sequence[Run], seconds: int, about: Mapping[str, Any]) -> str:
    """Return a table, in the order of the targets' names, and what it was made with."""
    rows = [
        f"| {run.target.replace('_', ' ')} | {run.executions:,} | {run.coverage:,} "
        f"| {'found something' if run.trouble else 'nothing'} |"
        for run in sorted(runs)
    ]
    return "\n".join(
        [
            "| what is parsed | inputs | edges reached | found |",
            "|---|---|---|---|",
            *rows,
            "",
            f"{seconds} s each; {about['date'][:10]}, commit {commit(about)}.",
            f"Machine: {about['machine']}, Linux {about['kernel']}.",
        ]
    )


def into(page: str, made: str) -> str:
    """Put a text between the two marks of a page. Raises ValueError without them."""
    return between_marks(page, made, BEGIN, END)
