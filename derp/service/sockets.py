"""The sockets that are served on: taken over from systemd, or opened here.

All are opened before any is served. What fails closes those before it, and the start ends.
"""

import contextlib
import errno
import os
import socket
from collections.abc import Iterator, Mapping, Sequence

import attrs

from derp import log
from derp.config import Config
from derp.errors import StartError
from derp.mesh import setup as mesh_setup
from derp.net import activation, congestion, unixlistener
from derp.net.address import endpoint
from derp.net.listenaddress import Address, ListenAddress, UnixSocket
from derp.net.listener import (
    TCPOptions,
    bind_reuseport,
    is_loopback,
    open_listeners,
    take_over,
)
from derp.net.oserrors import plain_reason
from derp.net.socketoptions import bind_to_interface
from stun import server as stun_server

logger = log.get("server")


@attrs.frozen
class Sockets:
    """The sockets of a process: those of -a and, beside HTTPS, of -http-port; and of STUN."""

    main: Sequence[socket.socket]
    plain: Sequence[socket.socket] = ()
    stun: Sequence[socket.socket] = ()

    @property
    def all(self) -> Sequence[socket.socket]:
        """The sockets of all three kinds."""
        return (*self.main, *self.plain, *self.stun)


@attrs.frozen
class RelaySockets:
    """The sockets of a relay."""

    processes: Sequence[Sockets]
    """Those of each process that serves clients."""
    monitoring: Sequence[socket.socket] = ()
    """Those of -metrics-addr."""
    addresses: Mapping[socket.socket, ListenAddress] = attrs.field(factory=dict)
    """Where the configuration has the sockets of the first process."""


def tcp_options(config: Config) -> TCPOptions:
    """Return the options of accepted and dialled connections."""
    tcp = config.tcp
    return TCPOptions(tcp.keepalive_time, tcp.user_timeout, tcp.congestion)


def open_all(config: Config, stack: contextlib.ExitStack, processes: int = 1) -> RelaySockets:
    """Open or take over the sockets of each of `processes` processes; `stack` closes them.

    Blocks. Raises StartError.
    """
    options = tcp_options(config)
    if options.congestion:
        congestion.check(options.congestion, congestion.Kernel.read())
    mesh_setup.socket_options(config).check()
    handed = activation.inherited(os.environ, os.getpid())
    stack.callback(handed.close)
    opener = _Opener(options, config.listening.interface, handed, stack)
    main = opener.listen(config.listening.addresses)
    plain = opener.listen(config.plain_addresses)
    stun = _open_stun(config, opener)
    monitoring = opener.listen(config.monitoring.addresses)
    handed.refuse_rest()
    groups = (main, plain, stun)
    # All at once: until the others are open, the first one gets all connections (SO_REUSEPORT).
    more = [
        Sockets(*(list(map(opener.open_beside, group)) for group in groups))
        for _ in range(1, processes)
    ]
    return RelaySockets([Sockets(*groups), *more], monitoring, opener.addresses)


def _open_stun(config: Config, opener: "_Opener") -> Sequence[socket.socket]:
    addresses, anywhere = config.stun_addresses, Address("", config.stun.port)
    # A unit's socket may have another address than -a.
    if addresses and not config.stun.addresses and (taken := opener.take_udp(anywhere)):
        return taken
    return [
        sock
        for address in addresses
        for sock in opener.take_udp(address) or opener.open_udp(address)
    ]


