"""Plots of what people feel, as SVG: a row for each case, in it a mark for each relay.

To be read as those of bench/plot.py are, whose style and axis these have.
"""

from collections.abc import Iterator, Mapping, Sequence
from html import escape

from bench import plot
from bench.plot import Axis, stroke, text
from bench.report import number
from bench.wan.figures import median
from bench.wan.table import Get, Results

WIDTH, ROW = 860, 20
LEFT, RIGHT, TOP, BOTTOM = 290, 30, 76, 44
STYLES = ("ours", "theirs", "third")
"""Of the first relay, the second, and all others."""
MORE_STYLE = """
.third .mark { fill: #57606a }
@media (prefers-color-scheme: dark) { .third .mark { fill: #9aa4ae } }
"""

FIGURES: Mapping[str, tuple[str, str, Get]] = {
    "wan-goodput.svg": ("Goodput", "Mbit/s", lambda r: r["goodput_mbit"]),
    "wan-ping.svg": ("Ping under load, 99th percentile", "ms", lambda r: r["loaded"]["p99_ms"]),
}

Rows = dict[str, dict[str, float]]
"""By case, then by relay: the median; what is infinite is not there."""


def drawings(results: Results) -> Iterator[tuple[str, str]]:
    """Draw each figure that there are results of: a file name and its contents."""
    for name, (title, unit, get) in FIGURES.items():
        rows: Rows = {}
        for case, relays in results.items():
            middles = {relay: median([get(r) for r in each]) for relay, each in relays.items()}
            known = {relay: value for relay, value in middles.items() if value}
            if known:
                rows[case] = known
        if rows:
            yield name, draw(title, unit, rows)


def draw(title: str, unit: str, rows: Rows) -> str:
    values = [value for row in rows.values() for value in row.values()]
    relays = list(dict.fromkeys(relay for row in rows.values() for relay in row))
    axis = Axis(min(values) / 1.2, max(values) * 1.2, LEFT, WIDTH - RIGHT)
    bottom = TOP + ROW * len(rows)
    height = bottom + BOTTOM
    attributes = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {attributes} role="img" aria-labelledby="t d">',
        f'<title id="t">{escape(title)}</title>',
        f'<desc id="d">{escape(describe(unit, rows))}</desc>',
        f"<style>{plot.STYLE}{MORE_STYLE}</style>",
        f'<rect class="paper" width="{WIDTH}" height="{height}" rx="6"/>',
        f'<text class="title" x="20" y="28">{escape(title)}</text>',
        text((LEFT + WIDTH - RIGHT) / 2, height - 8, f"{unit} (logarithmic)", "middle"),
    ]
    for value in axis.ticks():
        x = axis.place(value)
        parts.append(stroke("grid", (x, TOP), (x, bottom)))
        parts.append(text(x, bottom + 18, f"{value:g}", "middle"))
    for place, case in enumerate(rows):
        y = TOP + ROW * (place + 0.5)
        parts.append(stroke("grid", (LEFT, y), (WIDTH - RIGHT, y)))
        parts.append(text(LEFT - 10, y + 4, case, "end"))
    for place, relay in enumerate(relays):
        style = STYLES[min(place, len(STYLES) - 1)]
        parts.append(f'<g class="{style}">')
        parts += [mark(style, 26 + 150 * place, 50), text(38 + 150 * place, 54, relay, "start")]
        for line, (case, row) in enumerate(rows.items()):
            if relay in row:
                what = f"{relay}, {case}: {number(row[relay])} {unit}"
                parts.append(mark(style, axis.place(row[relay]), TOP + ROW * (line + 0.5), what))
        parts.append("</g>")
    return "\n".join([*parts, "</svg>", ""])


def mark(style: str, x: float, y: float, what: str = "") -> str:
    """Return bench/plot.py's mark, or a diamond for whoever is neither of its two."""
    if style != "third":
        return plot.mark(style, x, y, what)
    corners: Sequence[tuple[float, float]] = ((x, y - 6), (x + 6, y), (x, y + 6), (x - 6, y))
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in corners)
    title = f"<title>{escape(what)}</title>" if what else ""
    return f'<polygon class="mark" points="{points}">{title}</polygon>'


def describe(unit: str, rows: Rows) -> str:
    """Say in words what the drawing shows."""
    return "; ".join(
        f"{case}: " + ", ".join(f"{relay} {number(value)} {unit}" for relay, value in row.items())
        for case, row in rows.items()
    )
