"""The page at /debug/, for browsers and for tools. Sans-I/O.

Tools look for the rows of the relay's status, `<li><b>Name:</b> value</li>`, and for links to the
other pages, as in the Go derper.
"""

from collections.abc import Iterator
from typing import Final

import attrs

from derp.http.assets import PAGE
from derp.http.liveview import (
    CHART_HEIGHT,
    COLUMNS,
    SECTIONS,
    SORTS,
    TILES,
    ClientRow,
    View,
    chart_width,
)
from derp.http.pages import escape
from derp.metrics.history import SPANS

UNSTEERED: Final = (
    "The relay has no -admin-token-file, so nobody can disconnect, deny or allow clients here."
)
ROWS_PER_PIECE: Final = 100
"""So that no piece of the page takes long to make."""

_ROWS: Final = "<!-- rows -->\n"
_TOOL_PAGES: Final = (
    ("/debug/vars", "metrics, as JSON"),
    ("/debug/varz", "metrics, in the Prometheus text format"),
    ("/debug/check", "whether the relay's tables agree with each other"),
    ("/debug/traffic", "clients with traffic, every two seconds"),
)
_EMPTY_ROW: Final = ClientRow(id="", key="", cells=[("", "")] * len(COLUMNS))


@attrs.frozen(kw_only=True)
class PageOptions:
    """The form of the page that a request asks for."""

    hostname: str
    sort: str
    """One of SORTS."""
    query: str = ""
    """The query to ask for the page's other files with: that of the debug key, or empty."""
    locked: str = UNSTEERED
    """Why nobody can steer clients on this page; empty if the operator's token can."""


def pieces(view: View, options: PageOptions) -> Iterator[str]:
    """Yield the page, in pieces."""
    key = escape(f"?{options.query}" if options.query else "")
    head, _, tail = PAGE.substitute(
        hostname=escape(options.hostname),
        key=key,
        buttons="no" if options.locked else "yes",
        locked=escape(options.locked),
        tiles="".join(_tile(tile.id, tile.title, view) for tile in TILES),
        charts="".join(_chart(span.name, span.steps, view) for span in SPANS),
        sorts=" ".join(_sort_link(name, options) for name in SORTS),
        shown=escape(view.texts["shown"]),
        heads="".join(_head(column.title, column.is_number) for column in COLUMNS),
        row=_row(_EMPTY_ROW).strip(),
        status="".join(_section(name, view) for name in SECTIONS),
        links="".join(
            f'<li><a href="{path}{key}">{path}</a> ({escape(text)})</li>\n'
            for path, text in _TOOL_PAGES
        ),
    ).partition(_ROWS)
    yield head
    rows = view.rows[options.sort]
    for start in range(0, len(rows), ROWS_PER_PIECE):
        yield "".join(map(_row, rows[start : start + ROWS_PER_PIECE]))
    yield tail


def _tile(name: str, title: str, view: View) -> str:
    return (
        f'<div><dt>{escape(title)}</dt><dd id="{name}">{escape(view.texts[name])}</dd>'
        f"{_home(view) if name == 'clients' else ''}</div>\n"
    )


def _home(view: View) -> str:
    return f'<dd id="home">{escape(view.texts["home"])}</dd>'


def _chart(name: str, steps: int, view: View) -> str:
    return (
        f"<figure><figcaption>Last {name} "
        f'<span id="{name}-peak">{escape(view.texts[f"{name}-peak"])}</span></figcaption>\n'
        f'<svg viewBox="0 -2 {chart_width(steps)} {CHART_HEIGHT + 2}" preserveAspectRatio="none" '
        f'role="img" aria-label="Traffic of the last {name}">'
        f'<polygon id="{name}-to" points="{view.points[f"{name}-to"]}"/>'
        f'<polyline id="{name}-from" points="{view.points[f"{name}-from"]}"/></svg></figure>\n'
    )


def _sort_link(name: str, options: PageOptions) -> str:
    query = "&".join(filter(None, [f"sort={name}", options.query]))
    current = ' aria-current="true"' if name == options.sort else ""
    return f'<a href="/debug/?{escape(query)}"{current}>{name}</a>'


def _head(title: str, is_number: bool) -> str:
    return f"<th{_class(is_number)}>{escape(title)}</th>"


def _row(row: ClientRow) -> str:
    cells = "".join(
        f'<td{_class(column.is_number)} data-title="{escape(column.title)}">'
        f"<span>{escape(main)}</span><small>{escape(more)}</small></td>"
        for column, (main, more) in zip(COLUMNS, row.cells, strict=True)
    )
    return f'<tr data-id="{escape(row.id)}" data-key="{escape(row.key)}">{cells}<td></td></tr>\n'


def _class(is_number: bool) -> str:
    return ' class="number"' if is_number else ""


def _section(name: str, view: View) -> str:
    rows = view.status[name]
    lines = "".join(f"<li><b>{escape(each)}:</b> {escape(value)}</li>\n" for each, value in rows)
    hidden = "" if rows else " hidden"
    return (
        f'<section data-name="{escape(name)}"{hidden}><h2>{escape(name)}</h2>\n'
        f"<ul>\n{lines}</ul>\n</section>\n"
    )
