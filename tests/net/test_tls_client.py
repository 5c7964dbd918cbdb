"""The client's end of TLS, against our own server's end and OpenSSL's."""

import random
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trustme

from derp.errors import ConnectionEnd, PeerVanished, TLSFailed
from derp.net.tls import TLSTransport
from derp.net.tlsclient import TLSClientTransport
from derp.net.tlsengine import TLSEngine
from derp.net.transport import receive
from tests.net.tls_peer import HERE, THERE, Sockets, empty

NAME = "derp2.example.com"


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def serving(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(*names).configure_cert(context)
    return context


@asynccontextmanager
async def both_ends(
    sockets: Sockets, context: ssl.SSLContext, engine: TLSEngine, name: str = NAME
) -> AsyncIterator[tuple[TLSClientTransport, "trio.SSLStream[trio.SocketStream]"]]:
    """Give our client's end before the handshake, and OpenSSL's server end."""
    ours, stream = sockets()
    client = TLSClientTransport(ours, THERE, HERE, engine, name)
    yield client, trio.SSLStream(stream, context, server_side=True)
    client.abort()


async def shake_hands(
    client: TLSClientTransport, server: "trio.SSLStream[trio.SocketStream]"
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.handshake)
        nursery.start_soon(server.do_handshake)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("name", [NAME, "192.0.2.7", "2001:db8::7"])
async def test_hello_both_ways(
    authority: trustme.CA,
    trusting: ssl.SSLContext,
    sockets: Sockets,
    version: ssl.TLSVersion,
    name: str,
) -> None:
    context = serving(authority, name)
    context.maximum_version = version
    asked: list[object] = []
    context.set_servername_callback(lambda _sock, server_name, _context: asked.append(server_name))
    engine = TLSEngine(trusting)
    async with both_ends(sockets, context, engine, name) as (client, server):
        await shake_hands(client, server)
        assert empty(engine)
        assert client.tls_version == version.name.replace("_", ".")
        assert asked == [name if name == NAME else None]
        client.write(b"hello")
        assert await server.receive_some() == b"hello"
        await server.send_all(b"and back")
        assert await receive(client, memoryview(bytearray(100))) == b"and back"
        client.close()
        assert await server.receive_some() == b""
        assert empty(engine)


@pytest.mark.parametrize("size", [1, 16385, 3_000_000])
async def test_our_own_server(
    engine: TLSEngine, client_context: ssl.SSLContext, sockets: Sockets, size: int
) -> None:
    """Its chain ends in the metacert."""
    data = random.Random(size).randbytes(size)
    ours, stream = sockets()
    client = TLSClientTransport(ours, THERE, HERE, TLSEngine(client_context), "x")
    theirs = TLSTransport(_plain(stream.socket), HERE, THERE, engine)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.handshake)
        nursery.start_soon(theirs.handshake)
    view = memoryview(bytearray(1 << 20))
    got = bytearray()

    async def send(transport: TLSTransport) -> None:
        transport.write(data)
        await transport.flush()

    for sender, receiver in ((client, theirs), (theirs, client)):
        got.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, sender)
            while len(got) < size:
                got += await receive(receiver, view)
        assert got == data
    theirs.close()
    assert await receive(client, view) == b""
    client.close()


def _plain(sock: trio.socket.SocketType) -> socket.socket:
    plain = socket.socket(fileno=sock.detach())
    plain.setblocking(False)
    return plain


async def refusal(
    client: TLSClientTransport, server: "trio.SSLStream[trio.SocketStream]"
) -> ConnectionEnd:
    """Return why our client's end does not go on; the other end hears of it."""
    found: list[ConnectionEnd] = []

    async def shake() -> None:
        try:
            await client.handshake()
        except ConnectionEnd as error:
            found.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(shake)
        with pytest.raises(trio.BrokenResourceError) as caught:
            await server.do_handshake()
    assert isinstance(caught.value.__cause__, ssl.SSLError)
    return found[0]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("derp3.example.com", "Hostname mismatch, certificate is not valid for "),
        ("192.0.2.7", "IP address mismatch, certificate is not valid for "),
    ],
)
async def test_another_name(
    authority: trustme.CA, trusting: ssl.SSLContext, sockets: Sockets, name: str, message: str
) -> None:
    engine = TLSEngine(trusting)
    async with both_ends(sockets, serving(authority, NAME), engine, name) as (client, server):
        error = await refusal(client, server)
    assert isinstance(error, TLSFailed)
    assert str(error).startswith(f"certificate verify failed: {message}'{name}'")
    assert isinstance(error.__cause__, ssl.SSLCertVerificationError)
    assert empty(engine)


async def test_another_authority(trusting: ssl.SSLContext, sockets: Sockets) -> None:
    context = serving(trustme.CA(), NAME)
    async with both_ends(sockets, context, TLSEngine(trusting)) as (client, server):
        error = await refusal(client, server)
    assert str(error) == "certificate verify failed: unable to get local issuer certificate"


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x15\x03\x03\x00\x02\x02\x28"]
)
async def test_no_tls_at_the_other_end(
    trusting: ssl.SSLContext, sockets: Sockets, answer: bytes
) -> None:
    ours, stream = sockets()
    engine = TLSEngine(trusting)
    client = TLSClientTransport(ours, THERE, HERE, engine, NAME)
    await stream.send_all(answer)
    with pytest.raises(TLSFailed):
        await client.handshake()
    assert empty(engine)
    client.abort()


async def test_the_other_end_leaves(trusting: ssl.SSLContext, sockets: Sockets) -> None:
    ours, stream = sockets()
    client = TLSClientTransport(ours, THERE, HERE, TLSEngine(trusting), NAME)
    await stream.send_eof()
    with pytest.raises(PeerVanished, match="during the TLS handshake"):
        await client.handshake()
    client.abort()
