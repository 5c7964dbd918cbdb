"""Listening sockets, and the accept loop."""

import contextlib
import errno
import socket
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Any, Final, NoReturn, Protocol

import attrs
import trio

from derp.errors import StartError
from derp.net import congestion, system
from derp.net.address import Endpoint, endpoint
from derp.net.descriptors import OUT_OF_RESOURCES, Descriptors
from derp.net.listenaddress import Address
from derp.net.oserrors import reason
from derp.net.socketoptions import bind_to_interface, interface_of
from derp.relay.networks import LOOPBACK

BACKLOG: Final = 4096
"""Connections that may wait in the kernel to be accepted."""
NOTSENT_LOWAT: Final = 16 << 10
"""Unsent bytes that the kernel queues for a peer; more waits in a send queue, which can drop it."""

FAMILIES: Final = {0: socket.AF_UNSPEC, 4: socket.AF_INET, 6: socket.AF_INET6}
"""The families for Address.version."""

_ACCEPTS_PER_TURN: Final = 16
_RETRY_SECONDS: Final = 0.1


@attrs.frozen
class TCPOptions:
    """Options of a listener; accepted connections inherit them. Times are seconds.

    What the system lacks is left out.
    """

    keepalive_time: float = 600.0
    """Idle time before the kernel probes; 0 is never."""
    user_timeout: float = 15.0
    """How long sent data may stay unacknowledged; 0 is the system's default."""
    congestion: str = ""
    """The algorithm of congestion control; empty for the kernel's default."""

    def apply(self, sock: socket.socket) -> None:
        """Set the options on a socket. Raises OSError."""
        tcp = socket.IPPROTO_TCP
        sock.setsockopt(tcp, socket.TCP_NODELAY, 1)
        if self.keepalive_time:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            seconds = max(1, round(self.keepalive_time))
            system.set_if_known(sock, tcp, "TCP_KEEPIDLE", seconds)
        if self.user_timeout:
            milliseconds = max(1, round(self.user_timeout * 1000))
            system.set_if_known(sock, tcp, "TCP_USER_TIMEOUT", milliseconds)
        system.set_if_known(sock, tcp, "TCP_NOTSENT_LOWAT", NOTSENT_LOWAT)
        congestion.apply(sock, self.congestion)


def open_listeners(
    address: Address, options: TCPOptions, interface: str = ""
) -> list[socket.socket]:
    """Listen at an address; a wildcard is all, IPv4 and IPv6. Raises StartError.

    Port 0 picks a free port, the same for both families. With `interface`, connections are taken
    only from there; loopback is an interface of its own, whose addresses don't count. May block on
    a name look-up.
    """
    listeners: list[socket.socket] = []
    try:
        for family, found in _resolve(address):
            port = listeners[0].getsockname()[1] if listeners else address.port
            sockaddr = (found[0], port, *found[2:])
            bound_to = "" if is_loopback(found[0]) else interface
            listeners.append(_listen(family, sockaddr, options, bound_to))
    except (OSError, UnicodeError, ValueError) as error:
        for listener in listeners:
            listener.close()
        where = attrs.evolve(address, host=address.host or "*")
        raise StartError(f"can't listen on TCP {where}: {_explain(error, address)}") from error
    return listeners


def take_over(listener: socket.socket, options: TCPOptions, interface: str = "") -> None:
    """Prepare a socket that another process made and listens on. Raises OSError."""
    listener.setblocking(False)
    if listener.family != socket.AF_UNIX:
        if not is_loopback(listener.getsockname()[0]):
            bind_to_interface(listener, interface)
        options.apply(listener)
    listener.listen(BACKLOG)


def is_loopback(host: str) -> bool:
    """Return whether an IP address, which may have a zone, is one of loopback."""
    return ip_address(host).is_loopback


