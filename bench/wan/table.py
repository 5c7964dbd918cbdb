"""From results to a table in Markdown, and to verdicts on the goals."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench.report import number, render
from bench.wan.figures import median

Results = Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]
"""By case, then by relay: a result for each round."""

TOLERANCE = 0.05
"""What two runs of the same differ by."""
PING_FLOOR_MS = 2.0
"""Less than that nobody feels, and a busy machine makes it."""
LATE_SHARE = 0.01
"""Of the packets: with more of them late the link was not the one stated."""

HEAD = (
    "case",
    "relay",
    "goodput, Mbit/s",
    "ping idle, ms",
    "under load: p50",
    "p99",
    "lost, %",
    "dropped by the relay",
    "its CPU, s/GB",
    "machine busy",
)

Get = Callable[[Mapping[str, Any]], float | None]
FIGURES: Sequence[tuple[Get, float]] = (
    (lambda r: r["goodput_mbit"], 1),
    (lambda r: r["idle"]["p50_ms"], 1),
    (lambda r: r["loaded"]["p50_ms"], 1),
    (lambda r: r["loaded"]["p99_ms"], 1),
    (lambda r: r["loaded"]["lost_share"], 100),
    (lambda r: sum(r["relay_drops"].values()), 1),
    (lambda r: r["cpu_s_per_gb"], 1),
    (lambda r: r["machine_busy"], 100),
)


def rows(results: Results) -> list[tuple[str, ...]]:
    table: list[tuple[str, ...]] = [HEAD]
    for case, relays in results.items():
        for place, (relay, each) in enumerate(relays.items()):
            cells = [cell([get(r) for r in each], scale) for get, scale in FIGURES]
            cells[-1] += " %"
            table.append((case if place == 0 else "", relay, *cells))
    return table


def cell(values: Sequence[float | None], scale: float) -> str:
    """Return the median, and half of the range where there are several."""
    middle = median(values)
    if middle is None:
        return "∞"
    text = number(middle * scale)
    if len(values) == 1:
        return text
    if None in values:
        return f"{text} ±∞"
    known = [value for value in values if value is not None]
    return f"{text} ±{number((max(known) - min(known)) / 2 * scale)}"


def verdicts(results: Results, ours: str, older: str, theirs: str) -> list[str]:
    """Return a line for each goal and case in which it was missed, and one for each goal.

    The goals: goodput no less than `older` has it, and a ping under load no slower than with
    `theirs`, nor lost more often. A relay that was not measured is not compared with.
    """
    lines = []
    for other, what, fault in (
        (older, f"goodput at least as with {older}", slower),
        (theirs, f"ping under load no worse than with {theirs}", laggier),
    ):
        both = {
            case: (relays[ours], relays[other])
            for case, relays in results.items()
            if ours in relays and other in relays
        }
        if not both:
            continue
        missed = [
            f"{case}: {said}" for case, (one, two) in both.items() if (said := fault(one, two))
        ]
        lines.append(f"goal, {what}: met in {len(both) - len(missed)} of {len(both)} cases")
        lines += [f"MISSED, {what}: {line}" for line in missed]
    return lines


def slower(one: Sequence[Mapping[str, Any]], two: Sequence[Mapping[str, Any]]) -> str:
    got, wanted = (median([r["goodput_mbit"] for r in each]) for each in (one, two))
    if got is None or wanted is None or got >= wanted * (1 - TOLERANCE):
        return ""
    return f"{number(got)} against {number(wanted)} Mbit/s"


def laggier(one: Sequence[Mapping[str, Any]], two: Sequence[Mapping[str, Any]]) -> str:
    found = []
    for name, scale, unit, floor in (
        ("p50_ms", 1, "ms", PING_FLOOR_MS),
        ("p99_ms", 1, "ms", PING_FLOOR_MS),
        ("lost_share", 100, "%", 0.002),
    ):
        got, wanted = (median([r["loaded"][name] for r in each]) for each in (one, two))
        if wanted is None or (got is not None and got <= wanted * (1 + TOLERANCE) + floor):
            continue
        said = "lost" if got is None else f"{number(got * scale)} {unit}"
        found.append(f"{name.split('_')[0]} {said} against {number(wanted * scale)} {unit}")
    return ", ".join(found)


def doubts(results: Results) -> list[str]:
    """Return what forbids to trust a figure: emulator or machine had too much to do."""
    found = []
    for case, relays in results.items():
        for relay, each in relays.items():
            late = max(r["emulator"]["late_share"] for r in each)
            if late > LATE_SHARE:
                latest = max(r["emulator"]["latest_ms"] for r in each)
                found.append(
                    f"{case}, {relay}: {late:.1%} of the packets were late, the latest by"
                    f" {latest:.0f} ms: the link was not the one stated"
                )
            if refused := sum(r["emulator"]["refused"] for r in each):
                found.append(f"{case}, {relay}: the kernel did not take {refused} packets")
            if (busy := max(r["machine_busy"] for r in each)) > 0.95:
                found.append(
                    f"{case}, {relay}: the machine was {busy:.0%} busy: it was the limit, or others"
                )
    return found


def page(document: Mapping[str, Any]) -> str:
    """Return all as Markdown."""
    about, results = document["about"], document["results"]
    parts = [render(rows(results))]
    said = [*document["verdicts"], *document["failures"], *doubts(results)]
    if said:
        parts.append("\n".join(f"- {line}" for line in said))
    rounds = about["rounds"]
    what = "One round" if rounds == 1 else f"Medians of {rounds} rounds, ± half of the range"
    changed = f" with {about['changed_files']} changed files" if about["changed_files"] else ""
    commit = f"commit {about['commit'][:12]}{changed}"
    lines = [
        f"{what} of {about['seconds']:g} s a case; {about['date'][:10]}, {commit}.",
        f"Machine: {about['machine']}, Linux {about['kernel']}.",
        *(f"{name}: {version}." for name, version in about["relays"].items()),
    ]
    parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"
