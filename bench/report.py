"""From results to tables: one for whoever runs the benchmark, one for a page of the docs."""

import shlex
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from bench.loads import Figure, Load, Result

Results = Mapping[str, Mapping[str, Sequence[Result]]]
"""By load, then by relay ("theirs", "ours", "mirror"): a result for each round."""

RELAYS = {"theirs": "Go derper", "ours": "this relay"}
BEGIN, END = "<!-- bench -->", "<!-- /bench -->"
OF_ONE_MACHINE = ("--theirs", "--json")
"""Options that say where files are, and nothing about what was measured."""


def median_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Return the median, and half of the range from the lowest to the highest."""
    return statistics.median(values), (max(values) - min(values)) / 2


def number(value: float) -> str:
    if value == 0:
        return "0"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 0.1 else 4
    return f"{value:.{digits}f}"


def cell(figure: Figure, results: Sequence[Result]) -> str:
    if not results:
        return "-"
    median, spread = median_and_spread([figure.get(r) * figure.scale for r in results])
    text = number(median)
    return f"{text} ±{number(spread)}" if len(results) > 1 else text


def ratio(figure: Figure, theirs: Sequence[Result], ours: Sequence[Result]) -> float | None:
    """Return the median of the ratios ours : theirs of each round that both have a figure of."""
    base = {r["round"]: figure.get(r) for r in theirs if figure.get(r)}
    ratios = [figure.get(r) / base[r["round"]] for r in ours if r["round"] in base]
    return statistics.median(ratios) if ratios else None


def judge(figure: Figure, value: float | None, ours: Sequence[Result]) -> str:
    """Hold the ratio against the goal, or the median of ours against the limit."""
    goal, unit = figure.goal, ""
    if figure.limit is not None:
        goal, unit = figure.limit, f" {figure.unit}"
        value = statistics.median(figure.get(r) * figure.scale for r in ours) if ours else None
    if goal is None:
        return ""
    text = f"{'≥' if figure.more_is_better else '≤'} {goal:g}{unit}"
    if value is None:
        return text
    met = value >= goal if figure.more_is_better else value <= goal
    return f"{text} {'met' if met else 'MISSED'}"


def rows(chosen: Sequence[Load], results: Results) -> list[tuple[str, ...]]:
    head = ("load", "figure", "theirs", "ours", "ratio", "goal", "cores: theirs", "ours", "ceiling")
    table: list[tuple[str, ...]] = [head]
    for load in chosen:
        theirs = results.get(load.name, {}).get("theirs", ())
        ours = results.get(load.name, {}).get("ours", ())
        mirror = results.get(load.name, {}).get("mirror", ())
        if not theirs and not ours and not mirror:
            continue
        for place, figure in enumerate(load.figures):
            value = ratio(figure, theirs, ours) if theirs and ours else None
            table.append(
                (
                    load.title if place == 0 else "",
                    f"{figure.what}, {figure.unit}",
                    cell(figure, theirs),
                    cell(figure, ours),
                    "-" if value is None else f"{value:.2f}",
                    judge(figure, value, ours),
                    use(theirs) if place == 0 else "",
                    use(ours) if place == 0 else "",
                    cell(figure, mirror) if place == 0 and mirror else "",
                )
            )
    if all(not row[-1] for row in table[1:]):
        table = [row[:-1] for row in table]
    return table


def use(results: Sequence[Result]) -> str:
    """Return the shares of their cores that the server and the client used."""
    if not results:
        return "-"
    server = statistics.median(r["server_cpu"] for r in results)
    client = statistics.median(r["client_busy"] for r in results)
    return f"s {server:.0%} c {client:.0%}"


def disturbances(results: Results, limit: float) -> str:
    """List the loads during which other processes used more than `limit` of a core, and how much.

    That counts where the load had both cores to itself; one that leaves a core idle leaves it to
    others, too.
    """
    found = []
    for load, relays in results.items():
        for relay, each in relays.items():
            worst = max((r["others"] for r in each), default=0)
            if worst > limit:
                found.append(f"{load} {relay} {worst:.0%}")
    return ", ".join(found)


def render(table: Sequence[tuple[str, ...]]) -> str:
    """Return the table as Markdown, its columns aligned."""
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |"
        for row in table
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def into(page: str, document: Mapping[str, Any], loads: Sequence[Load]) -> str:
    """Put the results between the two marks of a Markdown page. Raises ValueError without them."""
    table = render(figures(loads, document["results"]))
    parts = [table, origin(document["about"])]
    if problems := [*document["failures"], *document["remarks"]]:
        parts.append("\n".join(f"- {problem}" for problem in problems))
    return between_marks(page, "\n\n".join(parts))


def between_marks(page: str, text: str, first: str = BEGIN, second: str = END) -> str:
    """Put a text between the two marks of a page. Raises ValueError without them."""
    before, after = around_marks(page, first, second)
    return f"{before}\n\n{text}\n\n{after}"


def around_marks(page: str, first: str = BEGIN, second: str = END) -> tuple[str, str]:
    """Return a page up to the first mark, and from the second. Raises ValueError without them."""
    begin, end = page.find(first), page.find(second)
    if not 0 <= begin < end:
        raise ValueError(f"want a line {first} and, below it, a line {second}")
    return page[:begin] + first, page[end:]


def figures(loads: Sequence[Load], results: Results) -> list[tuple[str, ...]]:
    """Return the rows of a page's table: less than `rows` has, for those who don't run this."""
    table: list[tuple[str, ...]] = [("load", "", *RELAYS.values(), "ratio")]
    for load in loads:
        theirs, ours = (results.get(load.name, {}).get(relay, ()) for relay in RELAYS)
        if not theirs and not ours:
            continue
        for place, figure in enumerate(load.figures):
            value = ratio(figure, theirs, ours)
            title = load.title if place == 0 else ""
            name = f"{figure.what}, {figure.unit}"
            times = "-" if value is None else f"{value:.2f}"
            table.append((title, name, cell(figure, theirs), cell(figure, ours), times))
    return table


def commit(about: Mapping[str, Any]) -> str:
    """Return the commit that was tried, and how far the tree was from it."""
    changed = about["changed_files"]
    return about["commit"][:12] + (f" with {changed} changed files" if changed else "")


def origin(about: Mapping[str, Any]) -> str:
    """Say what the figures were measured with, on what, and how to measure them again."""
    rounds = about["rounds"]
    what = "One round" if rounds == 1 else f"Medians of up to {rounds} rounds, ± half of the range"
    trio = f", Trio {about['trio']}" if "trio" in about else ""
    quick = " of the quick form" if about["quick"] else ""
    system = f"Linux {about['kernel']}, TCP {about['congestion_control']}"
    machine = f"{about['machine']}, {system}"
    lines = (
        f"{what}{quick}; {about['date'][:10]}, commit {commit(about)}.",
        f"This relay: {about.get('ours', 'not measured')}{trio}.",
        f"Go derper: {about.get('theirs', 'not measured')}.",
        f"Machine: {machine}; a core each, or both for both.",
        f"Made by `{about['command']}`.",
    )
    return "\n".join(lines)


def command(arguments: Sequence[str]) -> str:
    """Return the command that does the same anywhere: without what is of this machine alone."""
    kept: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument in OF_ONE_MACHINE:
            next(rest, None)
        elif not argument.startswith(tuple(f"{option}=" for option in OF_ONE_MACHINE)):
            kept.append(argument)
    return shlex.join(["python3", "noxfile.py", "-s", "bench", *(["--", *kept] if kept else [])])
