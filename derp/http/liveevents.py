"""The changes of the live page, as server-sent events (the WHATWG's HTML standard, 9.2).

    data: {"texts": {id: text}, "points": {id: points}, "status": {section: [[name, value]]},
           "rows": [[id, key, cells]], "order": [id]}

Each part is left out where nothing has changed. `order` has the ids of all rows. Sans-I/O.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from derp.http.liveview import Cell, View

ROWS_PER_EVENT: Final = 100
"""So that no event takes long to make."""
NOTHING: Final = b":\n\n"
"""A comment: the browser ignores it, and a disconnect is noticed."""
RETRY: Final = b"retry: 3000\n\n"
"""Milliseconds after which the browser connects again."""


class Viewer:
    """One viewer of the page, and what was sent to it."""

    def __init__(self, sort: str) -> None:
        """`sort` is one of SORTS."""
        self._sort = sort
        self._texts: Mapping[str, str] = {}
        self._points: Mapping[str, str] = {}
        self._status: Mapping[str, Sequence[tuple[str, str]]] = {}
        self._cells: dict[str, Sequence[Cell]] = {}
        """By the ids of the rows."""
        self._order: list[str] = []

    def events(self, view: View) -> Iterator[bytes]:
        """Yield what has changed since the last call, as one event or more; or else NOTHING."""
        message: dict[str, Any] = {
            "texts": _changed(self._texts, view.texts),
            "points": _changed(self._points, view.points),
            "status": _changed(self._status, view.status),
        }
        self._texts, self._points, self._status = view.texts, view.points, view.status
        rows = view.rows[self._sort]
        changed = [row for row in rows if self._cells.get(row.id) != row.cells]
        self._cells = {row.id: row.cells for row in rows}
        order = [row.id for row in rows]
        # Last, once all rows have been sent.
        last = {"order": order} if order != self._order else {}
        self._order = order
        for start in range(0, len(changed), ROWS_PER_EVENT):
            some = changed[start : start + ROWS_PER_EVENT]
            message["rows"] = [(row.id, row.key, row.cells) for row in some]
            if start + ROWS_PER_EVENT < len(changed):
                yield _event(message)
                message = {}
        yield _event(message | last)


def busy(reason: str) -> bytes:
    """Return the event that says why there are no others; `reason` is one line."""
    return b"event: busy\ndata: " + reason.encode() + b"\n\n"


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in now.items() if before.get(name) != value}


def _event(message: Mapping[str, Any]) -> bytes:
    kept = {name: value for name, value in message.items() if value}
    if not kept and "order" not in message:
        return NOTHING
    if "order" in message:
        kept["order"] = message["order"]
    return b"data: " + json.dumps(kept, separators=(",", ":")).encode() + b"\n\n"
