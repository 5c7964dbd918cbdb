"""Signs of a proxy through which all clients' requests come, and which hides their addresses.

Docker's userland proxy, the port forwarders of rootless containers, and load balancers that do not
keep source addresses send a datagram on as their own. The response then has the proxy's address,
and a client that tells it to its peers can't be reached directly.

Behind such a proxy, all requests come from the default gateway (the bridge of a container) or from
an address of the machine itself (rootlesskit sends from within the container). The requests of this
machine's own programs come from there, too, and may be the only ones. Ports tell clients apart: a
proxy has one for each client, the machine's own tailscaled has one, and a health check asks once or
for seconds, from another port each time. So two lasting senders are a sign of a proxy. A request
from any other address rules a proxy out; but not in a container, where Docker may send only IPv6
through its proxy.

    172.17.0.1:41641  ·  ·  ·  ·  ·      the tailscaled of this machine
    172.17.0.1:50001  ·                  a health check
    172.17.0.1:50107     ·               another one
    172.17.0.1:38112  ·  ·  ·  ·         a second lasting sender: a client
"""

import enum
import re
import sys
from typing import Final

import attrs

MIN_SENDERS: Final = 2
"""Lasting senders that are a sign of a proxy."""
MIN_REQUESTS: Final = 4
MIN_DURATION: Final = 30.0
"""A lasting sender has sent this many requests over this many seconds. A client in use sends one
every 20 to 26 s (Go: magicsock.Conn.scheduleReSTUN)."""
MAX_PAUSE: Final = 90.0
"""Seconds without a request after which docker-proxy and rootlesskit may give a client's port to
another (UDPConnTrackTimeout)."""

_MAX_SENDERS: Final = 16
"""Most senders recorded at once, of the thousands that there may be."""

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
    """The finding so far."""

    UNSURE = enum.auto()
    DIRECT = enum.auto()
    """At least one request came from another host's own address."""
    PROXIED = enum.auto()
    """Several clients share the observed address."""


@attrs.define
class _Sender:
    first: float
    last: float
    requests: int = 1

    def lasts(self, now: float) -> bool:
        """Return whether this is a lasting sender, and still active."""
        return (
            self.requests >= MIN_REQUESTS
            and self.last - self.first >= MIN_DURATION
            and now - self.last <= MAX_PAUSE
        )


@attrs.define
class Observation:
    """An observation of the senders at one address: the gateway's, or the machine's own."""

    address: bytes
    ignores_others: bool = False
    """Whether requests from other addresses are no sign against a proxy."""
    _senders: dict[bytes, _Sender] = attrs.field(init=False, factory=dict)

    def observe(self, address: bytes, port: bytes, now: float) -> Finding:
        """Record a request; `now` is in seconds of any clock. Call it only while UNSURE.

        `address` has 4 or 16 bytes, `port` 2, as in the packet.
        """
        if address != self.address:
            return Finding.UNSURE if self.ignores_others else Finding.DIRECT
        sender = self._senders.get(port)
        if sender is None or now - sender.last > MAX_PAUSE:
            self._add(port, now)
            return Finding.UNSURE
        sender.last = now
        sender.requests += 1
        if not sender.lasts(now):
            return Finding.UNSURE
        lasting = sum(each.lasts(now) for each in self._senders.values())
        return Finding.PROXIED if lasting >= MIN_SENDERS else Finding.UNSURE

    def _add(self, port: bytes, now: float) -> None:
        self._senders.pop(port, None)
        if len(self._senders) == _MAX_SENDERS:
            gone = next(
                (at for at, each in self._senders.items() if now - each.last > MAX_PAUSE), None
            )
            if gone is None:
                return
            del self._senders[gone]
        self._senders[port] = _Sender(now, now)


def is_loopback(address: bytes) -> bool:
    """Return whether an address of 4 or 16 bytes is in 127.0.0.0/8 or is ::1."""
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
        if _is_usable(flags)
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
        if _is_usable(flags)
    }


def _is_usable(flags: bytes) -> bool:
    return int(flags, 16) & (_UP | _GATEWAY | _REJECT) == _UP | _GATEWAY
