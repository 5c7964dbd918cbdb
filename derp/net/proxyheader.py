"""The PROXY header of a connection, read from its socket before anything else is.

What follows the header stays in the socket: bytes are looked at (MSG_PEEK), and only those that the
header has are taken.
"""

import socket

import trio

from derp.errors import PeerVanished, ProxyHeaderFailed
from derp.net.address import Endpoint
from derp.net.budgets import ReadBudget
from derp.net.oserrors import reason
from derp.net.prelogin import PreLoginScheduler
from derp.wire.proxyprotocol import HeaderReader


async def receive_header(sock: socket.socket, scheduler: PreLoginScheduler) -> Endpoint | None:
    """Read the header from a non-blocking socket; return the client that it names, None for none.

    The caller sets the deadline. Raises ProxyHeaderFailed and PeerVanished.
    """
    reader, budget = HeaderReader(), ReadBudget()
    while not reader.done:
        await _wait_readable(sock, scheduler)
        try:
            if not (seen := sock.recv(reader.look, socket.MSG_PEEK)):
                raise PeerVanished("the connection was closed in the middle of a PROXY header")
            received = len(sock.recv(reader.feed(seen)))
        except (BlockingIOError, InterruptedError):
            received = 0
        except OSError as error:
            raise PeerVanished(reason(error)) from error
        if not budget.spend(received):
            raise ProxyHeaderFailed("the PROXY header comes in too many pieces")
    return None if reader.client is None else Endpoint(*reader.client)


async def _wait_readable(sock: socket.socket, scheduler: PreLoginScheduler) -> None:
    # Trio must not see closed sockets.
    if (fd := sock.fileno()) == -1:
        raise PeerVanished("the connection was closed")
    try:
        await scheduler.wait_readable(fd)
    except (trio.ClosedResourceError, OSError) as error:
        raise PeerVanished("the connection was closed") from error
