"""The key that an operator means: its text, its beginning, a log line's form, or a label."""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from derp.config.strconv import quoted
from derp.errors import SteeringFailed
from derp.wire.keys import KeyFormatError, node_public_text, parse_node_public, short_key

MIN_PREFIX: Final = 4
"""Hex digits of the shortest beginning of a key."""
_MOST_SHOWN: Final = 5

_PREFIX: Final = re.compile(rf"(?:nodekey:)?([0-9a-f]{{{MIN_PREFIX},64}})", re.ASCII)


def key_named(text: str, connected: Collection[bytes], labels: Mapping[bytes, str]) -> bytes:
    """Return the key that `text` names. Raises SteeringFailed if there is none, or several.

    `labels`: those of the keys in the policy and the allow-list, empty for none. A whole key need
    not be there, nor connected; of keys with the same beginning those that are connected go first.
    A key that was refused is named by the whole of it: a stranger can make one that begins as he
    likes.
    """
    try:
        return parse_node_public(text)
    except KeyFormatError:
        pass
    labelled = {key for key, label in labels.items() if text and label == text}
    if labelled:
        return _only(text, labelled, "label")
    prefix = _PREFIX.fullmatch(text.lower())
    for keys in (connected, labels):
        found = {
            key
            for key in keys
            if (prefix is not None and key.hex().startswith(prefix[1])) or short_key(key) == text
        }
        if found:
            return _only(text, found, "beginning")
    raise SteeringFailed(
        f"{quoted(text)}: no client that is connected, and none that policy or list has; want a "
        f"key (nodekey: and 64 hex digits), {MIN_PREFIX} or more of its first digits, or a label: "
        "derper clients and derper keys list them"
    )


def _only(text: str, keys: Iterable[bytes], what: str) -> bytes:
    first, *others = sorted(keys)
    if others:
        names = ", ".join(map(node_public_text, [first, *others][:_MOST_SHOWN]))
        more = f" and {len(others) + 1 - _MOST_SHOWN} more" if len(others) >= _MOST_SHOWN else ""
        raise SteeringFailed(f"{quoted(text)}: the {what} of {names}{more}; want one of them")
    return first
