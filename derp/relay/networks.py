"""Networks of IP addresses: the prefix that most likely has one owner.

An IPv4-mapped IPv6 address (RFC 4291, 2.5.5.2), as of dual-stack sockets, counts as the IPv4 one.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

Network = IPv4Network | IPv6Network

LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "::ffff:127.0.0.1"})
"""Addresses of this machine's reverse proxies and health checks. Other users of 127.0.0.0/8 count
like strangers."""

_IPV6_HOST_BITS: Final = 64
_IPV6_SITE_BITS: Final = 80


def network_of(host: str) -> str:
    """Return the network of an address without brackets or zone: /24 of IPv4, /64 of IPv6."""
    if ":" in host:
        address = IPv6Address(host)
        if address.ipv4_mapped is None:
            return f"{IPv6Address(int(address) >> _IPV6_HOST_BITS << _IPV6_HOST_BITS)}/64"
        host = str(address.ipv4_mapped)
    return f"{host[: host.rindex('.')]}.0/24"


def site_of(network: str) -> str:
    """Return the site of a network of `network_of`: the /48 of an IPv6 one, an IPv4 one itself.

    The owner of a /64 often has others beside it (RFC 6177).
    """
    if ":" not in network:
        return network
    address = int(IPv6Address(network.removesuffix("/64")))
    return f"{IPv6Address(address >> _IPV6_SITE_BITS << _IPV6_SITE_BITS)}/48"


def is_in(host: str, networks: Iterable[Network]) -> bool:
    """Return whether an address without brackets or zone is in one of `networks`."""
    address: IPv4Address | IPv6Address = ip_address(host)
    if isinstance(address, IPv6Address):
        address = address.ipv4_mapped or address
    return any(address in network for network in networks)
