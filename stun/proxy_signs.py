"""Whether the requests of all clients come through a proxy that hides their addresses.

Docker's userland proxy, the port forwarders of rootless containers, and load balancers that do not
keep sources send a datagram on as their own. The response then has the address of that machine, and
the client, which tells it to its peers, can't be reached directly.

Behind such a proxy, all requests come from the default gateway (the bridge of a container) or from
an address of the machine itself (rootlesskit sends from within the container). So do those of this
machine's programs, and a relay may have no other clients yet. The ports tell them apart, since a
proxy has one for each client: a machine's own tailscaled is one sender, and a check of a relay asks
once or for seconds, from another port each time. So only two lasting senders are a sign of a proxy,
and any other address is a sign against it, for good; but not in a container, where Docker sends
IPv6 through its proxy and IPv4 not.

    172.17.0.1:41641  ·  ·  ·  ·  ·      the tailscaled of this machine
    172.17.0.1:50001  ·                  a check
    172.17.0.1:50107     ·               another one
    172.17.0.1:38112  ·  ·  ·  ·         a client, and so not the only one
"""

import enum
import re
import sys
from typing import Final

import attrs

SENDERS: Final = 2
"""The number of lasting senders that is a sign of a proxy."""
REQUESTS: Final = 4
SPREAD: Final = 30.0
"""A sender lasts that has sent REQUESTS requests over SPREAD seconds. A client in use sends one
every 20 to 26 s (Go: magicsock.Conn.scheduleReSTUN)."""
PAUSE: Final = 90.0
"""Seconds without a request after which a port may be another client's: docker-proxy and
rootlesskit keep one as long (UDPConnTrackTimeout)."""

_MAX_SENDERS: Final = 16
"""Most senders that are followed at once: there may be thousands, and SENDERS are enough."""

# Flags of a route, from linux/route.h and linux/ipv6_route.h.
_UP: Final = 0x0001
_GATEWAY: Final = 0x0002
_REJECT: Final = 0x0200

_IPV4_DEFAULT: Final = re.compile(
    rb"^\S+\t0{8}\t([0-9A-F]{8})\t([0-9A-F]{4,8})\t(?:[-0-9]+\t){3}0{8}\t", re.MULTILINE
)
_IPV6_DEFAULT: Final = re.compile(
    rb"^0{32} 00 [0-9a-f]{32} [0-9a-f]{2} ([0-9a-f]{32}) (?:[0-9a-f]{8} ){3}([0-9a-f]{8}) ",
    re.MULTILINE,
)


class Finding(enum.Enum):
    """What is known about the senders so far."""

    UNSURE = enum.auto()
    DIRECT = enum.auto()
    """At least one client is seen at its own address."""
    PROXIED = enum.auto()
    """Several clients are seen at the watched address."""


@attrs.define
class _Sender:
    first: float
    last: float
    requests: int = 1

    def lasts(self, now: float) -> bool:
        """Return whether the sender has asked for long, and still does."""
        return (
            self.requests >= REQUESTS
            and self.last - self.first >= SPREAD
            and now - self.last <= PAUSE
        )


@attrs.define
class Watch:
    """The senders at one address, that of the gateway or of the machine itself."""

    address: bytes
    beside_others: bool = False
    """Whether senders at other addresses are no sign against a proxy."""
    _senders: dict[bytes, _Sender] = attrs.field(init=False, factory=dict)

    def observe(self, address: bytes, port: bytes, now: float) -> Finding:
        """Record a request; `now` is in seconds of any clock. To be called while UNSURE.

        `address` has 4 or 16 bytes, `port` 2, as in the packet.
        """
        if address != self.address:
            return Finding.UNSURE if self.beside_others else Finding.DIRECT
        sender = self._senders.get(port)
        if sender is None or now - sender.last > PAUSE:
            self._follow(port, now)
            return Finding.UNSURE
        sender.last = now
        sender.requests += 1
        if not sender.lasts(now):
            return Finding.UNSURE
        lasting = sum(each.lasts(now) for each in self._senders.values())
        return Finding.PROXIED if lasting >= SENDERS else Finding.UNSURE

    def _follow(self, port: bytes, now: float) -> None:
        self._senders.pop(port, None)
        if len(self._senders) == _MAX_SENDERS:
            gone = next((at for at, each in self._senders.items() if now - each.last > PAUSE), None)
            if gone is None:
                return
            del self._senders[gone]
        self._senders[port] = _Sender(now, now)


def is_loopback(address: bytes) -> bool:
    """Return whether an address of 4 or 16 bytes is a loopback one: 127.0.0.0/8, or ::1."""
    return address[0] == 127 if len(address) == 4 else address == b"\0" * 15 + b"\1"


def ipv4_gateways(table: bytes) -> set[bytes]:
    """Parse Linux's /proc/net/route; return the default gateways, 4 bytes each.

    A line has these fields and more, with tabs between them. Addresses are in hexadecimal, as a
    32-bit number of this machine: 010011AC is 172.17.0.1 on a little-endian one.

        interface, destination, gateway, flags, references, use, metric, mask
    """
    return {
        bytes.fromhex(address.decode())[:: -1 if sys.byteorder == "little" else 1]
        for address, flags in _IPV4_DEFAULT.findall(table)
        if _leads_out(flags)
    }


def ipv6_gateways(table: bytes) -> set[bytes]:
    """Parse Linux's /proc/net/ipv6_route; return the default gateways, 16 bytes each.

    A line has these fields, with spaces between them, in hexadecimal; addresses have 32 digits, in
    the order of the packet.

        destination, its length, source, its length, next hop, metric, references, use, flags,
        interface
    """
    return {
        bytes.fromhex(address.decode())
        for address, flags in _IPV6_DEFAULT.findall(table)
        if _leads_out(flags)
    }


def _leads_out(flags: bytes) -> bool:
    return int(flags, 16) & (_UP | _GATEWAY | _REJECT) == _UP | _GATEWAY
