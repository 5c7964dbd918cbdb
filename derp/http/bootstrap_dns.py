"""/bootstrap-dns: addresses of a few names, for clients whose DNS does not work. Pure.

    GET /bootstrap-dns              every published name
    GET /bootstrap-dns?q=NAME       NAME alone if it is unpublished and this client has its turn,
                                    else as without q

The answer is a JSON object of name → list of addresses. Unpublished names are found only by those
who ask for them; a TXT record may limit one to a percentage of clients. Names are looked up by
`bootstrap_refresh`, which puts what it found into the `BootstrapDNS` of this file.
"""

import hashlib
import ipaddress
import json
import re
from collections.abc import Mapping
from urllib.parse import parse_qsl

import attrs

MAX_QUERIED = 500
"""So many names asked for are remembered for counter_bootstrap_dns_queried_domains."""

MAX_NAME = 253
"""Characters in a DNS name (RFC 1035, 2.3.4, as text)."""

_LABEL = re.compile(rb"[A-Za-z0-9_-]{1,63}")
_PERCENT = re.compile(r"100|[0-9]{1,2}")


@attrs.frozen
class Name:
    """A name to serve; `percent_name`, if not empty, has the TXT record with its percentage."""

    name: str
    percent_name: str = ""


def parse_names(text: str) -> tuple[Name, ...]:
    """Parse -bootstrap-dns-names: `NAME[/TXTNAME],…`; empty text is no names.

    Raises ValueError, with the part that is wrong, for what can't be a DNS name.
    """
    names = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, slash, percent_name = part.partition("/")
        if not _is_dns_name(name) or (slash and not _is_dns_name(percent_name)):
            raise ValueError(part)
        names.append(Name(name, percent_name))
    return tuple(names)


def _is_dns_name(name: str) -> bool:
    try:
        ascii_name = name.removesuffix(".").encode("idna")
    except UnicodeError:
        return False
    return len(ascii_name) <= MAX_NAME and all(
        _LABEL.fullmatch(label) for label in ascii_name.split(b".")
    )


@attrs.frozen
class Record:
    """What is known of a name: its addresses, and which share (0 to 1) of clients may see them."""

    addresses: tuple[str, ...]
    share: float = 1.0


@attrs.define
class BootstrapDNS:
    """The names known, the answers made of them, and the counters."""

    _published: Mapping[str, Record] = attrs.field(factory=dict)
    _unpublished: Mapping[str, Record] = attrs.field(factory=dict)
    _published_json: bytes = b"{}"
    _queried: set[str] = attrs.field(factory=set)
    _counts: dict[str, int] = attrs.field(
        factory=lambda: dict.fromkeys(
            (
                "counter_bootstrap_dns_requests",
                "counter_bootstrap_dns_published_hits",
                "counter_bootstrap_dns_published_misses",
                "counter_bootstrap_dns_unpublished_hits",
                "counter_bootstrap_dns_unpublished_misses",
                "counter_bootstrap_dns_unpublished_percent_misses",
            ),
            0,
        )
    )

    @property
    def published(self) -> Mapping[str, Record]:
        """What everybody gets."""
        return self._published

    @property
    def unpublished(self) -> Mapping[str, Record]:
        """What only those get who ask for it by name."""
        return self._unpublished

    def publish(self, records: Mapping[str, Record]) -> None:
        """Replace the published names."""
        self._published = dict(records)
        self._published_json = _to_json(self._published)

    def hold(self, records: Mapping[str, Record]) -> None:
        """Replace the unpublished names."""
        self._unpublished = dict(records)

    def counters(self) -> dict[str, int]:
        """Return the counters under the Go derper's names."""
        return self._counts | {"counter_bootstrap_dns_queried_domains": len(self._queried)}

    def answer(self, query: str, remote: str) -> bytes:
        """Return the JSON for a URL's `query` part, asked by the IP address `remote`."""
        self._count("requests")
        name = next((value for key, value in parse_qsl(query) if key == "q"), "")
        if not name:
            return self._published_json
        self._remember(name)
        record = self._unpublished.get(name)
        if record is not None and record.addresses:
            self._count("unpublished_hits")
            if in_share(remote, record.share):
                return _to_json({name: record})
            self._count("unpublished_percent_misses")
        if name not in self._published:
            self._count("unpublished_misses")
        elif self._published[name].addresses:
            self._count("published_hits")
        else:
            self._count("published_misses")
        return self._published_json

    def _count(self, what: str) -> None:
        self._counts[f"counter_bootstrap_dns_{what}"] += 1

    def _remember(self, name: str) -> None:
        if len(name) > MAX_NAME:
            return
        self._queried.add(name)
        if len(self._queried) > MAX_QUERIED:
            self._queried.clear()


def in_share(remote: str, share: float) -> bool:
    """Whether the client at `remote` belongs to the `share` (0 to 1) that gets a name.

    A hash of the address decides, so that a client gets the same answer each time, and one that
    is in at 10 % is still in at 20 %.
    """
    if share >= 1:
        return True
    try:
        packed = ipaddress.ip_address(remote).packed
    except ValueError:
        return False
    digest = hashlib.blake2b(packed, digest_size=8).digest()
    return int.from_bytes(digest) < share * 2**64


def parse_percent(texts: list[str]) -> float:
    """Return the share (0 to 1) that TXT strings of "0" to "100" ask for; 0 if none does.

    The last good one wins, as in resolveList of the Go derper.
    """
    share = 0.0
    for text in texts:
        if _PERCENT.fullmatch(text):
            share = int(text) / 100
    return share


def _to_json(records: Mapping[str, Record]) -> bytes:
    """Format as Go's json.MarshalIndent does: names in order, indented by tabs."""
    table = {name: list(record.addresses) for name, record in records.items()}
    return json.dumps(table, indent="\t", sort_keys=True).encode()
