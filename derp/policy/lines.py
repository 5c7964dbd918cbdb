"""Where a name is in a TOML document, which tomllib does not tell. Sans-I/O.

The text is one that tomllib has read without an error, so only the ends of names and values have to
be found.
"""

import re
import tomllib
from collections.abc import Iterator, Sequence
from typing import Final

_SPACE: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_NAME: Final = re.compile(r"""[ \t]*("(?:[^"\\\n]|\\.)*"|'[^'\n]*'|[A-Za-z0-9_-]+)[ \t]*""")
_STRING: Final = re.compile(
    r'"""(?:[^"\\]|\\.|"(?!""))*"{3,5}' + r"|'''(?:[^']|'(?!''))*'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"' + r"|'[^'\n]*'",
    re.DOTALL,
)
_PLAIN: Final = re.compile(r"""[^"'\[\]{}#\n]+""")
_COMMENT: Final = re.compile(r"#[^\n]*")

Path = tuple[str, ...]


def line_of(text: str, path: Sequence[str]) -> int:
    """Return the number of the line, from 1, where the table or value at `path` begins.

    A name within an inline table has the line of that table; a path that is not there, 1.
    """
    wanted, best, line = tuple(path), 0, 1
    for found, start in _statements(text.replace("\r\n", "\n")):
        common = len(found) if wanted[: len(found)] == found else 0
        if wanted == found[: len(wanted)]:
            common = len(wanted)
        if common > best:
            best, line = common, start
    return line


def names_in(header: str) -> Path:
    """Return the names in a table's header, with or without an end."""
    return _names(header, len(header) - len(header.lstrip("[")))[0]


def _statements(text: str) -> Iterator[tuple[Path, int]]:
    """Yield the path and the line of each table's header and each value's name."""
    position, line = 0, 1
    table: Path = ()
    while True:
        begin = position
        position = _end(_SPACE, text, position)
        line += text.count("\n", begin, position)
        if position == len(text):
            return
        begin = position
        if text[position] == "[":
            opened = 2 if text.startswith("[[", position) else 1
            table, position = _names(text, position + opened)
            position += opened
            yield table, line
        else:
            names, position = _names(text, position)
            yield (*table, *names), line
            position = _after_value(text, position + 1)
        line += text.count("\n", begin, position)


def _names(text: str, position: int) -> tuple[Path, int]:
    """Return the names with dots between them from `position` on, and where they end."""
    names: list[str] = []
    while (match := _NAME.match(text, position)) is not None:
        name = match[1]
        names.append(next(iter(tomllib.loads(f"{name} = 0"))) if name[0] in "\"'" else name)
        position = match.end()
        if text[position : position + 1] != ".":
            break
        position += 1
    return tuple(names), position


def _after_value(text: str, position: int) -> int:
    """Return where the line ends on which a value ends."""
    depth = 0
    while position < len(text):
        char = text[position]
        if char == "\n" and not depth:
            break
        if char in "\"'":
            position = max(position + 1, _end(_STRING, text, position))
        elif char == "#":
            position = _end(_COMMENT, text, position)
        elif char in "[]{}\n":
            depth += (char in "[{") - (char in "]}")
            position += 1
        else:
            position = _end(_PLAIN, text, position)
    return position


def _end(pattern: re.Pattern[str], text: str, position: int) -> int:
    match = pattern.match(text, position)
    return position if match is None else match.end()
