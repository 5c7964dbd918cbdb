"""The table of what each relay lost. Sans-I/O."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

from bench.report import between_marks, commit, render

BEGIN: Final = "<!-- chaos -->"
END: Final = "<!-- /chaos -->"


@attrs.define
class Outcome:
    """What a run came to."""

    seconds: float = 0.0
    rounds: int = 0
    faults: int = 0
    sent: int = 0
    received: int = 0
    cut: int = 0
    """Connections that ended, other than by the clients' will."""
    out_seconds: float = 0.0
    """Seconds that clients that belong in were out, all together."""
    slowest: float = 0.0
    """Seconds from the end of a round's faults until its books balanced; of all, the longest."""
    ended: int = 0
    """How often the relay ended without being killed."""
    accounts_sent: int | None = None
    accounts_kept: int | None = None
    memory_before: int = 0
    memory_after: int = 0
    failures: list[str] = attrs.field(factory=list)


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.2f} %" if whole else ""


ROWS: Final[Mapping[str, Callable[[Outcome], str]]] = {
    "rounds, faults": lambda o: f"{o.rounds}, {o.faults}",
    "packets sent": lambda o: f"{o.sent:,}",
    "packets lost": lambda o: _percent(o.sent - o.received, o.sent),
    "connections lost": lambda o: f"{o.cut:,}",
    "clients out, s in all": lambda o: f"{o.out_seconds:,.0f}",
    "all back after, s at most": lambda o: f"{o.slowest:.1f}",
    "relay ended by itself": lambda o: f"{o.ended}",
    "bytes missing in accounts": lambda o: (
        "no accounts"
        if o.accounts_sent is None or o.accounts_kept is None
        else _percent(o.accounts_sent - o.accounts_kept, o.accounts_sent)
    ),
    "memory before, after, MiB": lambda o: f"{o.memory_before >> 20}, {o.memory_after >> 20}",
    "books that did not balance": lambda o: f"{len(o.failures)}",
}


def table(outcomes: Mapping[str, Outcome]) -> str:
    """Return a Markdown table, with a column for each relay."""
    rows = [(name, *map(show, outcomes.values())) for name, show in ROWS.items()]
    return render([("", *outcomes), *rows])


def origin(about: Mapping[str, Any], clients: int, seed: int, seconds: float, busy: float) -> str:
    """Say what a table was made with; `busy` is the machine's load average at the end."""
    return (
        f"{clients:,} clients, {seconds:.0f} s of faults, seed {seed}; "
        f"{about['date'][:10]}, commit {commit(about)}.\n"
        f"Machine: {about['machine']}, Linux {about['kernel']}; load average {busy:.0f}."
    )


def into(page: str, made: str) -> str:
    """Put a text between the two marks of a page. Raises ValueError without them."""
    return between_marks(page, made, BEGIN, END)
