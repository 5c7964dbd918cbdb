"""Plots of how the cost of a packet grows, as SVG: both axes logarithmic, one line a relay."""

import math
import statistics
from collections.abc import Iterator, Sequence
from html import escape

from loads import Load
from report import Results, number

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 70, 110, 40, 50
RELAYS = (("theirs", "Go derper", "#888888"), ("ours", "this relay", "#1f6feb"))

Points = list[tuple[float, float]]


def sweeps(loads: Sequence[Load], results: Results) -> Iterator[tuple[str, str]]:
    """Draw each sweep that there are results of: a file name and its contents."""
    for sweep in dict.fromkeys(load.sweep for load in loads if load.sweep):
        lines: dict[str, Points] = {relay: [] for relay, _, _ in RELAYS}
        for load in loads:
            for relay, points in lines.items():
                each = results.get(load.name, {}).get(relay) if load.sweep == sweep else None
                if each:
                    points.append((load.at, statistics.median(r["cpu_each"] for r in each)))
        if any(lines.values()):
            yield f"growth-{sweep.split()[0]}.svg", draw(sweep, lines)


def draw(sweep: str, lines: dict[str, Points]) -> str:
    """Draw microseconds of CPU a packet over what grows."""
    xs = [x for points in lines.values() for x, _ in points]
    ys = [y for points in lines.values() for _, y in points]
    x_scale = Axis(min(xs), max(xs), LEFT, WIDTH - RIGHT)
    y_scale = Axis(min(ys) / 1.5, max(ys) * 1.5, HEIGHT - BOTTOM, TOP)
    box, font = f"0 0 {WIDTH} {HEIGHT}", 'font-family="sans-serif" font-size="12"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}" {font}>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="20" font-size="14">CPU for a packet, µs, by {escape(sweep)}</text>',
    ]
    for value in sorted(set(xs)):
        x = x_scale.place(value)
        parts.append(line([(x, TOP), (x, HEIGHT - BOTTOM)], "#eeeeee", 1))
        parts.append(text(x, HEIGHT - BOTTOM + 18, f"{value:g}", "middle"))
    for value in y_scale.ticks():
        y = y_scale.place(value)
        parts.append(line([(LEFT, y), (WIDTH - RIGHT, y)], "#eeeeee", 1))
        parts.append(text(LEFT - 8, y + 4, f"{value:g}", "end"))
    for row, (relay, label, colour) in enumerate(RELAYS):
        places = [(x_scale.place(x), y_scale.place(y)) for x, y in lines[relay]]
        if not places:
            continue
        parts.append(line(places, colour, 2))
        for (x, y), (_, value) in zip(places, lines[relay], strict=True):
            parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}">'
                f"<title>{number(value)} µs</title></circle>"
            )
        parts.append(text(WIDTH - RIGHT + 12, TOP + 12 + 18 * row, label, "start", colour))
    return "\n".join([*parts, "</svg>", ""])


class Axis:
    """A logarithmic axis from `low` at `start` to `high` at `end`."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self.low = low
        self.high = high if high > low else low * 2
        self.start = start
        self.end = end

    def place(self, value: float) -> float:
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        candidates = [step * 10.0**decade for decade in decades for step in (1, 2, 5)]
        return [value for value in candidates if self.low <= value <= self.high]


def line(points: Points, colour: str, width: int) -> str:
    places = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="{width}"/>'


def text(x: float, y: float, what: str, anchor: str, colour: str = "#333333") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">'
        f"{escape(what)}</text>"
    )
