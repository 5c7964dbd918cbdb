"""The key that an operator means: its text, its beginning, a log line's form, or a label."""

import re
from collections.abc import Collection, Iterable
from typing import Final

from derp.config.strconv import shown
from derp.errors import SteeringFailed
from derp.policy.model import Policy
from derp.wire.keys import KeyFormatError, node_public_text, parse_node_public, short_key

MIN_PREFIX: Final = 4
"""Hex digits of the shortest beginning of a key."""
_MOST_SHOWN: Final = 5

_PREFIX: Final = re.compile(rf"(?:nodekey:)?([0-9a-f]{{{MIN_PREFIX},64}})", re.ASCII)


def key_named(text: str, connected: Collection[bytes], policy: Policy) -> bytes:
    """Return the key that `text` names. Raises SteeringFailed if there is none, or several.

    A whole key need not be connected, nor one that the policy has; of keys with the same beginning
    those that are connected go first.
    """
    try:
        return parse_node_public(text)
    except KeyFormatError:
        pass
    labelled = {key for key, entry in policy.entries.items() if text and entry.label == text}
    if labelled:
        return _only(text, labelled, "label")
    prefix = _PREFIX.fullmatch(text.lower())
    for keys in (connected, policy.entries):
        found = {
            key
            for key in keys
            if (prefix is not None and key.hex().startswith(prefix[1])) or short_key(key) == text
        }
        if found:
            return _only(text, found, "beginning")
    raise SteeringFailed(
        f"{shown(text)}: no client that is connected, and none that the policy has; want a key "
        f"(nodekey: and 64 hex digits), {MIN_PREFIX} or more of its first digits, or a label: "
        "derper clients lists them"
    )


def _only(text: str, keys: Iterable[bytes], what: str) -> bytes:
    first, *others = sorted(keys)
    if others:
        names = ", ".join(map(node_public_text, [first, *others][:_MOST_SHOWN]))
        more = f" and {len(others) + 1 - _MOST_SHOWN} more" if len(others) >= _MOST_SHOWN else ""
        raise SteeringFailed(f"{shown(text)}: the {what} of {names}{more}; want one of them")
    return first
