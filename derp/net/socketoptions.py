"""Options that tie a socket to a part of this machine's network (socket(7)).

SO_BINDTODEVICE lets packets in and out by one interface only: a socket that listens is found only
by what arrives there, and one that connects goes out there, whatever the routes say. SO_MARK gives
packets a mark, by which rules of the firewall and of routing know them. Both are Linux's.
"""

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

import attrs
import trio

from derp.errors import StartError
from derp.net import system
from derp.net.oserrors import reason

_NAME_SIZE: Final = 16
"""IFNAMSIZ: bytes of an interface's name, with the NUL at its end."""


@attrs.frozen
class SocketOptions:
    """The options of a socket that connects."""

    interface: str = ""
    """The interface to go out by; empty for what the routes say."""
    mark: int = 0
    """The mark of its packets; 0 for none."""

    def apply(self, sock: socket.socket) -> None:
        """Set the options on a socket that is not connected. Raises OSError."""
        bind_to_interface(sock, self.interface)
        if self.mark:
            sock.setsockopt(socket.SOL_SOCKET, system.option("SO_MARK"), self.mark)

    def check(self) -> None:
        """Try the options on a socket. Raises StartError, which names the cure."""
        if self == DEFAULTS:
            return
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                bind_to_interface(probe, self.interface)
            except OSError as error:
                raise StartError(f"-interface {self.interface}: {_explain(error)}") from error
            try:
                attrs.evolve(self, interface="").apply(probe)
            except OSError as error:
                raise StartError(f"-mesh-fwmark {self.mark:#x}: {_explain(error)}") from error


DEFAULTS: Final = SocketOptions()


def bind_to_interface(sock: socket.socket, interface: str) -> None:
    """Let a socket use one interface only; the empty name leaves it as it is. Raises OSError."""
    if interface:
        option = system.option("SO_BINDTODEVICE")
        sock.setsockopt(socket.SOL_SOCKET, option, interface.encode() + b"\0")


def interface_of(sock: socket.socket) -> str:
    """Return the interface that a socket is bound to; empty for none. Raises OSError."""
    if not hasattr(socket, "SO_BINDTODEVICE"):
        return ""
    name = sock.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, _NAME_SIZE)
    return name.partition(b"\0")[0].decode()


def _explain(error: OSError) -> str:
    if error.errno == errno.ENODEV:
        names = _interfaces()
        has = f"; it has {', '.join(names)}" if names else ""
        return f"this machine has no such interface{has}"
    if error.errno == errno.EPERM:
        return (
            "not permitted; give derper the capability CAP_NET_ADMIN: AmbientCapabilities= and "
            "CapabilityBoundingSet= in a unit, --cap-add NET_ADMIN for a container"
        )
    return reason(error)


def _interfaces() -> list[str]:
    try:
        return [name for _, name in socket.if_nameindex()]
    except OSError:
        return []  # a sandbox without AF_NETLINK


_current: ContextVar[SocketOptions] = ContextVar("socket options", default=DEFAULTS)


class SocketFactory(trio.abc.SocketFactory):
    """A factory of the sockets of a run of Trio, with the options of the task that wants one.

    For trio.open_tcp_stream, which makes and connects its sockets itself.
    """

    def install(self) -> None:
        """Have trio.socket.socket use this factory, in this run of Trio."""
        trio.socket.set_custom_socket_factory(self)

    def socket(self, family: int = -1, type: int = -1, proto: int = -1) -> trio.socket.SocketType:  # noqa: A002 -- as in trio.abc
        """Return a new socket with the options of this task. Raises OSError."""
        sock = socket.socket(family, type, proto)
        try:
            _current.get().apply(sock)
        except BaseException:
            sock.close()
            raise
        return trio.socket.from_stdlib_socket(sock)


@contextmanager
def used(options: SocketOptions) -> Iterator[None]:
    """Make the sockets of this task, and of those it starts, with `options` during the block."""
    token = _current.set(options)
    try:
        yield
    finally:
        _current.reset(token)
