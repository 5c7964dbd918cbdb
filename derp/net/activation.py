"""Socket activation: listening sockets that systemd holds and passes on (sd_listen_fds(3)).

The sockets outlive the process: clients that connect during a restart wait in the kernel's queue,
and are not refused. The protocol is two variables, LISTEN_PID (this process) and
LISTEN_FDS (the number of sockets), and descriptors from 3 on.

A socket is matched with the configuration: a unix socket by its path; TCP by the ports of -a and
-metrics-addr, and -http-port, and by the addresses there; UDP by the ports of -stun-addr and
-stun-port, and by the addresses of the former, if given. A socket that matches nothing is an error;
so is one for IPv6 that takes IPv4 too, since STUN would answer with IPv4-mapped addresses, which
its clients don't know.
"""

import contextlib
import os
import re
import socket
from collections.abc import MutableMapping, Sequence
from ipaddress import ip_address
from typing import Final

import attrs

from derp.errors import StartError
from derp.net.address import host_port, is_ip
from derp.net.listenaddress import ListenAddress, UnixSocket

FIRST_DESCRIPTOR: Final = 3
_MAX: Final = 64
_PROTOCOLS: Final = {socket.IPPROTO_TCP, socket.IPPROTO_UDP}
_VERSIONS: Final = {socket.AF_INET: 4, socket.AF_INET6: 6}
_UNIT: Final = "in the unit derper.socket"


@attrs.define
class Inherited:
    """The passed sockets that have not been taken."""

    sockets: list[socket.socket]

    def take(self, kind: socket.SocketKind, address: ListenAddress) -> Sequence[socket.socket]:
        """Take the sockets of a kind (SOCK_STREAM or SOCK_DGRAM) that are bound to an address.

        A host that is a wildcard, or no IP address, stands for every address.
        """
        taken = [sock for sock in self.sockets if sock.type == kind and _is_at(address, sock)]
        self.sockets = [sock for sock in self.sockets if sock not in taken]
        return taken

    def close(self) -> None:
        """Close the sockets that were not taken."""
        for sock in self.sockets:
            sock.close()
        self.sockets = []

    def refuse_rest(self) -> None:
        """Close the sockets that were not taken. Raises StartError if there were any."""
        if self.sockets:
            first = _name(self.sockets[0])
            self.close()
            raise StartError(
                f"systemd passes a socket on {first}, which nothing here serves; "
                f"want the addresses of -a, -stun-addr and -metrics-addr, and the ports of "
                f"-http-port and -stun-port, {_UNIT}"
            )


def inherited(
    environ: MutableMapping[str, str], pid: int, first: int = FIRST_DESCRIPTOR
) -> Inherited:
    """Return the sockets passed to the process `pid`, non-blocking. Raises StartError.

    The variables are removed, so that no child process sees them.
    """
    meant_for = environ.pop("LISTEN_PID", "")
    count_text = environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if meant_for != str(pid):
        return Inherited([])
    if not re.fullmatch(r"[0-9]{1,2}", count_text) or int(count_text) > _MAX:
        raise StartError(f"LISTEN_FDS={count_text[:20]}: want the number of sockets, up to {_MAX}")
    with contextlib.ExitStack() as undo:
        descriptors = range(first, first + int(count_text))
        sockets = [undo.enter_context(_adopt(descriptor)) for descriptor in descriptors]
        undo.pop_all()
    return Inherited(sockets)


def _adopt(descriptor: int) -> socket.socket:
    try:
        os.set_inheritable(descriptor, False)
        sock = socket.socket(fileno=descriptor)
    except OSError as error:
        raise StartError(
            f"systemd passes the descriptor {descriptor}, which is no socket ({error.strerror})"
        ) from error
    sock.setblocking(False)
    is_unix = sock.family == socket.AF_UNIX and sock.type == socket.SOCK_STREAM
    if not is_unix and (sock.family not in _VERSIONS or sock.proto not in _PROTOCOLS):
        sock.close()
        raise StartError(
            f"systemd passes a socket that is not TCP or UDP, nor a unix socket of streams; "
            f"want none {_UNIT}"
        )
    if sock.type == socket.SOCK_STREAM and not sock.getsockopt(
        socket.SOL_SOCKET, socket.SO_ACCEPTCONN
    ):
        name = _name(sock)
        sock.close()
        raise StartError(f"systemd passes a connection on {name}; want Accept=no {_UNIT}")
    if (
        sock.family == socket.AF_INET6
        and sock.getsockname()[0] == "::"
        and not sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    ):
        name = _name(sock)
        sock.close()
        raise StartError(
            f"systemd passes a socket on {name} that takes IPv4 as well; want "
            f"BindIPv6Only=ipv6-only, and a line for 0.0.0.0 beside that for [::], {_UNIT}"
        )
    return sock


def _is_at(address: ListenAddress, sock: socket.socket) -> bool:
    if isinstance(address, UnixSocket) or sock.family == socket.AF_UNIX:
        return isinstance(address, UnixSocket) and sock.getsockname() == str(address.path)
    host, port, *_ = sock.getsockname()
    if port != address.port or address.version not in {0, _VERSIONS[sock.family]}:
        return False
    stands_for_all = address.is_wildcard or not is_ip(address.host)
    return stands_for_all or ip_address(host) == ip_address(address.host)


def _name(sock: socket.socket) -> str:
    if sock.family == socket.AF_UNIX:
        return f"unix:{sock.getsockname()}"
    kind = "TCP" if sock.type == socket.SOCK_STREAM else "UDP"
    host, port, *_ = sock.getsockname()
    return f"{kind} {host_port(host, port)}"
