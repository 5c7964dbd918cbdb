"""The positions of the statements of a TOML document, which tomllib does not tell. Sans-I/O.

The text is one that tomllib has read without an error, so only the ends of names and values have to
be found.
"""

import re
import tomllib
from collections.abc import Iterator, Sequence
from typing import Final

import attrs

_SPACE: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BLANK: Final = re.compile(r"[ \t]*")
_NAME: Final = re.compile(r"""[ \t]*("(?:[^"\\\n]|\\.)*"|'[^'\n]*'|[A-Za-z0-9_-]+)[ \t]*""")
_STRING: Final = re.compile(
    r'"""(?:[^"\\]|\\.|"(?!""))*"{3,5}' + r"|'''(?:[^']|'(?!''))*'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"' + r"|'[^'\n]*'",
    re.DOTALL,
)
_PLAIN: Final = re.compile(r"""[^"'\[\]{}#,\n]+""")
_COMMENT: Final = re.compile(r"#[^\n]*")

Path = tuple[str, ...]


@attrs.frozen
class Statement:
    """A table's header, or a name with its value; the numbers are offsets in the text."""

    path: Path
    """All names, those of its table first."""
    is_table: bool
    begin: int
    last_name: int
    """Where the last of its names begins."""
    value: int
    """Where the value begins; for a header its end."""
    end: int
    """Where it ends, without space and comment after it."""


def line_of(text: str, path: Sequence[str]) -> int:
    """Return the number of the line, from 1, where the table or value at `path` begins.

    A name within an inline table has the line of that table; a path that is not there, 1.
    """
    wanted, best, at = tuple(path), 0, 0
    for statement in statements(text):
        found = statement.path
        common = len(found) if wanted[: len(found)] == found else 0
        if wanted == found[: len(wanted)]:
            common = len(wanted)
        if common > best:
            best, at = common, statement.begin
    return text.count("\n", 0, at) + 1


def names_in(header: str) -> Path:
    """Return the names in a table's header, with or without an end."""
    return _names(header, len(header) - len(header.lstrip("[")))[0]


def statements(text: str) -> Iterator[Statement]:
    """Yield each table's header and each name with a value."""
    position = 0
    table: Path = ()
    while True:
        begin = _end(_SPACE, text, position)
        if begin == len(text):
            return
        if text[begin] == "[":
            opened = 2 if text.startswith("[[", begin) else 1
            table, last_name, position = _names(text, begin + opened)
            position += opened
            yield Statement(table, True, begin, last_name, position, position)
        else:
            statement = _value(text, begin, table, "\n")
            position = statement.end
            yield statement


def pairs(text: str, begin: int) -> Iterator[Statement]:
    """Yield each name with a value of the inline table that begins at `begin`."""
    position = begin + 1
    while text[position := _end(_BLANK, text, position)] != "}":
        statement = _value(text, position, (), ",}")
        position = _end(_BLANK, text, statement.end)
        position += text[position] == ","
        yield statement


def _value(text: str, begin: int, table: Path, stops: str) -> Statement:
    names, last_name, position = _names(text, begin)
    value = _end(_BLANK, text, position + 1)
    return Statement((*table, *names), False, begin, last_name, value, _after(text, value, stops))


def _names(text: str, position: int) -> tuple[Path, int, int]:
    """Return the names with dots between them, where the last one begins, and where they end."""
    names: list[str] = []
    last = position
    while (match := _NAME.match(text, position)) is not None:
        name, last = match[1], match.start(1)
        names.append(next(iter(tomllib.loads(f"{name} = 0"))) if name[0] in "\"'" else name)
        position = match.end()
        if text[position : position + 1] != ".":
            break
        position += 1
    return tuple(names), last, position


def _after(text: str, position: int, stops: str) -> int:
    """Return where a value ends, which one of `stops` follows outside of brackets and strings."""
    depth, end = 0, position
    while position < len(text):
        char = text[position]
        if not depth and char in stops:
            break
        if char in "\"'":
            position = max(position + 1, _end(_STRING, text, position))
        elif char == "#":
            position = _end(_COMMENT, text, position)
            continue
        elif char in "[]{},\n":
            depth += (char in "[{") - (char in "]}")
            position += 1
        else:
            begin, position = position, _end(_PLAIN, text, position)
            if word := text[begin:position].rstrip():
                end = begin + len(word)
            continue
        end = position
    return end


def _end(pattern: re.Pattern[str], text: str, position: int) -> int:
    match = pattern.match(text, position)
    return position if match is None else match.end()
