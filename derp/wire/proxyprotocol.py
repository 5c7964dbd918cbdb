"""The header that proxies put before a connection, or a datagram: the PROXY protocol (HAProxy).

Version 1 is a line of at most 107 bytes, with the addresses and ports of client and proxy, and with
CR LF at its end:

    PROXY TCP4 192.0.2.7 198.51.100.1 40000 443      (or TCP6)
    PROXY UNKNOWN …                                  the proxy does not say

Version 2, in which numbers are big-endian:

    bytes 0-11  0d 0a 0d 0a 00 0d 0a 51 55 49 54 0a
    12          version 2 in the high half; 0 in the low one for LOCAL, 1 for PROXY
    13          family in the high half: 0 none, 1 IPv4, 2 IPv6, 3 unix;
                transport in the low one: 0 none, 1 stream, 2 datagram
    14-15       length of what follows
    then        source and destination address, source and destination port:
                12 bytes for IPv4, 36 for IPv6, 216 for unix sockets, which have no ports
    then        TLVs, which are skipped

LOCAL is a connection of the proxy's own, such as a health check. Specification: HAProxy's
doc/proxy-protocol.txt; as of 2026-04-27, each datagram has a header of its own.
"""

import ipaddress
import re
import struct
from typing import Final

from derp.errors import ProxyHeaderFailed

ClientAddress = tuple[str, int]
"""A client's IP address, without brackets, an IPv4-mapped one as IPv4; and its port."""

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
LOCAL_HEADER: Final = SIGNATURE + b"\x20\0\0\0"
"""A whole header of version 2, by which a program speaks for itself."""

MAX_LINE: Final = 107
"""Bytes of the longest header of version 1, with its end."""
_HEAD: Final = struct.Struct(">12sBBH")
_LOOK: Final = 4 << 10
"""Most bytes to look at at a time while TLVs are skipped."""

_NO_HEADER: Final = "it is in -proxy-protocol-from, and sends no PROXY header first"

_LINE: Final = re.compile(
    rb"PROXY (?:UNKNOWN(?: [^\r\n]*)?|TCP(?P<family>[46]) (?P<source>[0-9A-Fa-f:.]+) "
    rb"(?P<target>[0-9A-Fa-f:.]+) (?P<port>0|[1-9][0-9]{0,4}) (?:0|[1-9][0-9]{0,4}))\r\n"
)
_LINE_START: Final = b"PROXY "

_STREAM: Final = 1
_DATAGRAM: Final = 2
_TRANSPORTS: Final = {_STREAM: "TCP", _DATAGRAM: "UDP"}
_INET: Final = 1
_INET6: Final = 2
_UNIX: Final = 3
_FAMILIES: Final = {_INET: "IPv4", _INET6: "IPv6", _UNIX: "unix"}
_ADDRESSES: Final = {
    _INET: struct.Struct(">4s4sHH"),
    _INET6: struct.Struct(">16s16sHH"),
    _UNIX: struct.Struct(">108s108s"),
}
_KEPT: Final = _HEAD.size + _ADDRESSES[_INET6].size
"""Most bytes of a header of version 2 that are kept: the rest is skipped."""


class HeaderReader:
    """The reader of one connection's header, which takes no byte of what follows it.

        while not reader.done:
            seen = (peek at up to reader.look bytes)
            (take reader.feed(seen) bytes)

    It keeps at most MAX_LINE bytes.
    """

    __slots__ = ("_kept", "_left", "client", "done", "look")

    def __init__(self) -> None:
        self.done = False
        self.client: ClientAddress | None = None
        """The client, once `done`; None where the header names none."""
        self.look = MAX_LINE
        """Most bytes that `feed` can use at the moment."""
        self._kept = b""
        self._left = -1
        """Bytes of a header of version 2 that are yet to come; -1 while that is unknown."""

    def feed(self, seen: bytes) -> int:
        """Take the next bytes of the connection; return how many of them belong to the header.

        Raises ProxyHeaderFailed where they can't.
        """
        if self._left >= 0:
            return self._skip(seen)
        before, data = len(self._kept), self._kept + seen
        if data.startswith(_LINE_START) or _LINE_START.startswith(data):
            return self._feed_line(data) - before
        if not (data.startswith(SIGNATURE) or SIGNATURE.startswith(data)):
            raise ProxyHeaderFailed(_NO_HEADER)
        self._kept = data[: _HEAD.size]
        if len(self._kept) == _HEAD.size:
            self._left = _HEAD.unpack(self._kept)[3]
            _check(self._kept, _STREAM)
            return len(self._kept) - before + self._skip(data[_HEAD.size :])
        return len(seen)

    def _feed_line(self, data: bytes) -> int:
        end = data.find(b"\n", 0, MAX_LINE) + 1
        if end:
            self.client, self.done = _parse_line(data[:end]), True
            return end
        if len(data) >= MAX_LINE:
            raise ProxyHeaderFailed(f"the PROXY line has no end within {MAX_LINE} bytes")
        self._kept = data
        self.look = MAX_LINE - len(data)
        return len(data)

    def _skip(self, seen: bytes) -> int:
        """Take what is left of a header of version 2, and keep only the addresses."""
        taken = min(self._left, len(seen))
        self._kept += seen[: min(taken, _KEPT - len(self._kept))]
        self._left -= taken
        self.look = min(self._left, _LOOK)
        if not self._left:
            self.client, self.done = _client(self._kept), True
        return taken


