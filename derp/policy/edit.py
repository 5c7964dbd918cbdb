"""An entry of the policy file changed, with all else as it is, comments included. Sans-I/O.

An entry may be a table, an inline table or names with dots:

    [clients."nodekey:0123…cdef"]       [clients]
    deny = true                         "nodekey:0123…cdef" = { deny = true }
                                        "nodekey:4567…89ab".deny = true

One that is not there yet is added at the end, as a table.
"""

from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import Final

from derp.policy import lines
from derp.policy.change import Assignments
from derp.policy.lines import Statement
from derp.wire.keys import KeyFormatError, node_public_text, parse_node_public

_CLIENTS: Final = "clients"

Edit = tuple[int, int, str]
"""A part of the text, from one offset to another, and what takes its place."""


class NotEditable(ValueError):
    """The document has a form that is not edited; the message is a part of a sentence."""


def edited(text: str, key: bytes, assignments: Assignments) -> str:
    """Return a policy's text with assignments in its entry for `key`. Raises NotEditable.

    The text is one that `document.parse` takes; the caller checks the result with it, too.
    """
    first: Statement | None = None
    values: dict[str, Statement] = {}
    for statement in lines.statements(text):
        path = statement.path
        if path == (_CLIENTS,) and not statement.is_table:
            raise NotEditable("all its entries are in one inline table")
        if path[:1] != (_CLIENTS,) or len(path) < 2 or not _is_key(path[1], key):
            continue
        if len(path) == 3:
            values[path[2]] = statement
        elif not statement.is_table:
            return _applied(text, _inline(text, statement, assignments))
        first = first or statement
    if first is None:
        return _with_entry(text, key, assignments)
    return _applied(text, _in_lines(text, first, values, assignments))


def _is_key(name: str, key: bytes) -> bool:
    try:
        return parse_node_public(name) == key
    except KeyFormatError:
        return False


def _with_entry(text: str, key: bytes, assignments: Assignments) -> str:
    """Add an entry at the end."""
    added = [f"{name} = {value}" for name, value in assignments.items() if value is not None]
    if not added:
        return text
    newline = _newline(text)
    before = "" if not text or text.endswith("\n") else newline
    whole = ["", f'[{_CLIENTS}."{node_public_text(key)}"]', *added]
    return text + before + "".join(f"{line}{newline}" for line in whole)


def _in_lines(
    text: str, first: Statement, values: Mapping[str, Statement], assignments: Assignments
) -> Iterable[Edit]:
    """Yield the edits of an entry with a line for each name; `first` is its first statement."""
    edits, added, removed = _in_place(text, values, assignments)
    yield from edits
    for statement in removed:
        start, stop = _line_start(text, statement.begin), _line_stop(text, statement.end)
        if text[statement.end : stop].strip():
            # The comment stays.
            rest = text[statement.end : stop]
            yield statement.begin, statement.end + len(rest) - len(rest.lstrip()), ""
        else:
            yield start, text.find("\n", stop) + 1 or len(text), ""
    if added:
        last = max([first, *values.values()], key=attrgetter("begin"))
        own = last.begin if last.is_table else last.last_name
        prefix = text[_line_start(text, last.begin) : own]
        at = _line_stop(text, last.end)
        yield at, at, "".join(f"{_newline(text)}{prefix}{line}" for line in added)


def _inline(text: str, statement: Statement, assignments: Assignments) -> Iterable[Edit]:
    """Yield the edit of an inline table, if it changes."""
    pairs = [*lines.pairs(text, statement.value)]
    edits, added, removed = _in_place(text, {pair.path[0]: pair for pair in pairs}, assignments)
    if edits or added or removed:
        kept = [_part(text, pair, edits) for pair in pairs if pair not in removed]
        yield statement.value, statement.end, f"{{ {', '.join([*kept, *added])} }}"


def _part(text: str, pair: Statement, edits: Iterable[Edit]) -> str:
    """Return the text of one pair, with the edit that is in it, if any."""
    for begin, end, new in edits:
        if pair.begin <= begin < pair.end:
            return text[pair.begin : begin] + new + text[end : pair.end]
    return text[pair.begin : pair.end]


def _in_place(
    text: str, values: Mapping[str, Statement], assignments: Assignments
) -> tuple[list[Edit], list[str], list[Statement]]:
    """Return what is replaced; what is to be added, `name = value`; and what is to be removed."""
    removed = [
        values[name] for name, value in assignments.items() if value is None and name in values
    ]
    edits: list[Edit] = []
    added: list[str] = []
    for name, value in assignments.items():
        if value is None:
            continue
        if name in values:
            old = values[name]
            if text[old.value : old.end] != value:
                edits.append((old.value, old.end, value))
        elif removed:
            # `deny` becomes `allow` where it stands.
            old = removed.pop()
            edits.append((old.last_name, old.end, f"{name} = {value}"))
        else:
            added.append(f"{name} = {value}")
    return edits, added, removed


def _applied(text: str, edits: Iterable[Edit]) -> str:
    for begin, end, new in sorted(edits, reverse=True):
        text = text[:begin] + new + text[end:]
    return text


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _line_start(text: str, position: int) -> int:
    return text.rfind("\n", 0, position) + 1


def _line_stop(text: str, position: int) -> int:
    """Return where the line of `position` ends, without its newline."""
    stop = text.find("\n", position)
    stop = len(text) if stop < 0 else stop
    return stop - text.endswith("\r", position, stop)
