"""The addresses of this machine's network interfaces, as Linux tells them."""

import fcntl
import socket
import struct
from ipaddress import IPv6Address
from pathlib import Path
from typing import Final

_IPV6_TABLE: Final = Path("/proc/net/if_inet6")
"""Lines of address, interface number, prefix length, scope, flags and name, in hex but the name."""
_SIOCGIFADDR: Final = 0x8915
_REQUEST: Final = struct.Struct("16s16s")
"""struct ifreq of netdevice(7), as far as it goes here: the name, and a sockaddr."""


def address_of(interface: str, table: Path = _IPV6_TABLE) -> str | None:
    """Return an address of an interface, of IPv4 if it has one, without a zone; None for none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            request = _REQUEST.pack(interface.encode(), b"")
            _, sockaddr = _REQUEST.unpack(fcntl.ioctl(sock, _SIOCGIFADDR, request))
            return socket.inet_ntoa(sockaddr[4:8])
        except OSError:
            pass  # no such interface, or none of IPv4
    try:
        rows = [line.split() for line in table.read_text("ascii", "replace").splitlines()]
    except OSError:
        return None
    found = [IPv6Address(bytes.fromhex(row[0])) for row in rows if row[-1] == interface]
    return next((str(address) for address in found if not address.is_link_local), None)
