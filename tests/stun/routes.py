"""Routing tables as Linux writes them in /proc/net."""

import sys
from ipaddress import IPv4Address, IPv6Address

IPV4_HEAD = (
    b"Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT"
    b"                                                       \n"
)


def word(address: str) -> bytes:
    number = int.from_bytes(IPv4Address(address).packed, sys.byteorder)
    return b"%08X" % number


def ipv4_route(
    gateway: str,
    *,
    to: str = "0.0.0.0",
    mask: str = "0.0.0.0",
    flags: int = 3,
    interface: bytes = b"eth0",
    metric: int = 0,
) -> bytes:
    fields = (interface, word(to), word(gateway), flags, metric, word(mask))
    return (b"%b\t%b\t%b\t%04X\t0\t0\t%d\t%b\t0\t0\t0" % fields).ljust(127) + b"\n"


def ipv6_route(gateway: str, *, to: str = "::", length: int = 0, flags: int = 3) -> bytes:
    packed = (IPv6Address(address).packed.hex().encode() for address in (to, "::", gateway))
    to_hex, source, gateway_hex = packed
    return b"%b %02x %b 00 %b 00000400 00000001 00000000 %08x     eth0\n" % (
        *(to_hex, length, source, gateway_hex),
        flags,
    )
