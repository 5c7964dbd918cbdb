"""The command `derper accounts`, which prints who has moved how much.

It reads the accounts file itself, and so also that of a relay that runs: at most FLUSH_EVERY behind
it.
"""

import contextlib
import re
import sqlite3
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date
from itertools import chain, islice
from pathlib import Path
from typing import Final

from derp.accounts import database, file, report
from derp.cli import command_flags
from derp.config.goflags import BOOL, Flag, Kind
from derp.errors import AccountsFailed, StartError, UsageError

_INTRODUCTION = """\
Usage: derper accounts [flags]

Prints what each node key has moved, in UTC days, out of the file of -accounts;
in a container, by default of the relay that runs there.
The exit code is 0, or 1 if there is no such file or it can't be read, and 2 for
a wrong flag.\
"""

Write = Callable[[Iterable[report.Row], str], Iterator[str]]

_GROUP: Final = "Output"
_WAYS: Final = ("key", "day", "month")


def _by(text: str) -> str:
    if text not in _WAYS:
        raise ValueError("want day, month or key")
    return text


def _since(text: str) -> str:
    if not text:
        return ""
    with contextlib.suppress(ValueError):
        if re.fullmatch(r"\d{4}-\d\d(-\d\d)?", text, re.ASCII):
            date.fromisoformat(text if len(text) > 7 else f"{text}-01")
            return text
    raise ValueError("want a day such as 2026-11-30, or a month such as 2026-11")


_OWN: Final = (
    Flag(
        name="since",
        kind=Kind("DATE", _since),
        group=_GROUP,
        default_words="all",
        usage="Print what was moved on this day (YYYY-MM-DD) or in this month (YYYY-MM) and later. "
        "Days older than 90 are kept as months, which count if any of their days does.",
    ),
    Flag(
        name="by",
        kind=Kind("day|month|key", _by),
        default="key",
        group=_GROUP,
        usage="Add up by day, by month, or by node key, those that moved most first.",
    ),
    Flag(
        name="csv",
        kind=BOOL,
        default="false",
        group=_GROUP,
        usage="Print CSV, in bytes and seconds.",
    ),
    Flag(
        name="json",
        kind=BOOL,
        default="false",
        group=_GROUP,
        usage="Print JSON, an object a line, in bytes and seconds.",
    ),
)


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Print the accounts; return the exit code. Raises UsageError and StartError."""
    arguments = command_flags.parse(argv, environ, _OWN, instead_of_relay=["accounts"])
    if arguments is None:
        sys.stdout.write(command_flags.help_text(_INTRODUCTION, _OWN))
        return 0
    values = {name: setting.value for name, setting in arguments.settings.items()}
    if values["csv"] and values["json"]:
        raise arguments.settings["json"].wrong("want -csv or -json, not both")
    # Nothing else of the relay's flags matters here.
    path = Path(str(values["accounts"]))
    if not values["accounts"]:
        raise UsageError("accounts: want -accounts with the file of the relay, or -of with its PID")
    by, since = str(values["by"]), str(values["since"])
    write = report.as_table
    if values["csv"]:
        write = report.as_csv
    elif values["json"]:
        write = report.as_json
    try:
        _print(path, by, since, write)
    except sqlite3.Error as error:
        cure = "move it away to have a new one made"
        if isinstance(error, sqlite3.OperationalError):
            cure = "run this as the relay's user, or root"
        raise StartError(f"-accounts {str(path)!r}: can't be read: {error}; {cure}") from error
    except AccountsFailed as failed:
        raise StartError(f"-accounts {str(path)!r}: {failed}; {failed.cure}") from failed
    sys.stdout.flush()
    return 0


def _print(path: Path, by: str, since: str, write: Write) -> None:
    if not file.examine(path):
        raise AccountsFailed("no such file", "start the relay with that flag, which makes it")
    with contextlib.closing(file.connect(path, "ro")) as db:
        totals = database.totals(db, by, since)
        # Nothing is printed before it is clear that the file can be read.
        first = list(islice(totals, 1))
        for line in write(chain(first, totals), by):
            sys.stdout.write(line)
