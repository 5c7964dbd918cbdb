"""Plots of how the cost of a packet grows, as SVG: both axes logarithmic, one line a relay.

They are to be read in a browser in light and dark mode, in print without colours (the lines
differ in dashes and marks too), by those who see colours otherwise (blue and vermilion of Okabe
and Ito), and, by title and description, by those who see nothing.
"""

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from bench.loads import Load
from bench.report import RELAYS, Results, number

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 70, 32, 76, 62
ENOUGH_TICKS = 4

STYLE = """
svg { font: 13px sans-serif }
.paper { fill: #ffffff }
text { fill: #24292f }
.title { font-size: 16px; font-weight: bold }
.grid { stroke: #d8dee4; fill: none }
.curve { stroke-width: 2; fill: none }
.theirs .curve { stroke-dasharray: 7 4 }
.theirs * { stroke: #d55e00 } .theirs .mark { fill: #d55e00 }
.ours * { stroke: #0072b2 } .ours .mark { fill: #0072b2 }
.theirs text, .ours text { stroke: none }
@media (prefers-color-scheme: dark) {
  .paper { fill: #0d1117 }
  text { fill: #e6edf3 }
  .grid { stroke: #30363d }
  .theirs * { stroke: #ff9d4d } .theirs .mark { fill: #ff9d4d }
  .ours * { stroke: #56b4e9 } .ours .mark { fill: #56b4e9 }
  .theirs text, .ours text { stroke: none }
}
"""


@dataclass(frozen=True)
class Point:
    """The cost at one place: the median of the rounds, the lowest and the highest."""

    at: float
    cost: float
    low: float
    high: float


Lines = dict[str, list[Point]]
"""By relay."""


def sweeps(loads: Sequence[Load], results: Results) -> Iterator[tuple[str, str]]:
    """Draw each sweep that there are results of: a file name and its contents."""
    for sweep in dict.fromkeys(load.sweep for load in loads if load.sweep):
        lines: Lines = {relay: [] for relay in RELAYS}
        for load in loads:
            for relay, points in lines.items():
                each = results.get(load.name, {}).get(relay) if load.sweep == sweep else None
                if each:
                    costs = [result["cpu_each"] for result in each]
                    median = statistics.median(costs)
                    points.append(Point(load.at, median, min(costs), max(costs)))
        if any(lines.values()):
            yield f"growth-{sweep.split()[0]}.svg", draw(sweep, lines)


def draw(sweep: str, lines: Lines) -> str:
    """Draw microseconds of CPU a packet over what grows."""
    points = [point for line in lines.values() for point in line]
    x_scale = Axis(min(p.at for p in points), max(p.at for p in points), LEFT + 20, WIDTH - RIGHT)
    low, high = min(p.low for p in points), max(p.high for p in points)
    y_scale = Axis(low / 1.5, high * 1.5, HEIGHT - BOTTOM, TOP)
    title = f"CPU time for a packet, by {sweep}"
    attributes = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    across, down = (LEFT + WIDTH - RIGHT) / 2, (TOP + HEIGHT - BOTTOM) / 2
    turned = f'transform="translate(20 {down}) rotate(-90)" text-anchor="middle"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {attributes} role="img" aria-labelledby="t d">',
        f'<title id="t">{escape(title)}</title>',
        f'<desc id="d">{escape(describe(lines))}</desc>',
        f"<style>{STYLE}</style>",
        f'<rect class="paper" width="{WIDTH}" height="{HEIGHT}" rx="6"/>',
        f'<text class="title" x="{LEFT}" y="28">{escape(title)}</text>',
        text(across, HEIGHT - 16, f"{sweep} (logarithmic)", "middle"),
        f"<text {turned}>µs a packet (logarithmic)</text>",
    ]
    for value in sorted({point.at for point in points}):
        x = x_scale.place(value)
        parts.append(stroke("grid", (x, TOP), (x, HEIGHT - BOTTOM)))
        parts.append(text(x, HEIGHT - BOTTOM + 20, f"{value:,.0f}", "middle"))
    for value in y_scale.ticks():
        y = y_scale.place(value)
        parts.append(stroke("grid", (LEFT, y), (WIDTH - RIGHT, y)))
        parts.append(text(LEFT - 8, y + 4, f"{value:g}", "end"))
    for row, (relay, line) in enumerate(lines.items()):
        parts.append(f'<g class="{relay}">')
        parts += key(relay, LEFT + 150 * row)
        parts += curve(relay, line, x_scale, y_scale)
        parts.append("</g>")
    return "\n".join([*parts, "</svg>", ""])


def key(relay: str, x: float) -> list[str]:
    y = 52.0
    label = text(x + 48, y + 4, RELAYS[relay], "start")
    return [stroke("curve", (x, y), (x + 40, y)), mark(relay, x + 20, y), label]


def curve(relay: str, line: Sequence[Point], x_scale: "Axis", y_scale: "Axis") -> list[str]:
    """Draw the medians, joined, and for each the range of the rounds."""
    parts = [stroke("curve", *((x_scale.place(p.at), y_scale.place(p.cost)) for p in line))]
    for point in line:
        x, y = x_scale.place(point.at), y_scale.place(point.cost)
        if point.low < point.high:
            ends = ((x, y_scale.place(point.low)), (x, y_scale.place(point.high)))
            parts.append(stroke("range", *ends))
        parts.append(
            mark(relay, x, y, f"{RELAYS[relay]}, {point.at:,.0f}: {number(point.cost)} µs")
        )
    return parts


def describe(lines: Lines) -> str:
    """Say in words what the drawing shows."""
    return "; ".join(
        f"{RELAYS[relay]}: " + ", ".join(f"{number(p.cost)} µs at {p.at:,.0f}" for p in line)
        for relay, line in lines.items()
        if line
    )


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
        """Return round numbers; finer ones where there would be too few to read a value."""
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        found: list[float] = []
        for steps in ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7)):
            candidates = [step * 10.0**decade for decade in decades for step in steps]
            found = [value for value in candidates if self.low <= value <= self.high]
            if len(found) >= ENOUGH_TICKS:
                break
        return found


def stroke(kind: str, *places: tuple[float, float]) -> str:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    return f'<polyline class="{kind}" points="{points}"/>'


def mark(relay: str, x: float, y: float, what: str = "") -> str:
    """Return a square for theirs, a circle for ours, with a text for whoever points at it."""
    title = f"<title>{escape(what)}</title>" if what else ""
    if relay == "theirs":
        place = f'x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8"'
        return f'<rect class="mark" {place}>{title}</rect>'
    return f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="4.5">{title}</circle>'


def text(x: float, y: float, what: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(what)}</text>'
