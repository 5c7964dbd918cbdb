"""A list of node keys with some more, or some fewer, and all else as it is. Sans-I/O.

A key is added at the end; one that is there already gets its new label where it stands. With a key
its whole line goes, but for the comment in it.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Final

import attrs

from derp.admission.allowlist import NEWLINE
from derp.policy import document
from derp.wire.keys import KeyFormatError, node_public_text, parse_node_public

_LINE: Final = re.compile(
    r"(?P<before>\s*)(?P<key>[^\s#]+)(?P<between>\s*)(?P<label>[^#]*?)(?P<after>\s*)(?P<comment>#.*)?",
    re.DOTALL,
)
_GAP: Final = "  "


@attrs.frozen
class ListChange:
    """Keys to add to a list, and to remove from it. Raises ValueError for a wrong label."""

    add: Mapping[bytes, str | None] = attrs.field(factory=dict)
    """By key, its label; None for the one that it has, or none."""
    remove: Collection[bytes] = ()
    keeps_labels: bool = False
    """Whether a label is only for a key that the list has not yet."""

    def __attrs_post_init__(self) -> None:
        for label in self.add.values():
            if label is not None:
                check_label(label)

    def applied_to(self, text: str) -> str:
        """Return the text of a list, which `allowlist.parse` takes, with this change."""
        missing = {**self.add}
        lines = []
        for line, newline in _lines(text):
            key = _key_of(line)
            if key in self.remove:
                if "#" in line:
                    lines.append(line[line.index("#") :] + newline)
                continue
            if key is None or key not in self.add:
                lines.append(line + newline)
                continue
            missing.pop(key, None)
            label = None if self.keeps_labels else self.add[key]
            lines.append(_with_label(line, label) + newline)
        newline = "\r\n" if "\r\n" in text else "\n"
        if missing and lines and not NEWLINE.search(lines[-1]):
            lines.append(newline)
        for key, label in missing.items():
            lines.append(_GAP.join(filter(None, [node_public_text(key), label])) + newline)
        return "".join(lines)


def check_label(text: str) -> str:
    """Return a label that a line of the list can have. Raises ValueError."""
    document.label(text)
    if "#" in text or "nodekey:" in text or text != text.strip():
        raise ValueError("want a label without # and nodekey:, and without space around it")
    return text


def _lines(text: str) -> Iterator[tuple[str, str]]:
    """Yield each line, and what ends it: nothing, for the last one."""
    start = 0
    for newline in NEWLINE.finditer(text):
        yield text[start : newline.start()], newline[0]
        start = newline.end()
    if start < len(text):
        yield text[start:], ""


def _key_of(line: str) -> bytes | None:
    entry = line.partition("#")[0].split(maxsplit=1)
    try:
        return parse_node_public(entry[0]) if entry else None
    except KeyFormatError:
        return None


def _with_label(line: str, label: str | None) -> str:
    match = _LINE.fullmatch(line)
    if match is None or label is None or match["label"] == label:
        return line
    comment = match["comment"] or ""
    after = match["after"] or (_GAP if comment else "")
    return f"{match['before']}{match['key']}{match['between'] or _GAP}{label}{after}{comment}"