@attrs.define
class _Opener:
    options: TCPOptions
    interface: str
    handed: activation.Inherited
    stack: contextlib.ExitStack
    from_systemd: list[socket.socket] = attrs.field(factory=list)
    addresses: dict[socket.socket, ListenAddress] = attrs.field(factory=dict)

    def listen(self, addresses: Sequence[ListenAddress]) -> Sequence[socket.socket]:
        """Return the sockets that listen at the addresses, systemd's or new ones."""
        return [
            sock for address in addresses for sock in self._take(address) or self._open(address)
        ]

    def _take(self, address: ListenAddress) -> Sequence[socket.socket]:
        taken = self._keep(address, self.handed.take(socket.SOCK_STREAM, address))
        self.from_systemd.extend(taken)
        for listener in taken:
            with start_errors(f"can't listen on {_shown(listener)}"):
                take_over(listener, self.options, self.interface)
        return taken

    def _open(self, address: ListenAddress) -> Sequence[socket.socket]:
        if isinstance(address, UnixSocket):
            listener = self.stack.enter_context(unixlistener.listening(address))
            self.addresses[listener] = address
            return [listener]
        try:
            return self._keep(address, open_listeners(address, self.options, self.interface))
        except StartError as error:
            other = self._at_port(address.port)
            if other is None or getattr(error.__cause__, "errno", 0) != errno.EADDRINUSE:
                raise
            raise StartError(
                f"can't listen on TCP {address}: {other} has the port already; leave one of them "
                f"out, or want another port"
            ) from error

    def _at_port(self, port: int) -> ListenAddress | None:
        """Return the address at which a TCP socket with this port was opened before, if any."""
        return next(
            (
                address
                for sock, address in self.addresses.items()
                if sock.type == socket.SOCK_STREAM
                and sock.family != socket.AF_UNIX
                and sock.getsockname()[1] == port
            ),
            None,
        )

    def take_udp(self, address: Address) -> Sequence[socket.socket]:
        """Take over systemd's UDP sockets that are at the address."""
        taken = self._keep(address, self.handed.take(socket.SOCK_DGRAM, address))
        self.from_systemd.extend(taken)
        for sock in taken:
            with start_errors(f"can't listen on UDP {endpoint(sock.getsockname())}"):
                self._bind_udp(sock, sock.getsockname()[0])
                stun_server.prepare(sock)
        return taken

    def open_udp(self, address: Address) -> Sequence[socket.socket]:
        """Open UDP sockets at the address."""
        with start_errors(f"can't listen on UDP {attrs.evolve(address, host=address.host or '*')}"):
            return self._keep(
                address,
                stun_server.open_sockets(
                    address.host, address.port, address.version, self._bind_udp
                ),
            )

    def _bind_udp(self, sock: socket.socket, host: str) -> None:
        if not is_loopback(host):
            bind_to_interface(sock, self.interface)

    def _keep(
        self, address: ListenAddress, opened: Sequence[socket.socket]
    ) -> Sequence[socket.socket]:
        for sock in opened:
            self.addresses[self.stack.enter_context(sock)] = address
        return opened

    def open_beside(self, sock: socket.socket) -> socket.socket:
        """Return the socket of another process, to share the load of one of the first process."""
        # All processes share systemd's sockets: connections queued on a socket opened here would be
        # lost when it is closed, and a restart must refuse nobody. A path can't be bound twice.
        if sock in self.from_systemd or sock.family == socket.AF_UNIX:
            return sock
        with start_errors(f"can't share {endpoint(sock.getsockname())} between workers"):
            joined = self.stack.enter_context(bind_reuseport(sock))
            if joined.type == socket.SOCK_STREAM:
                take_over(joined, self.options)
            else:
                stun_server.prepare(joined)
        return joined


def _shown(listener: socket.socket) -> str:
    if listener.family == socket.AF_UNIX:
        return f"unix:{listener.getsockname()}"
    return f"TCP {endpoint(listener.getsockname())}"


def open_control(config: Config, stack: contextlib.ExitStack) -> socket.socket | None:
    """Open the control socket; `stack` closes it. Blocks. Raises StartError for a named path.

    The default is no reason not to serve clients: then a log line says why there is none.
    """
    path = config.control_path
    if path is None:
        return None
    try:
        return stack.enter_context(unixlistener.listening(UnixSocket(path)))
    except StartError as error:
        cure = "give -control-socket a path in a directory of derper's own, or none"
        if config.control.is_named:
            raise StartError(f"-control-socket: {error}; {cure}") from error
        logger.warning(
            "derper clients, kick and the like can't be used", reason=str(error), cure=cure
        )
        return None


@contextlib.contextmanager
def start_errors(what: str) -> Iterator[None]:
    """Raise an OSError of the block as a StartError that begins with `what`."""
    try:
        yield
    except OSError as error:
        raise StartError(f"{what}: {plain_reason(error)}") from error
