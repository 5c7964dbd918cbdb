"""The STUN responder: UDP sockets, and a task for each that answers requests.

The task answers what has arrived, up to a bound, and lets the other tasks run. No datagram and no
error of the network ends it. A ProxyDetector gets senders until it has a finding.
"""

import contextlib
import errno
import logging
import socket
from collections.abc import Callable
from typing import Any, Final, Never

import trio

from stun.pktinfo import ask_for_destination
from stun.plain import HeaderStripper
from stun.proxy_detector import ProxyDetector
from stun.responder import Responder
from stun.stats import Stats

RECEIVE_BUFFER: Final = 1 << 20
"""Bytes that the kernel is asked to queue; net.core.rmem_max is its limit."""

_WILDCARDS: Final = {"", "0.0.0.0", "::"}  # noqa: S104 -- they are recognised here
_PORT_TRIES: Final = 8
_NO_IPV6: Final = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}
_ERROR_PAUSE: Final = 1.0

# Errors that ICMP, signals and link changes leave on a socket: reported once, then gone.
_PASSING_ERRORS: Final = {
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.EINTR,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.EMSGSIZE,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.ENOPROTOOPT,
    errno.EOPNOTSUPP,
    errno.EPROTO,
}

_Address = tuple[Any, ...]  # host and port, and for IPv6 flow and scope
_FAMILIES: Final = {0: socket.AF_UNSPEC, 4: socket.AF_INET, 6: socket.AF_INET6}

BeforeBind = Callable[[socket.socket, str], None]
"""Called with a new socket and the IP address that it will be bound to."""

logger = logging.getLogger("derper.stun")


def open_sockets(
    host: str, port: int, version: int = 0, before_bind: BeforeBind = lambda _sock, _host: None
) -> list[socket.socket]:
    """Open the UDP sockets to serve on; may block on a name look-up. Raises OSError.

    "" stands for every address, as do "0.0.0.0" and "::" (as in Go); a name, for all its addresses;
    `version`, 4 or 6, leaves those of the other IP version out. IPv6 is left out where the machine
    has none. Each family has its own socket, so that an IPv4 client gets an IPv4 address. Port 0
    picks a free port, the same for all sockets.
    """
    addresses = _resolve(host, port, version)
    for _ in range(_PORT_TRIES if port == 0 else 0):
        try:
            return _open_all(addresses, before_bind)
        except OSError as error:
            # The port picked for one family may be in use in the other.
            if error.errno != errno.EADDRINUSE:
                raise
    return _open_all(addresses, before_bind)


def _resolve(host: str, port: int, version: int) -> list[tuple[socket.AddressFamily, _Address]]:
    if host in _WILDCARDS:
        all_addresses: dict[int, tuple[socket.AddressFamily, _Address]] = {
            6: (socket.AF_INET6, ("::", port, 0, 0)),
            4: (socket.AF_INET, ("0.0.0.0", port)),  # noqa: S104 -- it was asked for
        }
        return [all_addresses[version]] if version else list(all_addresses.values())
    try:
        family, kind, flags = _FAMILIES[version], socket.SOCK_DGRAM, socket.AI_PASSIVE
        found = socket.getaddrinfo(host, port, family, kind, flags=flags)
    except ValueError as error:  # a name that does not fit a DNS query
        raise OSError(errno.EINVAL, f"{host!r} is neither an address nor a name") from error
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def _open_all(
    addresses: list[tuple[socket.AddressFamily, _Address]], before_bind: BeforeBind
) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    missing = OSError(errno.EADDRNOTAVAIL, "the name has no address")
    with contextlib.ExitStack() as undo:
        for family, (host, port, *rest) in addresses:
            shared_port = sockets[0].getsockname()[1] if sockets else port
            try:
                sock = _open(family, (host, shared_port, *rest), before_bind)
            except OSError as error:
                if family != socket.AF_INET6 or error.errno not in _NO_IPV6:
                    raise
                missing = error
            else:
                undo.callback(sock.close)
                sockets.append(sock)
        undo.pop_all()
    if not sockets:
        raise missing
    return sockets


def _open(
    family: socket.AddressFamily, address: _Address, before_bind: BeforeBind
) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        before_bind(sock, address[0])
        sock.bind(address)
        prepare(sock)
    except BaseException:
        sock.close()
        raise
    return sock


def prepare(sock: socket.socket) -> None:
    """Prepare a bound UDP socket for `serve`; one for IPv6 must be IPV6_V6ONLY. Raises OSError."""
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    if sock.getsockname()[0] in _WILDCARDS:
        ask_for_destination(sock)


async def serve(sock: socket.socket, stats: Stats, stripper: HeaderStripper | None = None) -> Never:
    """Answer binding requests on a prepared socket until cancelled; count in `stats`.

    `stripper` takes away the headers of proxies. The caller closes the socket afterwards.
    """
    responder = Responder(sock, stats, stripper)
    detector: ProxyDetector | None = ProxyDetector()
    logged: set[int | None] = set()
    while True:
        try:
            more = responder.answer()
        except BlockingIOError:
            await trio.lowlevel.wait_readable(sock)
            continue
        except OSError as error:
            stats.read_error += 1
            if error.errno in _PASSING_ERRORS:
                await trio.lowlevel.checkpoint()
                continue
            if error.errno not in logged:
                logged.add(error.errno)
                logger.warning("STUN can't receive: %s; trying again each second", error.strerror)
            await trio.sleep(_ERROR_PAUSE)
            continue
        if detector is not None:
            for sender in responder.senders:
                if not await detector.observe(*sender):
                    detector = None
                    break
        if more:
            await trio.lowlevel.checkpoint()
        else:
            await trio.lowlevel.wait_readable(sock)
