"""/bootstrap-dns: addresses of a few names, for clients whose DNS does not work. Sans-I/O.

    GET /bootstrap-dns              every published name
    GET /bootstrap-dns?q=NAME       NAME alone if it is unpublished and this client is in its share,
                                    else as without q

The answer is a JSON object of name → list of addresses. Unpublished names go only to clients that
ask for them; a TXT record may limit one to a percentage of clients. `bootstrap_refresh` looks the
names up and fills a `BootstrapDNS`.
"""

import hashlib
import ipaddress
import json
import re
from collections.abc import Mapping
from urllib.parse import parse_qsl

import attrs

MAX_QUERIED = 500
"""Queried names that are kept, to count distinct ones."""
MAX_NAME = 253
"""Characters in a DNS name (RFC 1035, 2.3.4, as text)."""

_LABEL = re.compile(rb"[A-Za-z0-9_-]{1,63}")
_PERCENT = re.compile(r"100|[0-9]{1,2}")


@attrs.frozen
class Name:
    """A name to serve; the TXT record of `percent_name`, if any, says to what share of clients."""

    name: str
    percent_name: str = ""


def parse_names(text: str) -> tuple[Name, ...]:
    """Parse -bootstrap-dns-names, `NAME[/TXTNAME],…`. Raises ValueError with the part at fault."""
    names = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, slash, percent_name = part.partition("/")
        if not _is_dns_name(name) or (slash and not _is_dns_name(percent_name)):
            raise ValueError(part)
        names.append(Name(name, percent_name))
    return tuple(names)


def _is_dns_name(name: str) -> bool:
    # Any name that can be looked up; derp.net.address.is_dns_name is stricter.
    try:
        ascii_name = name.removesuffix(".").encode("idna")
    except UnicodeError:
        return False
    return len(ascii_name) <= MAX_NAME and all(
        _LABEL.fullmatch(label) for label in ascii_name.split(b".")
    )


@attrs.frozen
class Record:
    """The addresses of a name, and the share (0 to 1) of clients that get them."""

    addresses: tuple[str, ...]
    share: float = 1.0


@attrs.define
class BootstrapDNS:
    """The records, and the counters, named as in Go, less the prefix `counter_bootstrap_dns_`."""

    requests: int = 0
    published_hits: int = 0
    published_misses: int = 0
    unpublished_hits: int = 0
    """Including those of clients outside the share."""
    unpublished_misses: int = 0
    unpublished_percent_misses: int = 0
    queried_domains: int = 0
    """Distinct names queried; starts over after MAX_QUERIED."""

    _published: dict[str, Record] = attrs.field(factory=dict, init=False)
    _unpublished: dict[str, Record] = attrs.field(factory=dict, init=False)
    _published_json: bytes = attrs.field(default=b"{}", init=False)
    _queried: set[str] = attrs.field(factory=set, init=False)

    @property
    def published(self) -> Mapping[str, Record]:
        """The names that every client gets."""
        return self._published

    @property
    def unpublished(self) -> Mapping[str, Record]:
        """The names that a client gets only by asking for them."""
        return self._unpublished

    def publish(self, name: str, record: Record) -> None:
        """Add or replace a published name."""
        self._published[name] = record
        self._published_json = _to_json(self._published)

    def add_unpublished(self, name: str, record: Record) -> None:
        """Add or replace an unpublished name."""
        self._unpublished[name] = record

    def answer(self, query: str, remote: str) -> bytes:
        """Return the JSON for a URL's `query`, from the IP address `remote`."""
        self.requests += 1
        fields = parse_qsl(query, keep_blank_values=True)
        name = next((value for key, value in fields if key == "q"), "")
        if not name:
            return self._published_json
        self._remember(name)
        record = self._unpublished.get(name)
        if record is not None and record.addresses:
            self.unpublished_hits += 1
            if in_share(remote, record.share):
                return _to_json({name: record})
            self.unpublished_percent_misses += 1
        if name not in self._published:
            self.unpublished_misses += 1
        elif self._published[name].addresses:
            self.published_hits += 1
        else:
            self.published_misses += 1
        return self._published_json

    def _remember(self, name: str) -> None:
        if len(name) <= MAX_NAME:
            self._queried.add(name)
        if len(self._queried) > MAX_QUERIED:
            self._queried.clear()
        self.queried_domains = len(self._queried)


def in_share(remote: str, share: float) -> bool:
    """Return whether the client at `remote` is in the `share` (0 to 1) that gets a name.

    A hash of the address decides: the answer is the same each time, and a larger share includes a
    smaller one.
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
    """Return the share (0 to 1) of the last valid text, "0" to "100"; else 0 (Go: resolveList)."""
    share = 0.0
    for text in texts:
        if _PERCENT.fullmatch(text):
            share = int(text) / 100
    return share


def _to_json(records: Mapping[str, Record]) -> bytes:
    """Format as Go's json.MarshalIndent: sorted by name, indented by tabs."""
    table = {name: list(record.addresses) for name, record in records.items()}
    return json.dumps(table, indent="\t", sort_keys=True).encode()
