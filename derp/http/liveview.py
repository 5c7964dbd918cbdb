"""The view of a relay at one moment on the live page: texts, and points of charts. Sans-I/O.

Texts are made here only, so that the page and the events that change it agree.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import attrs

from derp.metrics.history import SPANS, Past
from derp.quantities import rate, size
from derp.wire.control import missing_text

MAX_ROWS: Final = 500
"""Clients that are shown; of more, the first in the order that was asked for."""
SORTED_PER_STEP: Final = 500
CHART_HEIGHT: Final = 100
CHART_STEP: Final = 10
"""The width of a chart's step, in the units of its points."""


class StatusRow(NamedTuple):
    """A line about the relay."""

    name: str
    value: str
    section: str = "Relay"
    """One of SECTIONS."""


class Column(NamedTuple):
    """A column of the table of clients."""

    title: str
    is_number: bool = False


COLUMNS: Final = (
    Column("Client"),
    Column("Address"),
    Column("Connected (UTC)"),
    Column("From client", is_number=True),
    Column("To client", is_number=True),
    Column("Waiting", is_number=True),
)

Cell = tuple[str, str]
"""The text of a cell, and a second line of it, which may be empty."""


@attrs.frozen(kw_only=True)
class ClientRow:
    """A connected client that is shown."""

    id: str
    """Distinguishes the connections of a relay, those that have ended included."""
    key: str
    """`nodekey:` and 64 hex digits."""
    cells: Sequence[Cell]
    """One for each of COLUMNS."""


class SortKeys(NamedTuple):
    """The keys by which a client is sorted in the table: made for each client, shown or not."""

    number: int
    """Its place among the clients of the sample, from 0."""
    connection: str
    """Distinguishes the connections of a relay."""
    name: str
    """The label, or a short form of the key."""
    total: int
    """Bytes from the client and to it."""
    rate: float
    """The same in a second, now."""
    since: int
    """Unix time of its login."""


SORTS: Final[Mapping[str, Callable[[SortKeys], Any]]] = {
    "total": lambda one: (-one.total, one.connection),
    "now": lambda one: (-one.rate, -one.total, one.connection),
    "name": lambda one: (one.name.casefold(), one.connection),
    "newest": lambda one: (-one.since, one.connection),
}
"""The orders of the clients, by the words in which the page's query asks for them."""
DEFAULT_SORT: Final = "total"

SECTIONS: Final = ("Relay", "Workers", "Mesh", "Certificates", "Admission", "Refused keys")
"""The sections of StatusRows, in the order of the page."""


class Tile(NamedTuple):
    """A figure at the top of the page; `id` is that of its element."""

    id: str
    title: str


TILES: Final = (
    Tile("clients", "Clients"),
    Tile("from", "From clients"),
    Tile("to", "To clients"),
    Tile("waiting", "Waiting for clients"),
)


@attrs.frozen(kw_only=True)
class View:
    """A relay at one moment."""

    texts: Mapping[str, str]
    """By the ids of the elements that show them."""
    points: Mapping[str, str]
    """Those of the charts' lines, as in SVG, by the ids of the lines."""
    rows: Mapping[str, Sequence[ClientRow]]
    """The rows of the table, at most MAX_ROWS, in each of SORTS."""
    status: Mapping[str, Sequence[tuple[str, str]]]
    """Names and values, by section."""


def first_of(clients: Sequence[SortKeys], sort: str) -> Iterator[list[SortKeys]]:
    """Yield the first MAX_ROWS of more and more clients, at last of all, in the order `sort`.

    Each step takes SORTED_PER_STEP clients more, so that it is short.
    """
    first: list[SortKeys] = []
    for start in range(0, len(clients) or 1, SORTED_PER_STEP):
        some = clients[start : start + SORTED_PER_STEP]
        first = sorted([*first, *some], key=SORTS[sort])[:MAX_ROWS]
        yield first


def make_view(
    rows: Mapping[str, Sequence[ClientRow]],
    *,
    count: int,
    at_home: int,
    waiting: int,
    silent: Sequence[int] = (),
    pasts: Sequence[Past],
    status: Sequence[StatusRow],
) -> View:
    """Return the view of a relay with `count` clients; `rows` as in View.

    `waiting` are bytes, `silent` the workers whose clients are missing, `pasts` those of SPANS.
    """
    received, sent = pasts[0].rates[-1] if pasts[0].rates else (0, 0)
    shown = f"{MAX_ROWS} of {count:,} are shown" if count > MAX_ROWS else ""
    texts = {
        "clients": f"{count:,}{'+' if silent else ''}",
        "home": f"{at_home:,} at home here" if count else "",
        "from": rate(received),
        "to": rate(sent),
        "waiting": size(waiting),
        "shown": "; ".join(filter(None, [shown, missing_text(silent)])),
    }
    points = {}
    for span, past in zip(SPANS, pasts, strict=True):
        peak = max((max(rates) for rates in past.rates), default=0)
        texts[f"{span.name}-peak"] = f"up to {rate(peak)}" if past.rates else "nothing yet"
        line = [rates[0] for rates in past.rates]
        points[f"{span.name}-from"] = " ".join(_points(line, peak, span.steps))
        area = _points([rates[1] for rates in past.rates], peak, span.steps)
        points[f"{span.name}-to"] = " ".join(_closed(area))
    sections: dict[str, list[tuple[str, str]]] = {name: [] for name in SECTIONS}
    for row in status:
        sections[row.section].append((row.name, row.value))
    return View(texts=texts, points=points, rows=rows, status=sections)


def chart_width(steps: int) -> int:
    """Return the width of a chart, in the units of its points."""
    return CHART_STEP * steps


def _points(values: Sequence[int], peak: int, steps: int) -> list[str]:
    """Return a chart's points; the last value is at the right edge, `peak` at the top.

    Each value is at the end of its step; the first one is at its beginning, too.
    """
    first, scale = steps - len(values), max(1, peak)
    return [
        f"{CHART_STEP * number},{CHART_HEIGHT - CHART_HEIGHT * value // scale}"
        for number, value in enumerate([*values[:1], *values], first)
    ]


def _closed(points: Sequence[str]) -> list[str]:
    """Return the points of the area below a line."""
    if not points:
        return []
    begin, end = (points[at].partition(",")[0] for at in (0, -1))
    return [f"{begin},{CHART_HEIGHT}", *points, f"{end},{CHART_HEIGHT}"]


def age_text(seconds: float) -> str:
    """Return a time as "5 min", "3 h 10 min", "2 d 3 h"."""
    minutes = int(max(0, seconds) // 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"
