"""The sockets that are served on: those that systemd hands over, and the others opened here."""

import contextlib
import os
import socket
from collections.abc import Sequence

import attrs

from derp.config import Config
from derp.errors import StartError
from derp.net import activation
from derp.net.listener import TCPOptions, endpoint, join, open_listeners, take_over
from stun import server as stun_server


@attrs.frozen
class Sockets:
    """By what they are for; the last two may be none."""

    main: Sequence[socket.socket]
    """TCP on the port of -a."""
    plain: Sequence[socket.socket]
    """TCP on that of -http-port, beside HTTPS."""
    stun: Sequence[socket.socket]
    """UDP."""

    @property
    def all(self) -> Sequence[socket.socket]:
        """All of them."""
        return (*self.main, *self.plain, *self.stun)


def tcp_options(config: Config) -> TCPOptions:
    """Return what is set on connections."""
    return TCPOptions(config.tcp_keepalive_time, config.tcp_user_timeout)


def open_all(config: Config, stack: contextlib.ExitStack) -> Sockets:
    """Open or take over what `config` asks for; `stack` closes it. Blocks. Raises StartError."""
    host = config.addr.host
    options = tcp_options(config)
    handed = activation.inherited(os.environ, os.getpid())
    stack.callback(handed.close)

    def keep(opened: Sequence[socket.socket]) -> Sequence[socket.socket]:
        for sock in opened:
            stack.enter_context(sock)
        return opened

    def listen(port: int) -> Sequence[socket.socket]:
        taken = keep(handed.take(socket.SOCK_STREAM, host, port))
        try:
            for listener in taken:
                take_over(listener, options)
        except OSError as error:
            where = endpoint(listener.getsockname())
            raise StartError(f"can't listen on TCP {where}: {error.strerror or error}") from error
        return taken or keep(open_listeners(host, port, options))

    def listen_udp(port: int) -> Sequence[socket.socket]:
        taken = keep(handed.take(socket.SOCK_DGRAM, host, port))
        for sock in taken:
            stun_server.prepare(sock)
        return taken or keep(stun_server.open_sockets(host, port))

    main = listen(config.addr.port)
    plain: Sequence[socket.socket] = ()
    if config.serve_tls and config.http_port >= 0:
        plain = listen(config.http_port)
    stun: Sequence[socket.socket] = ()
    if config.stun:
        try:
            stun = listen_udp(config.stun_port)
        except OSError as error:
            where = f"{host or '*'}:{config.stun_port}"
            raise StartError(f"can't listen on UDP {where}: {error.strerror or error}") from error
    handed.refuse_rest()
    return Sockets(main, plain, stun)


def share(
    sockets: Sockets, count: int, config: Config, stack: contextlib.ExitStack
) -> list[Sockets]:
    """Return as many Sockets as there are to be processes, the first one as it is.

    What comes is spread over them by the kernel (SO_REUSEPORT). Where a socket was opened by
    another user, as systemd's are, nobody else may join it: then all processes have that one.
    `stack` closes what is opened.
    """
    options = tcp_options(config)

    def another(sock: socket.socket) -> socket.socket:
        try:
            twin = stack.enter_context(join(sock))
        except OSError:
            return sock
        if twin.type == socket.SOCK_STREAM:
            take_over(twin, options)
        else:
            stun_server.prepare(twin)
        return twin

    shared = [sockets]
    for _ in range(count - 1):
        groups = (sockets.main, sockets.plain, sockets.stun)
        shared.append(Sockets(*([another(sock) for sock in group] for group in groups)))
    return shared
