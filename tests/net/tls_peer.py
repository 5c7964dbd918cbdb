"""A TLS connection over a pair of sockets: our transport, and trio's TLS at the other end."""

import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import trio

from derp.net.address import Endpoint
from derp.net.tls import TLSTransport
from derp.net.tlsengine import TLSEngine
from tests.net.records import RecordWriter

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


class RawClient:
    """A TLS client whose ciphertext a test can hold back or spoil."""

    def __init__(self, context: ssl.SSLContext, stream: trio.SocketStream) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing)
        self.stream = stream

    async def shake_hands(self, early: bytes = b"") -> None:
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                await self.stream.send_all(self.outgoing.read())
                self.incoming.write(await self.stream.receive_some())
            else:
                break
        if early:
            self.tls.write(early)
        await self.stream.send_all(self.outgoing.read())

    def encrypt(self, data: bytes) -> bytes:
        self.tls.write(data)
        return self.outgoing.read()


async def raw_connected(
    engine: TLSEngine, context: ssl.SSLContext, sockets: Sockets, early: bytes = b""
) -> tuple[TLSTransport, RawClient]:
    ours, stream = sockets()
    transport = TLSTransport(ours, THERE, HERE, engine)
    client = RawClient(context, stream)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transport.handshake)
        nursery.start_soon(client.shake_hands, early)
    return transport, client


async def by_hand(
    engine: TLSEngine, context: ssl.SSLContext, sockets: Sockets, tmp_path: Path
) -> tuple[TLSTransport, RawClient, RecordWriter]:
    """Connect a client whose records are made by hand from now on."""
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.keylog_filename = str(tmp_path / "keys")
    transport, client = await raw_connected(engine, context, sockets)
    assert client.tls.cipher() == ("TLS_AES_256_GCM_SHA384", "TLSv1.3", 256)
    secrets = {
        line.split()[0]: line.split()[2]
        for line in (tmp_path / "keys").read_text().splitlines()
        if not line.startswith("#")
    }
    return transport, client, RecordWriter(bytes.fromhex(secrets["CLIENT_TRAFFIC_SECRET_0"]))
