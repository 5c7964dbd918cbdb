"""The sockets that are served on: taken over from systemd, or opened here."""

import contextlib
import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from derp import log
from derp.config import Config
from derp.errors import StartError
from derp.net import activation, congestion, unixlistener
from derp.net.address import endpoint
from derp.net.listener import TCPOptions, bind_reuseport, open_listeners, take_over
from stun import server as stun_server

logger = log.get("server")


@attrs.frozen
class Sockets:
    """The sockets of a process: TCP on the ports of -a and, beside HTTPS, -http-port; and UDP."""

    main: Sequence[socket.socket]
    plain: Sequence[socket.socket] = ()
    stun: Sequence[socket.socket] = ()

    @property
    def all(self) -> Sequence[socket.socket]:
        """The sockets of all three kinds."""
        return (*self.main, *self.plain, *self.stun)


def tcp_options(config: Config) -> TCPOptions:
    """Return the options of accepted and dialled connections."""
    tcp = config.tcp
    return TCPOptions(tcp.keepalive_time, tcp.user_timeout, tcp.congestion)


def open_all(config: Config, stack: contextlib.ExitStack, processes: int = 1) -> list[Sockets]:
    """Open or take over the sockets of each of `processes` processes; `stack` closes them.

    Blocks. Raises StartError.
    """
    host = config.listening.address.host
    options = tcp_options(config)
    if options.congestion:
        congestion.check(options.congestion, congestion.Kernel.read())
    handed = activation.inherited(os.environ, os.getpid())
    stack.callback(handed.close)
    from_systemd: list[socket.socket] = []

    def keep(opened: Sequence[socket.socket]) -> Sequence[socket.socket]:
        for sock in opened:
            stack.enter_context(sock)
        return opened

    def listen(port: int) -> Sequence[socket.socket]:
        taken = keep(handed.take(socket.SOCK_STREAM, host, port))
        from_systemd.extend(taken)
        for listener in taken:
            with start_errors(f"can't listen on TCP {endpoint(listener.getsockname())}"):
                take_over(listener, options)
        return taken or keep(open_listeners(host, port, options))

    def listen_udp(port: int) -> Sequence[socket.socket]:
        with start_errors(f"can't listen on UDP {config.stun_host or '*'}:{port}"):
            # A unit's socket may have another address than -a.
            taken = keep(handed.take(socket.SOCK_DGRAM, config.stun.host, port))
            from_systemd.extend(taken)
            for sock in taken:
                stun_server.prepare(sock)
            return taken or keep(stun_server.open_sockets(config.stun_host, port))

    def open_beside(sock: socket.socket) -> socket.socket:
        # All processes share systemd's sockets: connections queued on a socket opened here would be
        # lost when it is closed, and a restart must refuse nobody.
        if sock in from_systemd:
            return sock
        with start_errors(f"can't share {endpoint(sock.getsockname())} between workers"):
            joined = stack.enter_context(bind_reuseport(sock))
            if joined.type == socket.SOCK_STREAM:
                take_over(joined, options)
            else:
                stun_server.prepare(joined)
        return joined

    main = listen(config.listening.address.port)
    has_plain = config.serve_tls and config.listening.http_port >= 0
    plain = listen(config.listening.http_port) if has_plain else ()
    stun = listen_udp(config.stun.port) if config.stun.enabled else ()
    handed.refuse_rest()
    groups = (main, plain, stun)
    # All at once: until the others are open, the first one gets all connections (SO_REUSEPORT).
    more = [
        Sockets(*(list(map(open_beside, group)) for group in groups)) for _ in range(1, processes)
    ]
    return [Sockets(*groups), *more]


def open_monitoring(config: Config, stack: contextlib.ExitStack) -> Sequence[socket.socket]:
    """Open the sockets of -metrics-addr; `stack` closes them. Blocks. Raises StartError."""
    address = config.monitoring.address
    if address is None:
        return ()
    if isinstance(address, Path):
        return [stack.enter_context(unixlistener.listening(address))]
    opened = open_listeners(address.host, address.port, tcp_options(config))
    return [stack.enter_context(listener) for listener in opened]


def open_control(config: Config, stack: contextlib.ExitStack) -> socket.socket | None:
    """Open the control socket; `stack` closes it. Blocks. Raises StartError for a named path.

    The default is no reason not to serve clients: then a log line says why there is none.
    """
    path = config.control_path
    if path is None:
        return None
    try:
        return stack.enter_context(unixlistener.listening(path))
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
        raise StartError(f"{what}: {error.strerror or error}") from error
