"""From results to a table."""

import statistics
from collections.abc import Mapping, Sequence

from loads import Figure, Load, Result

Results = Mapping[str, Mapping[str, Sequence[Result]]]
"""By load, then by relay ("theirs", "ours"): a result for each round."""


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
    """Return the median of the ratios ours : theirs of each round."""
    pairs = [
        (figure.get(o), figure.get(t)) for t, o in zip(theirs, ours, strict=False) if figure.get(t)
    ]
    return statistics.median(o / t for o, t in pairs) if pairs else None


def judge(figure: Figure, value: float | None) -> str:
    if figure.goal is None:
        return ""
    sign = "≥" if figure.more_is_better else "≤"
    if value is None:
        return f"{sign} {figure.goal}"
    met = value >= figure.goal if figure.more_is_better else value <= figure.goal
    return f"{sign} {figure.goal} {'met' if met else 'MISSED'}"


def rows(loads: Sequence[Load], results: Results) -> list[tuple[str, ...]]:
    table = [("load", "figure", "theirs", "ours", "ratio", "goal", "core use, theirs / ours")]
    for load in loads:
        theirs = results.get(load.name, {}).get("theirs", ())
        ours = results.get(load.name, {}).get("ours", ())
        if not theirs and not ours:
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
                    judge(figure, value),
                    f"{use(theirs)} / {use(ours)}" if place == 0 else "",
                )
            )
    return table


def use(results: Sequence[Result]) -> str:
    """Return the shares of their cores that the server and the client used."""
    if not results:
        return "-"
    server = statistics.median(r["server_cpu"] for r in results)
    client = statistics.median(r["client_busy"] for r in results)
    return f"s {server:.0%} c {client:.0%}"


def render(table: Sequence[tuple[str, ...]]) -> str:
    """Return the table as Markdown, its columns aligned."""
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |"
        for row in table
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)
