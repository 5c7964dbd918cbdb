"""What -hostname is: an IP address or a DNS name, in files and in certificates."""

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address

IPAddress = IPv4Address | IPv6Address


def parse_ip(hostname: str) -> IPAddress | None:
    """Return the address that `hostname` spells, or None where it is a DNS name.

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


def file_stem(hostname: str) -> str:
    """Return the name, without suffix, of the files that hold the pair for `hostname`.

    Go's NewManualCertManager drops every character outside [a-zA-Z0-9-.], and so do we: an
    IPv6 address loses its colons ("fe80::1" is "fe801"), and no name leaves the directory.
    """
    return re.sub(r"[^a-zA-Z0-9.-]", "", hostname)


def same_name(one: str, other: str) -> bool:
    """Tell whether two DNS names are one: ASCII case and a final dot don't count."""
    return _canonical(one) == _canonical(other)


def is_covered(hostname: str, dns_names: Iterable[str], ip_addresses: Iterable[IPAddress]) -> bool:
    """Tell whether a certificate with these subject alternative names is one for `hostname`.

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
