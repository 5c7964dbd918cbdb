"""The output of `derper accounts`: the accounts as a table, as CSV or as JSON lines. Sans-I/O.

CSV and JSON have bytes and whole seconds; the table has them rounded, for people.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from typing import Final

from derp.accounts.counts import OTHER, Counts
from derp.quantities import size
from derp.wire.keys import node_public_text

OTHER_TEXT: Final = "other"
"""How OTHER is printed."""
NUMBERS: Final = ("sent", "received", "packets_sent", "packets_received", "seconds")

Row = tuple[str | bytes, Counts]
"""A period or key, and what was moved."""


def as_csv(rows: Iterable[Row], by: str) -> Iterator[str]:
    """Yield the lines of a CSV file (RFC 4180, but with bare line feeds)."""
    for values in [(by, *NUMBERS)], (_values(name, counts) for name, counts in rows):
        for line in values:
            out = io.StringIO()
            csv.writer(out, lineterminator="\n").writerow(line)
            yield out.getvalue()


def as_json(rows: Iterable[Row], by: str) -> Iterator[str]:
    """Yield a JSON object for each row, one a line."""
    for name, counts in rows:
        fields = dict(zip((by, *NUMBERS), _values(name, counts), strict=True))
        yield f"{json.dumps(fields)}\n"


def as_table(rows: Iterable[Row], by: str) -> Iterator[str]:
    """Yield the lines of a table, with the sum of all rows at the end."""
    width = 72 if by == "key" else 10
    heads = ("sent", "received", "packets", "packets", "connected")
    yield _line(width, by, *heads)
    yield _line(width, "", "to it", "from it", "to it", "from it", "hours")
    total = Counts()
    for name, counts in rows:
        yield _table_row(width, _text(name), counts)
        total = total.plus(counts)
    yield _table_row(width, "all", total)


def _table_row(width: int, name: str, counts: Counts) -> str:
    return _line(
        width,
        name,
        size(counts.sent),
        size(counts.received),
        f"{counts.packets_sent}",
        f"{counts.packets_received}",
        f"{counts.milliseconds / 3_600_000:.1f}",
    )


def _line(width: int, name: str, *cells: str) -> str:
    return f"{name:{width}}{''.join(f'{cell:>14}' for cell in cells)}\n"


def _values(name: str | bytes, counts: Counts) -> tuple[str | int, ...]:
    *moved, milliseconds = counts
    return _text(name), *moved, round(milliseconds / 1000)


def _text(name: str | bytes) -> str:
    if isinstance(name, str):
        return name
    return OTHER_TEXT if name == OTHER else node_public_text(name)
