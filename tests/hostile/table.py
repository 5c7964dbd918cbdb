"""The table of what attacks have come to, for whoever runs them and for a page of the docs."""

import statistics
from collections.abc import Callable, Mapping
from typing import Any

from bench.report import between_marks, commit, render
from tests.hostile.attacks import LATE, MIB, Attack, Who
from tests.hostile.measure import Measured
from tests.hostile.verdict import Verdict

BEGIN, END = "<!-- hostile -->", "<!-- /hostile -->"
NAMES = {"theirs": "Go derper", "ours": "this relay"}
LOST = 9_000.0
"""Milliseconds; what is lost counts as 10 s late."""
HEAD = (
    *("attack", "Mbit/s", "p50 / p99, ms: Go derper", "this relay", "CPU, s: Go derper"),
    *("this relay", "memory, MB: Go derper", "this relay"),
)

Results = Mapping[Attack, Mapping[str, Measured]]
"""By attack, then by relay ("theirs", "ours")."""


def rows(results: Results) -> list[tuple[str, ...]]:
    found = []
    for attack, measured in results.items():
        both = [measured.get(relay) for relay in NAMES]
        found.append(
            (
                attack.title,
                sends(attack, measured),
                *(cell(one, lateness) for one in both),
                *(cell(one, lambda m: f"{m.cpu:.2f}") for one in both),
                *(cell(one, lambda m: short(m.growth / 1e6)) for one in both),
            )
        )
    return found


def cell(measured: Measured | None, show: Callable[[Measured], str]) -> str:
    return "-" if measured is None else show(measured)


def sends(attack: Attack, both: Mapping[str, Measured]) -> str:
    """Return how much it sends; nothing where that is all at once."""
    if not attack.rate:
        return ""
    return short(max(one.sent * 8 / one.attacked / 1e6 for one in both.values()))


def lateness(measured: Measured) -> str:
    seen = [measured.pair, *([measured.stun] if measured.stun.sent else [])]
    return ", ".join(f"{late(one.p50)} / {late(one.p99)}" for one in seen)


def late(milliseconds: float) -> str:
    return "lost" if milliseconds > LOST else short(milliseconds)


def short(value: float) -> str:
    return f"{value:.0f}" if value >= 99.95 else f"{value:.1f}"


def tables(results: Results) -> str:
    """Return one table for each kind of attackers, as Markdown, and who was admitted."""
    bodies = {
        who: rows({attack: both for attack, both in results.items() if attack.who is who})
        for who in Who
    }
    parts = [
        f"Attacks {who.value}:\n\n{render([HEAD, *body])}" for who, body in bodies.items() if body
    ]
    parts += [admissions(attack, both) for attack, both in results.items() if attack.refused]
    return "\n\n".join(parts)


def admissions(attack: Attack, both: Mapping[str, Measured]) -> str:
    """Say how many strangers were admitted whom the admission server has refused."""
    counts = ", ".join(f"{NAMES[relay]} {one.admitted}" for relay, one in both.items())
    return f"Of {attack.title}, admitted: {counts}."


def into(page: str, text: str) -> str:
    """Put a text between the two marks of a page. Raises ValueError without them."""
    return between_marks(page, text, BEGIN, END)


def before(results: Results, relay: str) -> str:
    """Return what memory a relay has before an attack."""
    found = [both[relay].memory for both in results.values() if relay in both]
    return f"{statistics.median(found) / 1e6:.0f} MB" if found else "unknown"


def origin(about: Mapping[str, Any], results: Results, seconds: float) -> str:
    """Say what was measured, on what, and how to do it again."""
    theirs = ""
    if "theirs" in about:
        theirs = f"Go derper: {about['theirs']}, {before(results, 'theirs')}.\n"
    return (
        f"For {seconds:g} s, or less where there is no more to send;"
        f" {about['date'][:10]}, commit {commit(about)}.\n"
        f"This relay: {about['ours']}, {before(results, 'ours')} before an attack.\n"
        f"{theirs}"
        f"Machine: {about['machine']}, Linux {about['kernel']}.\n"
        f"Made by `{about['command']}`."
    )


def one_line(attack: Attack, relay: str, measured: Measured, verdict: Verdict | None) -> str:
    """Return what somebody who waits for the end wants to see of one measurement."""
    promise = f" of {LATE * measured.slowness:.0f}" if attack.promised else ""
    return (
        f"{attack.id}, {relay}: p50 / p99 {lateness(measured)}{promise} ms,"
        f" CPU {measured.cpu:.2f} of {measured.seconds:.1f} s,"
        f" memory +{measured.growth / MIB:.1f} of {attack.most / MIB:.0f} MiB"
        + (f": {verdict.value}" if verdict else "")
    )
