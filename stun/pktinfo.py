"""The address that a datagram was sent to, which a response must come from.

A socket on a wildcard address must respond from the address that the request was sent to, or the
client and its NAT won't accept the response. With IP_PKTINFO or IPV6_RECVPKTINFO the system reports
that address, in the structure that it also takes to send:

    in_pktinfo   4 interface, 4 local address to answer from, 4 destination in the packet
    in6_pktinfo  16 address, 4 interface

The interface is set to 0 to send: the routing table decides how the response leaves, which need not
be the way that the request came. (A link-local peer's interface is in its sockaddr.)
"""

import socket
import sys
from typing import Final

IP_PKTINFO: Final = {"linux": 8, "darwin": 26}.get(sys.platform, 0)
"""From linux/in.h and netinet/in.h; Python's socket module has it only from 3.14 on. 0: the system
does not have it, and itself chooses the address that a response comes from."""


def ask_for_destination(sock: socket.socket) -> None:
    """Have each datagram that arrives from now on come with its destination address."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    elif IP_PKTINFO:
        sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)


def info_length(sock: socket.socket) -> int:
    """Return the bytes of the structure that comes with each datagram, 0 if none does."""
    if sock.family == socket.AF_INET6:
        return 20 if sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO) else 0
    return 12 if IP_PKTINFO and sock.getsockopt(socket.IPPROTO_IP, IP_PKTINFO) else 0
