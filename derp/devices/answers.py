"""The answers of Tailscale's and headscale's APIs. Sans-I/O.

    GET /api/v2/tailnet/NAME/devices   {"devices": [{"nodeKey": "nodekey:HEX", "expires": TIME,
                                       "keyExpiryDisabled": BOOL, "authorized": BOOL,
                                       "tags": ["tag:a"], "tailnetLockError": TEXT, …}]}
    POST /api/v2/oauth/token           {"access_token": TEXT, "expires_in": SECONDS, …}
    GET /api/v1/node                   {"nodes": [{"nodeKey": "nodekey:HEX", "expiry": TIME or null,
                                       "tags": ["tag:a"], …}]}

The first two are those of https://tailscale.com/api and of its Go client
(tailscale.com/client/tailscale/v2), the token's as in RFC 6749, section 5.1; the third is
headscale's (proto/headscale/v1/node.proto), before 0.28 with forcedTags and validTags.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Final

import attrs

from derp.devices.jsonarray import AnswerFormError
from derp.wire.keys import KeyFormatError, parse_node_public

DEFAULT_TOKEN_SECONDS: Final = 3600.0
"""The life of a token whose answer does not tell it: that of Tailscale's."""

Usable = tuple[bytes, float]
"""A device's node key, and the Unix time at which it expires; infinite for never."""
ReadDevice = Callable[[Any, frozenset[str]], Usable | None]
"""Reads an element of a list; None for a device that may not use the relay.

With tags, only devices that have one of them may.
"""


def read_tailscale(element: Any, tags: frozenset[str]) -> Usable | None:
    """Read an element of Tailscale's list; see ReadDevice.

    A device that is not authorized, or that tailnet lock locks out, is no peer of any other, nor
    does a tailscaled know it.
    """
    if not isinstance(element, Mapping):
        return None
    if element.get("authorized") is not True or element.get("tailnetLockError"):
        return None
    expires = math.inf
    if element.get("keyExpiryDisabled") is not True:
        expires = _read_expiry(element.get("expires"))
    return _usable(element.get("nodeKey"), expires, [element.get("tags")], tags)


def read_headscale(element: Any, tags: frozenset[str]) -> Usable | None:
    """Read an element of headscale's list; see ReadDevice."""
    if not isinstance(element, Mapping):
        return None
    own = [element.get(name) for name in ("tags", "forcedTags", "validTags")]
    return _usable(element.get("nodeKey"), _read_expiry(element.get("expiry")), own, tags)


def _usable(key: Any, expires: float, own: Iterable[Any], tags: frozenset[str]) -> Usable | None:
    if tags and not any(isinstance(each, list) and tags.intersection(_texts(each)) for each in own):
        return None
    try:
        return parse_node_public(key if isinstance(key, str) else ""), expires
    except KeyFormatError:
        return None


def _texts(values: Iterable[Any]) -> set[str]:
    return {value for value in values if isinstance(value, str)}


def _read_expiry(text: Any) -> float:
    """Return the Unix time of an expiry as in RFC 3339.

    Infinite where it is absent or in the year 1, Go's zero time: never. What is no time has passed.
    """
    if text is None or text == "":
        return math.inf
    try:
        when = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return -math.inf
    if when.year == 1:
        return math.inf
    return when.timestamp() if when.tzinfo else -math.inf


@attrs.frozen
class Token:
    """An access token."""

    text: str = attrs.field(repr=False)
    seconds: float
    """Its life."""


def read_token(body: bytes) -> Token:
    """Read the answer of the token endpoint. Raises AnswerFormError."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, Mapping):
        raise AnswerFormError("it is no JSON object")
    text, seconds = answer.get("access_token"), answer.get("expires_in", DEFAULT_TOKEN_SECONDS)
    if not isinstance(text, str) or not text.isascii() or not text.isprintable() or not text:
        raise AnswerFormError("it has no access_token")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0:
        seconds = DEFAULT_TOKEN_SECONDS
    return Token(text, min(float(seconds), DEFAULT_TOKEN_SECONDS * 24))