def bind_reuseport(sock: socket.socket) -> socket.socket:
    """Return a new socket bound to the address of `sock`, to share its load (SO_REUSEPORT).

    `sock` was bound without that option, so that a port in use by another program was an error.
    Raises OSError, as where `sock` is another user's.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    joined = socket.socket(sock.family, sock.type)
    try:
        joined.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if sock.type == socket.SOCK_STREAM:
            joined.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sock.family == socket.AF_INET6:
            joined.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if interface := interface_of(sock):
            bind_to_interface(joined, interface)
        joined.bind(sock.getsockname())
    except BaseException:
        joined.close()
        raise
    return joined


def _resolve(address: Address) -> Sequence[tuple[socket.AddressFamily, tuple[Any, ...]]]:
    if not address.is_wildcard:
        family = FAMILIES[address.version]
        kind, flags = socket.SOCK_STREAM, socket.AI_PASSIVE
        found = socket.getaddrinfo(address.host, address.port, family, kind, flags=flags)
        # getaddrinfo may return an address twice.
        return list(dict.fromkeys((family, sockaddr) for family, _, _, _, sockaddr in found))
    addresses: list[tuple[socket.AddressFamily, tuple[Any, ...]]] = []
    if address.version != 6:
        addresses.append((socket.AF_INET, ("0.0.0.0", address.port)))  # noqa: S104 -- all
    if address.version == 6 or (not address.version and _has_ipv6()):
        addresses.append((socket.AF_INET6, ("::", address.port)))
    return addresses


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::", 0))
    except OSError:
        return False
    return True


def _listen(
    family: socket.AddressFamily,
    sockaddr: tuple[Any, ...],
    options: TCPOptions,
    interface: str,
) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        options.apply(listener)
        # Before the bind, so that a program at another interface may have the same port.
        bind_to_interface(listener, interface)
        listener.bind(sockaddr)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def _explain(error: Exception, address: Address) -> str:
    if not isinstance(error, OSError):
        return "that is not a valid address"
    if error.errno == errno.EADDRINUSE:
        return "the port is in use by another program"
    if error.errno == errno.EACCES and address.port < 1024:
        return (
            "ports below 1024 take root, the capability CAP_NET_BIND_SERVICE, "
            "or a lower net.ipv4.ip_unprivileged_port_start"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine does not have that address"
    if isinstance(error, socket.gaierror) and "%" in address.host:
        return f"this machine has no interface {address.host.partition('%')[2]}"
    return reason(error)


class Handle(Protocol):
    """A handler of new connections."""

    def __call__(self, sock: socket.socket, remote: Endpoint, /, *, full: bool) -> bool:
        """Take the connection or close it; return whether it was taken.

        `full`: the process is at its limit of descriptors, so another connection has to be closed.
        """


async def accept_forever(
    listener: socket.socket,
    handle: Handle,
    descriptors: Descriptors,
    is_behind: Callable[[], bool] = lambda: False,
) -> NoReturn:
    """Call `handle` with each accepted socket, made non-blocking, and its peer's address.

    While `is_behind` returns True, no more than one is taken per turn of the event loop: the others
    wait in the kernel, up to BACKLOG. After a failure for want of descriptors or memory, wait a
    moment and go on.
    """
    while True:
        await trio.lowlevel.wait_readable(listener)
        has_taken = False
        for _ in range(_ACCEPTS_PER_TURN):
            if has_taken and is_behind():
                break
            try:
                sock, address = listener.accept()
            except (BlockingIOError, ConnectionAbortedError, InterruptedError):
                break
            except OSError as error:
                if error.errno not in OUT_OF_RESOURCES:
                    # A network error of the new connection, which is gone (accept(2)).
                    continue
                descriptors.failed(error, trio.current_time())
                await trio.sleep(_RETRY_SECONDS)
                break
            try:
                sock.setblocking(False)
            except OSError:
                with contextlib.suppress(OSError):
                    sock.close()
                continue
            remote = endpoint(address)
            number, from_here = sock.fileno(), remote.host in LOOPBACK
            full = not descriptors.has_room(number, trio.current_time(), from_here=from_here)
            if handle(sock, remote, full=full):
                has_taken = True
            elif full:
                descriptors.refused += 1
