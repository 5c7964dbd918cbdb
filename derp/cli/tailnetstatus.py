"""The node keys in what `tailscale status --json` prints (ipnstate.Status). Sans-I/O."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from derp.policy.document import MAX_LABEL
from derp.wire.keys import KeyFormatError, parse_node_public

_RUNNING: Final = "Running"
_WANT: Final = "want the output of tailscale status --json"


def parse(text: str | bytes) -> dict[bytes, str]:
    """Return this node's key and those of its peers, with a label each, which may be empty.

    Nodes whose key has expired are left out. Raises ValueError, which says what would be right.
    """
    try:
        status = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"this is no JSON; {_WANT}") from None
    state = status.get("BackendState") if isinstance(status, dict) else None
    if state is None:
        raise ValueError(f"this is other JSON; {_WANT}")
    if state != _RUNNING:
        raise ValueError(f"tailscaled is in the state {state!r:.40}; run tailscale up there first")
    peers = status.get("Peer")
    if not isinstance(peers, dict) or not peers:
        raise ValueError("it names no peer; leave out --peers=false, or let devices join first")
    return dict(_keys([status.get("Self"), *peers.values()]))


def _keys(nodes: list[Any]) -> Iterator[tuple[bytes, str]]:
    for node in nodes:
        if not isinstance(node, dict) or node.get("Expired") is True:
            continue
        try:
            key = parse_node_public(str(node.get("PublicKey")))
        except KeyFormatError:
            raise ValueError(f"a node in it has no PublicKey; {_WANT}") from None
        if any(key):
            yield key, _label(node)


def _label(node: Mapping[str, Any]) -> str:
    """Return the name that the tailnet has for a node, or else its own, as a label of the list."""
    for name in (str(node.get("DNSName") or "").partition(".")[0], str(node.get("HostName") or "")):
        kept = "".join(each for each in name if each.isprintable() and each != "#")
        label = kept.strip()[:MAX_LABEL].strip()
        if label and "nodekey:" not in label:
            return label
    return ""
