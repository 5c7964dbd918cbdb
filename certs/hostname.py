"""Host names: IP addresses, DNS names and wildcards, in files and in certificates."""

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
    its colons ("fe80::1" is "fe801"), and no name leaves the directory. A wildcard's asterisk
    becomes "_", which no other name keeps.
    """
    stem = re.sub(r"[^a-zA-Z0-9.-]", "", hostname)
    return f"_{stem}" if is_wildcard(hostname) else stem


def is_wildcard(name: str) -> bool:
    """Return whether `name` is a wildcard: "*", which stands for one label, and a parent."""
    return name.startswith("*.")


def is_among(name: str, names: Iterable[str]) -> bool:
    """Return whether `names`, DNS names and wildcards, have `name` or a wildcard for it.

    The case of ASCII and a final dot do not count.
    """
    wanted = _entries_for(name)
    return any(each.lower().removesuffix(".") in wanted for each in names)


def is_covered(hostname: str, dns_names: Iterable[str], ip_addresses: Iterable[IPAddress]) -> bool:
    """Return whether a certificate with these subject alternative names covers `hostname`.

    As Go's x509.Certificate.VerifyHostname (RFC 6125, 6.4): an address matches only addresses;
    "*" stands for exactly one label, the leftmost; the common name is not consulted.
    """
    address = parse_ip(hostname)
    if address is not None:
        return address in ip_addresses
    wanted = _entries_for(hostname)
    return any(name.lower() in wanted for name in dns_names)


def _entries_for(name: str) -> tuple[str, str]:
    """Return the DNS name and the wildcard that stand for `name`."""
    wanted = name.lower().removesuffix(".")
    label, _, parent = wanted.partition(".")
    return wanted, f"*.{parent}" if label and parent else wanted
