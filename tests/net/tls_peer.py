"""A TLS connection over a pair of sockets: our transport, and trio's TLS at the other end."""

import socket
import ssl
from collections.abc import Callable

import trio

from derp.net.tls import TLSEngine, TLSTransport
from derp.net.transport import Endpoint

HERE, THERE = Endpoint("127.0.0.1", 443), Endpoint("192.0.2.1", 50000)
Sockets = Callable[[], tuple[socket.socket, trio.SocketStream]]


def empty(engine: TLSEngine) -> bool:
    return engine.incoming.pending == 0 and engine.outgoing.pending == 0


async def connected(
    engine: TLSEngine, client_context: ssl.SSLContext, sockets: Sockets
) -> tuple[TLSTransport, trio.SSLStream[trio.SocketStream]]:
    ours, stream = sockets()
    transport = TLSTransport(ours, THERE, HERE, engine)
    client = trio.SSLStream(stream, client_context)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transport.handshake)
        nursery.start_soon(client.do_handshake)
    assert empty(engine)
    return transport, client
