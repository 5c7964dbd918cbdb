"""A TXT record that answers a DNS challenge. Sans-I/O."""

from typing import Final

import attrs

LABEL: Final = "_acme-challenge"


@attrs.frozen
class Record:
    """The record for one name, as the authority wants it."""

    domain: str
    """The name that is validated; for a wildcard, its parent."""
    value: str
    """The TXT record's text, 43 characters of base64url."""

    @property
    def name(self) -> str:
        """The name at which the authority looks."""
        return f"{LABEL}.{self.domain}"


@attrs.frozen
class Place:
    """The name and the zone at which a record has to be set; without a final dot."""

    name: str
    """The record's name, or that to which a CNAME there leads."""
    zone: str
    """The zone that this name is in."""


@attrs.frozen
class PlacedRecord:
    """A record that is being set, is set, or has to be removed."""

    provider: str
    """What set it: `DNSOptions.name`."""
    record: Record
    place: Place
    all_domains: tuple[str, ...] = ()
    """The domains of all records of the order."""
    remaining: int = 0
    """How many of them come after this one."""
    output: str = ""
    """What a program printed as it set the record."""