def parse_datagram(datagram: bytes) -> tuple[int, ClientAddress | None]:
    """Parse the header of version 2 before a datagram's payload; return its size, and the client.

    None stands for the proxy itself. Raises ProxyHeaderFailed.
    """
    if len(datagram) < _HEAD.size or not datagram.startswith(SIGNATURE):
        raise ProxyHeaderFailed(_NO_HEADER)
    size = _HEAD.size + _HEAD.unpack_from(datagram)[3]
    _check(datagram[: _HEAD.size], _DATAGRAM)
    if len(datagram) < size:
        raise ProxyHeaderFailed("the PROXY header is longer than its datagram")
    return size, _client(datagram[:_KEPT])


def begins_with_header(received: bytes | bytearray | memoryview) -> bool:
    """Return whether a peer's first bytes, five or more, can only be those of a PROXY header."""
    start = bytes(received[: len(SIGNATURE)])
    return len(start) >= 5 and (
        start.startswith(_LINE_START[: len(start)]) or start == SIGNATURE[: len(start)]
    )


def _parse_line(line: bytes) -> ClientAddress | None:
    match = _LINE.fullmatch(line)
    if match is None:
        raise ProxyHeaderFailed("the PROXY line is malformed")
    if match["family"] is None:
        return None
    parse = ipaddress.IPv4Address if match["family"] == b"4" else ipaddress.IPv6Address
    try:
        source, _target = (parse(match[name].decode()) for name in ("source", "target"))
    except ValueError:
        family = match["family"].decode()
        raise ProxyHeaderFailed(f"an address of the PROXY line is not one of IPv{family}") from None
    port = int(match["port"])
    if port > 65535:
        raise ProxyHeaderFailed("a port of the PROXY line is larger than 65535")
    return _unmapped(source), port


def _check(head: bytes, transport: int) -> None:
    """Check the first 16 bytes of a header of version 2, for `transport`."""
    _, command, kind, length = _HEAD.unpack(head)
    if command not in {0x20, 0x21}:
        raise ProxyHeaderFailed(f"the PROXY header has version and command {command:#04x}")
    family = kind >> 4
    if command == 0x20 or not family:
        return
    if family not in _FAMILIES or kind & 0xF not in _TRANSPORTS:
        raise ProxyHeaderFailed(f"the PROXY header has family and transport {kind:#04x}")
    if kind & 0xF != transport:
        meant, this = _TRANSPORTS[kind & 0xF], _TRANSPORTS[transport]
        raise ProxyHeaderFailed(f"the PROXY header is for {meant}, and this is {this}")
    size = _ADDRESSES[family].size
    if length < size:
        raise ProxyHeaderFailed(
            f"the PROXY header has {length} bytes for {_FAMILIES[family]} addresses of {size}"
        )


def _client(kept: bytes) -> ClientAddress | None:
    """Return the client that a checked header names; `kept` has its addresses, if they are IP."""
    _, command, kind, _ = _HEAD.unpack_from(kept)
    family = kind >> 4
    if command == 0x20 or family not in {_INET, _INET6}:
        return None
    source, _target, port, _target_port = _ADDRESSES[family].unpack_from(kept, _HEAD.size)
    address: ipaddress.IPv4Address | ipaddress.IPv6Address = (
        ipaddress.IPv4Address(source) if family == _INET else ipaddress.IPv6Address(source)
    )
    return _unmapped(address), port


def _unmapped(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    if isinstance(address, ipaddress.IPv6Address):
        return str(address.ipv4_mapped or address)
    return str(address)
