"""Requests answered one at a time, by the calls of Python's `socket`.

Any system has these calls, and for a request that comes alone they cost less than a batch. For many
requests at once, a batch costs less (`stun.batched`).
"""

import socket
from struct import pack
from typing import Final, Protocol

from stun.message import (
    BINDING_SUCCESS,
    MAGIC_COOKIE,
    MAX_REQUEST_LENGTH,
    XOR_MAPPED_ADDRESS,
    StunError,
    parse_binding_request,
)
from stun.pktinfo import IP_PKTINFO, info_length
from stun.stats import Stats

_COOKIE: Final = int.from_bytes(MAGIC_COOKIE, "big")
HEADER_START: Final = b"\r"
"""The first byte of a proxy's header (PROXY protocol, version 2), and of no STUN message."""
MAX_DATAGRAM: Final = 0xFFFF
_Control = list[tuple[int, int, bytes]]


class HeaderStripper(Protocol):
    """The proxies that may send requests on, each with a header that has the client's address."""

    @property
    def expects_headers(self) -> bool:
        """Whether each datagram goes through `strip`, or only those that begin as a header does."""

    def strip(self, datagram: bytes, host: str, port: int) -> tuple[bytes, str, int]:
        """Return the request in a datagram from `host` and `port`, and its client's address.

        Raises StunError where it must not be answered.
        """


class PlainResponder:
    """A responder on one socket that never waits."""

    def __init__(
        self, sock: socket.socket, stats: Stats, stripper: HeaderStripper | None = None
    ) -> None:
        self.senders: list[tuple[bytes, bytes]] = []
        """Address and port, as in the packet, of each request that the last call answered."""
        self._sock = sock
        self._stats = stats
        self._stripper = stripper
        self._strips_all = stripper is not None and stripper.expects_headers
        info = info_length(sock)
        self._space = socket.CMSG_SPACE(info) if info else 0
        # One byte more than the limit shows that a request is too long.
        longest = MAX_DATAGRAM if self._strips_all else MAX_REQUEST_LENGTH + 1
        self._view = memoryview(bytearray(longest))
        self._views = [self._view]

    def answer(self, most: int) -> int:
        """Receive up to `most` datagrams, answer the requests; return how many came, at least one.

        Raises BlockingIOError if there is none, and other OSErrors as recvmsg(2) does.
        """
        self.senders = senders = []
        for count in range(most):
            try:
                size, control, _flags, sender = self._sock.recvmsg_into(self._views, self._space)
            except BlockingIOError:
                if count:
                    return count
                raise
            host, port, *_ = sender
            data = bytes(self._view[:size])
            try:
                if self._stripper is not None and (self._strips_all or data[:1] == HEADER_START):
                    data, host, port = self._stripper.strip(data, host.partition("%")[0], port)
                transaction_id = parse_binding_request(data)
            except StunError:
                self._stats.not_stun += 1
                continue
            if ":" in host:
                self._stats.ipv6 += 1
                address = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
            else:
                self._stats.ipv4 += 1
                address = socket.inet_aton(host)
            senders.append((address, port.to_bytes(2, "big")))
            try:
                self._sock.sendmsg(
                    [response(transaction_id, address, port)], _response_control(control), 0, sender
                )
            except OSError:
                # What can't be sent is lost, as UDP may lose it anyway: the client asks again.
                self._stats.write_error += 1
            else:
                self._stats.success += 1
        return most


def response(transaction_id: bytes, address: bytes, port: int) -> bytes:
    """Build a response as `build_binding_response`, but faster; `address` has 4 or 16 bytes."""
    size = len(address)
    pad = _COOKIE if size == 4 else int.from_bytes(MAGIC_COOKIE + transaction_id, "big")
    return pack(
        ">HH4s12sHHHH",
        BINDING_SUCCESS,
        8 + size,
        MAGIC_COOKIE,
        transaction_id,
        XOR_MAPPED_ADDRESS.number,
        4 + size,
        1 if size == 4 else 2,
        port ^ _COOKIE >> 16,
    ) + (int.from_bytes(address, "big") ^ pad).to_bytes(size, "big")


def _response_control(control: _Control) -> _Control:
    """Return control messages with which a response leaves from the address that was asked."""
    for level, kind, info in control:
        if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
            return [(level, kind, info[:16] + bytes(4))]
        if level == socket.IPPROTO_IP and kind == IP_PKTINFO:
            return [(level, kind, bytes(4) + info[4:])]
    return []
