import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime

import pytest
import trio

from certs.context import make_context
from certs.metacert import make_metacert
from certs.parse import make_pair
from certs.selfsigned import make_self_signed
from derp.net.address import Endpoint
from derp.net.tlsengine import TLSEngine

HERE = Endpoint("127.0.0.1", 443)
THERE = Endpoint("192.0.2.1", 50000)


@pytest.fixture(scope="session")
def server_context() -> ssl.SSLContext:
    now = datetime.now(UTC)
    certificate, key = make_self_signed(ipaddress.ip_address("127.0.0.1"), now)
    pair = make_pair(certificate, key, chain_from="test", key_from="test")
    return make_context(pair, make_metacert(bytes(range(32)), now), "127.0.0.1")


@pytest.fixture
def engine(server_context: ssl.SSLContext) -> TLSEngine:
    return TLSEngine(server_context)


@pytest.fixture
def client_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@pytest.fixture
async def sockets() -> AsyncIterator[Callable[[], tuple[socket.socket, trio.SocketStream]]]:
    """Make connected pairs: the server's plain non-blocking socket, the client's Trio stream."""
    opened: list[socket.socket | trio.socket.SocketType] = []

    def make() -> tuple[socket.socket, trio.SocketStream]:
        ours, theirs = socket.socketpair()
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(theirs))
        opened.extend((ours, stream.socket))
        ours.setblocking(False)
        return ours, stream

    yield make
    for sock in opened:
        sock.close()
