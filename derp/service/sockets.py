"""The sockets that are served on: taken over from systemd, or opened here."""

import contextlib
import os
import socket
from collections.abc import Sequence

import attrs

from derp.config import Config
from derp.errors import StartError
from derp.net import activation
from derp.net.listener import TCPOptions, bind_reuseport, endpoint, open_listeners, take_over
from stun import server as stun_server


@attrs.frozen
class Sockets:
    """The sockets of a process; `plain` and `stun` may be empty."""

    main: Sequence[socket.socket]
    """TCP on the port of -a."""
    plain: Sequence[socket.socket]
    """TCP on the port of -http-port, beside HTTPS."""
    stun: Sequence[socket.socket]
    """UDP."""

    @property
    def all(self) -> Sequence[socket.socket]:
        """All of them."""
        return (*self.main, *self.plain, *self.stun)


def tcp_options(config: Config) -> TCPOptions:
    """Return the options of accepted and dialled connections."""
    return TCPOptions(config.tcp.keepalive_time, config.tcp.user_timeout)


def open_all(config: Config, stack: contextlib.ExitStack, processes: int = 1) -> list[Sockets]:
    """Open or take over the sockets of `config`, for each of so many processes.

    `stack` closes them. Blocks. Raises StartError.
    """
    host = config.listening.address.host
    options = tcp_options(config)
    handed = activation.inherited(os.environ, os.getpid())
    stack.callback(handed.close)

    alone: list[socket.socket] = []

    def keep(opened: Sequence[socket.socket]) -> Sequence[socket.socket]:
        for sock in opened:
            stack.enter_context(sock)
        return opened

    def listen(port: int) -> Sequence[socket.socket]:
        taken = keep(handed.take(socket.SOCK_STREAM, host, port))
        alone.extend(taken)
        try:
            for listener in taken:
                take_over(listener, options)
        except OSError as error:
            where = endpoint(listener.getsockname())
            raise StartError(f"can't listen on TCP {where}: {error.strerror or error}") from error
        return taken or keep(open_listeners(host, port, options))

    def listen_udp(port: int) -> Sequence[socket.socket]:
        # The unit's address counts, where it is another than that of -a.
        taken = keep(handed.take(socket.SOCK_DGRAM, config.stun.host, port))
        alone.extend(taken)
        for sock in taken:
            stun_server.prepare(sock)
        return taken or keep(stun_server.open_sockets(config.stun_host, port))

    main = listen(config.listening.address.port)
    plain: Sequence[socket.socket] = ()
    if config.serve_tls and config.listening.http_port >= 0:
        plain = listen(config.listening.http_port)
    stun: Sequence[socket.socket] = ()
    if config.stun.enabled:
        try:
            stun = listen_udp(config.stun.port)
        except OSError as error:
            where = f"{config.stun_host or '*'}:{config.stun.port}"
            raise StartError(f"can't listen on UDP {where}: {error.strerror or error}") from error
    handed.refuse_rest()
    sockets = Sockets(main, plain, stun)
    # At once: until the others are open, the first one gets all connections.
    return [sockets, *(_joined(sockets, alone, options, stack) for _ in range(processes - 1))]


def _joined(
    sockets: Sockets,
    alone: Sequence[socket.socket],
    options: TCPOptions,
    stack: contextlib.ExitStack,
) -> Sockets:
    """Open sockets beside these, so that the kernel spreads connections over all (SO_REUSEPORT).

    Those in `alone` are systemd's, and all processes share them: connections in the queue of a
    socket of ours would be lost with it, and a restart must refuse nobody.
    """

    def another(sock: socket.socket) -> socket.socket:
        if sock in alone:
            return sock
        try:
            joined = stack.enter_context(bind_reuseport(sock))
            if joined.type == socket.SOCK_STREAM:
                take_over(joined, options)
            else:
                stun_server.prepare(joined)
        except OSError as error:
            where = endpoint(sock.getsockname())
            why = error.strerror or error
            raise StartError(f"can't share {where} between workers: {why}") from error
        return joined

    groups = (sockets.main, sockets.plain, sockets.stun)
    return Sockets(*([another(sock) for sock in group] for group in groups))
