"""The screen of `derper top`: the clients with their rates, those that move most now first.

The caller takes the samples. Text goes to rich without markup: a label may have brackets.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from derp.cli.clienttable import (
    Fields,
    columns_of,
    duration,
    host,
    how_many,
    key_digits,
    limit,
    notes,
    queued,
)
from derp.quantities import rate, size
from derp.wire.control import missing_text

Rates = dict[str, tuple[float, float]]
"""Bytes a second to and from a client, by its `connection`."""

_HEADS: Final = (
    *("key", "label", "address", "since", "to it", "from it"),
    *("sent", "received", "queued", "dropped", "limit", "notes"),
)
_LEFT: Final = frozenset({"key", "label", "address", "notes"})
_LEAST: Final = ("dropped", "queued", "since", "sent", "received", "notes", "address", "limit")
"""What a narrow terminal does not show, the least first."""
_AROUND: Final = 5
"""Lines of the terminal besides those of clients."""


class TopView:
    """The clients of a relay, from one sample to the next."""

    def __init__(self) -> None:
        self._clients: Sequence[Fields] = ()
        self._rates: Rates = {}
        self._taken = 0.0
        self._trouble = "asking the relay"
        self._missing = ""

    def sampled(self, clients: Sequence[Fields], silent: Sequence[int], now: float) -> None:
        """Take a new sample, without the clients of the workers `silent`.

        `now` is in seconds of any clock.
        """
        seconds = now - self._taken
        before = {client["connection"]: client for client in self._clients}
        self._rates = {
            client["connection"]: _rates(before[client["connection"]], client, seconds)
            for client in clients
            if client["connection"] in before and seconds > 0
        }
        self._clients, self._taken, self._trouble = clients, now, ""
        self._missing = missing_text(silent)

    def failed(self, trouble: str) -> None:
        """Show that no sample could be taken, and why."""
        self._clients, self._rates, self._trouble = (), {}, trouble

    def render(self, width: int, height: int) -> RenderableType:
        """Return what fits a terminal of this size."""
        if self._trouble:
            return Group(self._head(), Text(self._trouble))
        room = max(1, height - _AROUND)
        clients = sorted(self._clients, key=self._order)
        rows = [self._row(client) for client in clients[:room]]
        table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
        columns = _fitting(rows, width)
        for head in columns:
            table.add_column(head, justify="left" if head in _LEFT else "right", no_wrap=True)
        for cells in zip(*columns.values(), strict=True):
            table.add_row(*map(Text, cells))
        more = len(clients) - len(rows)
        rest = [f"and {more} more" if more else "", self._missing]
        return Group(self._head(), Text(), table, Text("; ".join(filter(None, rest))))

    def _head(self) -> Text:
        to, fro = (sum(pair[which] for pair in self._rates.values()) for which in (0, 1))
        clients = how_many(self._clients)
        head = f"derper: {clients}, {rate(to)} to them, {rate(fro)} from them; q ends this"
        return Text(head, no_wrap=True, overflow="ellipsis")

    def _order(self, client: Fields) -> tuple[float, float]:
        moved = client["sent"] + client["received"]
        return -sum(self._rates.get(client["connection"], (0.0, 0.0))), -moved

    def _row(self, client: Fields) -> tuple[str, ...]:
        known = self._rates.get(client["connection"])
        return (
            key_digits(client),
            client["label"],
            host(client),
            duration(time.time() - client["since"]),
            "…" if known is None else rate(known[0]),
            "…" if known is None else rate(known[1]),
            size(client["sent"]),
            size(client["received"]),
            queued(client),
            str(client["packets_dropped"] or ""),
            limit(client),
            notes(client),
        )


def _fitting(rows: Sequence[Sequence[str]], width: int) -> Mapping[str, Sequence[str]]:
    """Return the columns by head, without those that are empty or for which there is no room."""
    cells = zip(*rows, strict=True) if rows else [()] * len(_HEADS)
    columns = {head: column for head, column in zip(_HEADS, cells, strict=True) if any(column)}
    for head in _LEAST:
        if (
            sum(max(map(columns_of, [head, *column])) + 1 for head, column in columns.items())
            <= width
        ):
            break
        columns.pop(head, None)
    return columns


def _rates(before: Fields, now: Fields, seconds: float) -> tuple[float, float]:
    """Return the bytes a second to and from a client."""
    to, fro = (max(0, now[name] - before[name]) / seconds for name in ("sent", "received"))
    return to, fro
