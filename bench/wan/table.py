"""From results to a table in Markdown, and to verdicts on the goals."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.report import commit, number, render
from bench.wan.figures import median

Rounds = Sequence[Mapping[str, Any]]
Results = Mapping[str, Mapping[str, Rounds]]
"""By case, then by relay: a result for each round."""

TOLERANCE = 0.05
"""What two runs of the same differ by."""
PING_FLOOR_MS = 2.0
"""Less than that nobody feels, and a busy machine makes it."""
LOST_FLOOR = 0.0025
"""One ping of four hundred."""
INFINITE = float("inf")
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
    """Return a line for each goal, and one for each case in which it was missed.

    The goals: goodput no less than `older` has it, and a ping under load no slower than with
    `theirs`, nor lost more often. A relay that was not measured is not compared with. Where the
    ranges of several rounds overlap, a worse median may be chance, and is said to be unclear.
    """
    lines = []
    for other, what, comparisons in (
        (older, f"goodput at least as with {older}", GOODPUT),
        (theirs, f"ping under load no worse than with {theirs}", PING),
    ):
        both = {
            case: (relays[ours], relays[other])
            for case, relays in results.items()
            if ours in relays and other in relays
        }
        if not both:
            continue
        found = [
            (case, comparison.judge(*pair))
            for case, pair in both.items()
            for comparison in comparisons
        ]
        worse = [(case, said) for case, said in found if said]
        met = len(both) - len({case for case, _ in worse})
        lines.append(f"goal, {what}: met in {met} of {len(both)} cases")
        lines += [f"{said}, {what}: {case}" for case, said in worse]
    return lines


@dataclass(frozen=True)
class Comparison:
    """One figure, ours beside another's; None is infinite."""

    what: str
    unit: str
    scale: float
    get: Get
    more_is_better: bool = False
    floor: float = 0.0
    """A difference that is not held against anybody, in the figure's own unit."""

    def judge(self, ours: Rounds, others: Rounds) -> str:
        """Return what is wrong; nothing if the goal is met."""
        mine, theirs = (self._values(each) for each in (ours, others))
        got, wanted = statistics.median(mine), statistics.median(theirs)
        limit = wanted * (1 - TOLERANCE) if self.more_is_better else wanted * (1 + TOLERANCE)
        if self.more_is_better:
            met, overlap = got >= limit, max(mine) >= min(theirs)
        else:
            met, overlap = got <= limit + self.floor, min(mine) <= max(theirs)
        if met:
            return ""
        unclear = overlap and len(mine) > 1 and len(theirs) > 1
        figures = " against ".join(
            "∞" if value == INFINITE else number(value * self.scale) for value in (got, wanted)
        )
        return f"{'unclear' if unclear else 'MISSED'} ({self.what} {figures} {self.unit})"

    def _values(self, each: Rounds) -> list[float]:
        got = (self.get(result) for result in each)
        return [INFINITE if value is None else value for value in got]


GOODPUT = (Comparison("goodput", "Mbit/s", 1, lambda r: r["goodput_mbit"], more_is_better=True),)
PING = (
    Comparison("p50", "ms", 1, lambda r: r["loaded"]["p50_ms"], floor=PING_FLOOR_MS),
    Comparison("p99", "ms", 1, lambda r: r["loaded"]["p99_ms"], floor=PING_FLOOR_MS),
    Comparison("lost", "%", 100, lambda r: r["loaded"]["lost_share"], floor=LOST_FLOOR),
)


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
    lines = [
        f"{what} of {about['seconds']:g} s a case; {about['date'][:10]}, commit {commit(about)}.",
        f"Machine: {about['machine']}, Linux {about['kernel']}.",
        *(f"{name}: {version}." for name, version in about["relays"].items()),
    ]
    buffer = about["buffer_ms"]
    has = "what its rate brings in" + (" a round trip" if buffer is None else f" {buffer:g} ms")
    lines.append(f"A link's buffer has {has}; losses are those of seed {about['seed']}.")
    parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"
