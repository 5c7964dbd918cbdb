"""Addresses to listen on: of TCP and UDP, and paths of unix sockets. Sans-I/O."""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Final

import attrs

from derp.net.address import WILDCARDS, host_port

OWNER_ONLY: Final = 0o600


@attrs.frozen
class Address:
    """An IP address or name, or the empty host for all interfaces; and a port."""

    host: str
    """Without brackets; a link-local address of IPv6 has a zone."""
    port: int
    """0 for any free port."""
    version: int = 0
    """4 or 6 to listen on addresses of that IP version only; 0 for both."""

    @property
    def is_wildcard(self) -> bool:
        """Whether the host stands for all addresses."""
        return self.host in WILDCARDS

    def __str__(self) -> str:
        where = host_port(self.host, self.port)
        return f"ipv{self.version}@{where}" if self.version else where


@attrs.frozen
class UnixSocket:
    """A path for a unix socket, and who may connect to it."""

    path: Path
    mode: int = OWNER_ONLY
    user: str = ""
    """The name or number of its owner; empty for the user of this process."""
    group: str = ""
    """Likewise for its group."""

    def __str__(self) -> str:
        return f"unix:{self.path}"


ListenAddress = Address | UnixSocket


def overlap(one: ListenAddress, other: ListenAddress) -> bool:
    """Return whether only one of two listeners could be opened, as far as that shows.

    What a name stands for is known only once it is resolved.
    """
    if isinstance(one, UnixSocket) or isinstance(other, UnixSocket):
        paths = [each.path for each in (one, other) if isinstance(each, UnixSocket)]
        return len(paths) == 2 and paths[0] == paths[1]
    if one.port != other.port or not one.port or {_version(one), _version(other)} == {4, 6}:
        return False
    return one.is_wildcard or other.is_wildcard or _plain(one) == _plain(other)


def first_overlap(
    addresses: Sequence[ListenAddress],
) -> tuple[ListenAddress, ListenAddress] | None:
    """Return the first address that overlaps with an earlier one, and that one; None for none."""
    for number, address in enumerate(addresses):
        for earlier in addresses[:number]:
            if overlap(earlier, address):
                return address, earlier
    return None


def without_overlaps(addresses: Iterable[Address]) -> list[Address]:
    """Return the addresses without those that a wildcard among them includes."""
    kept: list[Address] = []
    for address in sorted(addresses, key=lambda each: (not each.is_wildcard, each.version != 0)):
        if not any(overlap(address, other) for other in kept):
            kept.append(address)
    return kept


def _version(address: Address) -> int:
    """Return the IP version of an address, 0 if it may be either."""
    host = "" if address.is_wildcard else _plain(address)
    return address.version if isinstance(host, str) else host.version


def _plain(address: Address) -> str | IPv4Address | IPv6Address:
    """Return the host in a form that is the same for two spellings of one host."""
    try:
        return ip_address(address.host)
    except ValueError:
        return address.host.lower()
