"""Host names: IP addresses and DNS names, in files and in certificates."""

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address

IPAddress = IPv4Address | IPv6Address


def parse_ip(hostname: str) -> IPAddress | None:
    """Parse an IP address; return None for a DNS name.

    As Go's net.ParseIP: no zone, no brackets; an IPv4-mapped IPv6 address is the IPv4 one.
    """
    try:
        address = ip_address(hostname)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return None
        return address.ipv4_mapped or address
    return address


def parse_ips(names: Iterable[str]) -> list[IPAddress]:
    """Return the addresses among `names`."""
    return [address for address in map(parse_ip, names) if address is not None]


def file_stem(hostname: str) -> str:
    """Return the name, without suffix, of the files that hold the pair for `hostname`.

    As in Go's NewManualCertManager, only characters of [a-zA-Z0-9-.] stay: an IPv6 address loses
    its colons ("fe80::1" is "fe801"), and no name leaves the directory.
    """
    return re.sub(r"[^a-zA-Z0-9.-]", "", hostname)


def same_name(one: str, other: str) -> bool:
    """Return whether two DNS names are equal but for ASCII case and a final dot."""
    return _canonical(one) == _canonical(other)


def is_covered(hostname: str, dns_names: Iterable[str], ip_addresses: Iterable[IPAddress]) -> bool:
    """Return whether a certificate with these subject alternative names covers `hostname`.

    As Go's x509.Certificate.VerifyHostname (RFC 6125, 6.4): an address matches only addresses;
    "*" stands for exactly one label, the leftmost; the common name is not consulted.
    """
    address = parse_ip(hostname)
    if address is not None:
        return address in ip_addresses
    wanted = _canonical(hostname)
    label, _, parent = wanted.partition(".")
    wildcard = f"*.{parent}" if label and parent else wanted
    return any(name.lower() in (wanted, wildcard) for name in dns_names)


def _canonical(name: str) -> str:
    return name.lower().removesuffix(".")
