r"""The formats of a log line: for a terminal, and logfmt for programs that collect logs.

Logfmt is space-separated `key=value`, beginning with time (UTC), level and msg:

    time=2026-11-23T07:31:02.123Z level=info msg="client joined" client=[AbCdE]

A value is written as it is if it is printable, not empty, and has none of space, `"`, `=` and `\`;
else it is a JSON string. What is unprintable (by str.isprintable: control, format and bidirectional
characters, line separators, lone surrogates) is escaped in both formats. Neither ends in a newline.
"""

import json
import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from typing import Final

VALUE_LIMIT: Final = 2000
"""Characters of a value that are kept, from its start."""

TRACEBACK_LIMIT: Final = 16000
"""Characters of a traceback that are kept, from its end."""

_PRIVATE_KEY: Final = re.compile(r"privkey:[0-9a-fA-F]+")
_NEEDS_QUOTES: Final = re.compile(r'[ "=\\]')
_NOT_IN_KEY: Final = re.compile(r"[^A-Za-z0-9_.-]")
_RESERVED: Final = frozenset({"", "time", "level", "msg", "logger", "traceback"})

_DIM: Final = "\x1b[2m"
_PLAIN: Final = "\x1b[0m"
_LEVEL_COLOURS: Final = {
    logging.DEBUG: _DIM,
    logging.WARNING: "\x1b[33m",
    logging.ERROR: "\x1b[31m",
    logging.CRITICAL: "\x1b[31m",
}


class Logfmt(logging.Formatter):
    """One line per event, for programs."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        when = datetime.fromtimestamp(record.created, UTC).replace(tzinfo=None)
        pairs = [
            f"time={when.isoformat(timespec='milliseconds')}Z",
            f"level={quoted(record.levelname.lower())}",
            f"msg={quoted(_message(record))}",
            *(f"{key}={value}" for key, value in _fields(record)),
        ]
        traceback = _traceback(record)
        if traceback:
            pairs.append(f"traceback={quoted(traceback)}")
        return " ".join(pairs)


class Terminal(logging.Formatter):
    """Short lines for people: local time, the level if it is not INFO, message, fields.

    A traceback follows on lines of its own, indented.
    """

    def __init__(self, *, colour: bool, timezone: tzinfo | None = None) -> None:
        super().__init__()
        self._colour = colour
        self._timezone = timezone

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, or lines."""
        when = datetime.fromtimestamp(record.created, UTC).astimezone(self._timezone)
        words = [self._painted(_DIM, f"{when:%H:%M:%S}")]
        if record.levelno != logging.INFO:
            words.append(self._painted(_LEVEL_COLOURS.get(record.levelno, ""), record.levelname))
        words.append(printable(_message(record)))
        words += (self._painted(_DIM, f"{key}=") + value for key, value in _fields(record))
        traceback = _traceback(record)
        lines = [printable(line) for line in traceback.split("\n")] if traceback else []
        return "\n    ".join([" ".join(words), *lines])

    def _painted(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_PLAIN}" if self._colour and colour else text


def redacted(text: str) -> str:
    """Return `text` without the digits of private keys."""
    if "privkey:" not in text:
        return text
    return _PRIVATE_KEY.sub("privkey:…", text)


def quoted(value: str) -> str:
    """Return `value` quoted as logfmt needs it."""
    if value and value.isprintable() and not _NEEDS_QUOTES.search(value):
        return value
    escaped = printable(value, also='"')
    return f'"{escaped}"'


def printable(text: str, also: str = "") -> str:
    r"""Return `text` with JSON's escapes for `\`, the characters `also`, and unprintable ones."""
    special = "\\" + also
    if text.isprintable() and not any(char in text for char in special):
        return text
    return "".join(
        char if char.isprintable() and char not in special else _escape(char) for char in text
    )


def _escape(char: str) -> str:
    # DEL is the only control character that JSON doesn't escape.
    return "\\u007f" if char == "\x7f" else json.dumps(char)[1:-1]


def _message(record: logging.LogRecord) -> str:
    try:
        message = record.getMessage()
    except (TypeError, ValueError, LookupError, OverflowError):
        # A library's arguments don't fit its message.
        message = f"{record.msg} {record.args}"
    return _shortened(redacted(message))


def _fields(record: logging.LogRecord) -> Iterator[tuple[str, str]]:
    if record.name.partition(".")[0] != "derper":
        yield "logger", quoted(record.name)
    for key, value in getattr(record, "fields", {}).items():
        if value is not None:
            yield _key(key), quoted(_shortened(redacted(_text(value))))


def _key(key: str) -> str:
    key = _NOT_IN_KEY.sub("_", key)
    return f"{key}_" if key in _RESERVED else key


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _shortened(value: str) -> str:
    return value if len(value) <= VALUE_LIMIT else f"{value[:VALUE_LIMIT]}…"


def _traceback(record: logging.LogRecord) -> str:
    if not record.exc_info:
        return ""
    text = redacted(logging.Formatter().formatException(record.exc_info))
    return text if len(text) <= TRACEBACK_LIMIT else f"…{text[-TRACEBACK_LIMIT:]}"
