"""The connected clients as a table of at most WIDTH columns. Sans-I/O.

A client is what the control socket says of it: the fields of ClientStatus, with the key as text.
"""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import attrs

from derp.quantities import rate_set, size
from derp.wire.control import missing_text

WIDTH: Final = 100
KEY_DIGITS: Final = 12
"""Digits of a key that are shown: enough to name it, as in `derper kick KEY`."""

Fields = Mapping[str, Any]

_MIN_ADDRESS: Final = 15
_MAX_LABEL: Final = 12
_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


@attrs.frozen
class Column:
    """A column; one in which no client has anything is left out."""

    head: str
    cells: Sequence[str]
    right: bool = False

    @property
    def width(self) -> int:
        """The columns of the terminal that it takes."""
        return max(map(columns_of, [self.head, *self.cells]))

    def lines(self) -> Iterable[str]:
        """Yield the head and the cells, all of the same width."""
        width = self.width
        for cell in (self.head, *self.cells):
            space = " " * (width - columns_of(cell))
            yield f"{space}{cell}" if self.right else f"{cell}{space}"


def as_table(clients: Sequence[Fields], silent: Sequence[int], now: float) -> Iterable[str]:
    """Yield the lines of a table, those that have moved most first; `now` is Unix time.

    The clients of the workers `silent` are missing, as the last line says.
    """
    missing = missing_text(silent)
    if not clients:
        yield f"{missing or 'no client is connected'}\n"
        return
    columns = [column for column in _columns(by_moved(clients), now) if any(column.cells)]
    others = sum(column.width for column in columns if column.head != "address")
    room = max(_MIN_ADDRESS, WIDTH - others - len(columns) + 1)
    shortened = [
        attrs.evolve(column, cells=[shorten(cell, room) for cell in column.cells])
        if column.head == "address"
        else column
        for column in columns
    ]
    for row in zip(*(column.lines() for column in shortened), strict=True):
        yield f"{shorten(' '.join(row).rstrip(), WIDTH)}\n"
    sent, received = (
        size(sum(client[name] for client in clients)) for name in ("sent", "received")
    )
    yield f"{how_many(clients)}, {sent} to them, {received} from them\n"
    if missing:
        yield f"{missing}\n"


def how_many(clients: Sequence[Fields]) -> str:
    """Return the number of clients, in words."""
    return "1 client" if len(clients) == 1 else f"{len(clients)} clients"


def by_moved(clients: Iterable[Fields]) -> list[Fields]:
    """Return the clients, those that have moved most bytes first."""
    return sorted(clients, key=lambda client: client["sent"] + client["received"], reverse=True)


def _columns(clients: Sequence[Fields], now: float) -> list[Column]:
    return [
        Column("key", [key_digits(client) for client in clients]),
        Column("label", [shorten(client["label"], _MAX_LABEL) for client in clients]),
        Column("address", [host(client) for client in clients]),
        Column("since", [duration(now - client["since"]) for client in clients], right=True),
        Column("sent", [size(client["sent"]) for client in clients], right=True),
        Column("received", [size(client["received"]) for client in clients], right=True),
        Column("queued", [queued(client) for client in clients], right=True),
        Column("limit", [limit(client) for client in clients], right=True),
        Column("", [notes(client) for client in clients]),
    ]


def key_digits(client: Fields) -> str:
    """Return the first digits of a client's key."""
    return str(client["key"]).removeprefix("nodekey:")[:KEY_DIGITS]


def host(client: Fields) -> str:
    """Return the address without its port."""
    return str(client["remote"]).rpartition(":")[0].strip("[]")


def queued(client: Fields) -> str:
    """Return what waits for a client; empty for nothing."""
    return size(client["queued_bytes"]) if client["queued_bytes"] else ""


def limit(client: Fields) -> str:
    """Return the rate limit; empty for none."""
    return "" if client["limit"] is None else rate_set(client["limit"])


def notes(client: Fields) -> str:
    """Return what else there is to say: whether it is at home here, connected twice and so on."""
    quota, used = client["quota"], client[f"used_{client['quota_period'] or 'day'}"]
    found = {
        "home": client["home"],
        "mesh": client["mesh"],
        "twice": client["duplicate"],
        "over quota": quota is not None and used is not None and used >= quota,
    }
    return ",".join(name for name, is_so in found.items() if is_so)


def duration(seconds: float) -> str:
    """Return a time in two units at most: `3d 4h`, `5m 7s`."""
    left = max(0, int(seconds))
    words: list[str] = []
    for length, unit in _UNITS:
        if left >= length or words:
            words.append(f"{left // length}{unit}")
            left %= length
    return " ".join(words[:2]) or "0s"


def shorten(text: str, width: int) -> str:
    """Return a text that takes no more than `width` columns of a terminal."""
    if columns_of(text) <= width:
        return text
    while columns_of(text) >= width:
        text = text[:-1]
    return f"{text}…"


def columns_of(text: str) -> int:
    """Return the columns of a terminal that a text takes: two for a Chinese character."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 1 + (unicodedata.east_asian_width(char) in "FW")
        for char in text
    )
