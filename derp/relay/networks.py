"""Networks of IP addresses: prefixes that most likely have one owner.

An IPv4-mapped IPv6 address (RFC 4291, 2.5.5.2) counts as the IPv4 one.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, Literal

Network = IPv4Network | IPv6Network

UNIX: Final = "unix"
"""Stands for the address of a peer that came by a unix socket, which has none."""
PeerNetwork = Network | Literal["unix"]
"""Where peers come from: a network, or UNIX for all who come by a unix socket."""
LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "::ffff:127.0.0.1", UNIX})
"""Addresses of this machine's reverse proxies and health checks; not all of 127.0.0.0/8."""

_IPV6_HOST_BITS: Final = 64
_IPV6_SITE_BITS: Final = 80


def network_of(host: str) -> str:
    """Return the network of an address without brackets or zone: /24 of IPv4, /64 of IPv6.

    UNIX is a network of its own.
    """
    if host == UNIX:
        return UNIX
    if ":" in host:
        address = IPv6Address(host)
        if address.ipv4_mapped is None:
            return f"{IPv6Address(int(address) >> _IPV6_HOST_BITS << _IPV6_HOST_BITS)}/64"
        host = str(address.ipv4_mapped)
    return f"{host[: host.rindex('.')]}.0/24"


def site_of(network: str) -> str:
    """Return the site of a result of `network_of`: an IPv6 network's /48, an IPv4 network itself.

    The owner of a /64 often has the /64s beside it (RFC 6177).
    """
    if ":" not in network:
        return network
    address = int(IPv6Address(network.removesuffix("/64")))
    return f"{IPv6Address(address >> _IPV6_SITE_BITS << _IPV6_SITE_BITS)}/48"


def unmapped(network: Network) -> Network:
    """Return the IPv4 network of a network of IPv4-mapped addresses, or `network` itself."""
    if isinstance(network, IPv6Network) and network.prefixlen >= 96:
        address = network.network_address.ipv4_mapped
        if address is not None:
            return IPv4Network((address, network.prefixlen - 96))
    return network


def is_private(host: str) -> bool:
    """Return whether an address is of this machine, of a private network, or shared behind NAT.

    UNIX is of this machine.
    """
    if host == UNIX:
        return True
    address: IPv4Address | IPv6Address = ip_address(host)
    if isinstance(address, IPv6Address):
        address = address.ipv4_mapped or address
    return not address.is_global


def is_in(host: str, networks: Iterable[PeerNetwork]) -> bool:
    """Return whether an address without brackets or zone, or UNIX, is in one of `networks`."""
    if host == UNIX:
        return UNIX in networks
    address: IPv4Address | IPv6Address = ip_address(host)
    if isinstance(address, IPv6Address):
        address = address.ipv4_mapped or address
    return any(network != UNIX and address in network for network in networks)
