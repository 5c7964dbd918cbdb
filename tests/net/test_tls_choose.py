"""Which context answers a connection, where that depends on what the client asks for."""

import contextlib
import ipaddress
import socket
import ssl
from datetime import UTC, datetime

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from certs.context import make_challenge_context, make_context, make_waiting_context
from certs.metacert import make_metacert
from certs.parse import make_pair
from certs.selfsigned import make_self_signed
from derp.errors import PeerVanished, TLSFailed
from derp.net import tlsengine
from derp.net.address import Endpoint
from derp.net.tls import TLSTransport
from derp.net.tlsengine import TLSEngine
from derp.wire.clienthello import MAX_FLIGHT, UNREADABLE, ClientHello
from tests.net.tls_peer import HERE, THERE, Sockets, empty
from tests.patience import PATIENCE

ELSEWHERE = Endpoint("127.0.0.2", 443)


def context_for(address: str) -> ssl.SSLContext:
    now = datetime.now(UTC)
    certificate, key = make_self_signed(ipaddress.ip_address(address), now)
    pair = make_pair(certificate, key, chain_from="test", key_from="test")
    return make_context(pair, make_metacert(bytes(range(32)), now), address)


@pytest.fixture(scope="session")
def second_context() -> ssl.SSLContext:
    return context_for("127.0.0.2")


@attrs.define
class Chooser:
    """Answers `second` where it is asked for, `first` otherwise, and notes what it was asked."""

    engine: TLSEngine
    first: ssl.SSLContext
    second: ssl.SSLContext
    asked: list[tuple[ClientHello, Endpoint]] = attrs.Factory(list)

    def __call__(self, hello: ClientHello, local: Endpoint) -> ssl.SSLContext:
        assert empty(self.engine)
        self.asked.append((hello, local))
        wanted = (
            hello.server_name == "second.example" or b"second" in hello.alpn or local == ELSEWHERE
        )
        return self.second if wanted else self.first


@pytest.fixture
def chooser(
    engine: TLSEngine, server_context: ssl.SSLContext, second_context: ssl.SSLContext
) -> Chooser:
    chooser = Chooser(engine, server_context, second_context)
    engine.choose = chooser
    # That nobody gets this one shows who chooses.
    engine.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    return chooser


class Client:
    """A TLS client whose first flight a test can cut up or spoil."""

    def __init__(
        self, context: ssl.SSLContext, stream: trio.SocketStream, name: str | None = None
    ) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=name)
        self.stream = stream
        with pytest.raises(ssl.SSLWantReadError):
            self.tls.do_handshake()
        self.hello = self.outgoing.read()

    async def finish(self) -> None:
        """Shake hands to the end; raises ssl.SSLError for the server's alert."""
        while True:
            self.incoming.write(await self.stream.receive_some())
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                await self.stream.send_all(self.outgoing.read())
            else:
                await self.stream.send_all(self.outgoing.read())
                return

    async def alert(self) -> str:
        """Wait for the server's alert, and for the end of the connection."""
        with pytest.raises(ssl.SSLError) as caught:
            await self.finish()
        reason = caught.value.reason
        assert isinstance(reason, str)
        return reason

    @property
    def certificate(self) -> bytes | None:
        return self.tls.getpeercert(binary_form=True)


def served_by(context: ssl.SSLContext) -> bytes | None:
    """Return the leaf of a server context."""
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.check_hostname, client_context.verify_mode = False, ssl.CERT_NONE
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(back, there)
    server = context.wrap_bio(there, back, server_side=True)
    for side in (client, server, client):
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    return client.getpeercert(binary_form=True)


class Slow(TLSTransport):
    """A transport over a socket that gives 130 bytes at a time and takes 100."""

    __slots__ = ()

    def _receive(self, view: memoryview) -> int:
        return super()._receive(view[:130])

    def _send(self, data: bytes | bytearray | memoryview) -> int:
        return super()._send(data[:100])


async def shake(
    engine: TLSEngine,
    sockets: Sockets,
    context: ssl.SSLContext,
    name: str | None = None,
    local: Endpoint = HERE,
    kind: type[TLSTransport] = TLSTransport,
) -> Client:
    """Connect, and send a byte each way."""
    ours, stream = sockets()
    transport = kind(ours, THERE, local, engine)
    client = Client(context, stream, name)
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(transport.handshake)
            await stream.send_all(client.hello)
            await client.finish()
    client.tls.write(b"x")
    await stream.send_all(client.outgoing.read())
    assert empty(engine)
    await transport.wait_readable()
    view = memoryview(bytearray(100))
    while not (count := transport.read_into(view)):
        await transport.wait_readable()
    assert bytes(view[:count]) == b"x"
    transport.close()
    return client


async def refused(
    engine: TLSEngine, sockets: Sockets, context: ssl.SSLContext, name: str | None = None
) -> tuple[str, str]:
    """Connect in vain; return our reason, and the alert as the client's OpenSSL puts it."""
    ours, stream = sockets()
    transport = TLSTransport(ours, THERE, HERE, engine)
    client = Client(context, stream, name)
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, client.hello)
            with pytest.raises(TLSFailed) as caught:
                await transport.handshake()
    assert empty(engine)
    transport.close()
    return str(caught.value), await client.alert()


@pytest.mark.parametrize("kind", [TLSTransport, Slow])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    ("name", "alpn", "local"),
    [
        ("first.example", "http/1.1", HERE),
        ("second.example", "http/1.1", HERE),
        (None, "second", HERE),
        ("first.example", "http/1.1", ELSEWHERE),
        (None, None, HERE),
    ],
)
async def test_the_context_goes_by_name_protocol_and_local_address(
    engine: TLSEngine,
    client_context: ssl.SSLContext,
    sockets: Sockets,
    chooser: Chooser,
    *,
    name: str | None,
    alpn: str | None,
    local: Endpoint,
    version: ssl.TLSVersion,
    kind: type[TLSTransport],
) -> None:
    client_context.maximum_version = version
    if alpn is not None:
        client_context.set_alpn_protocols([alpn])
    client = await shake(engine, sockets, client_context, name, local, kind)
    hello = ClientHello(name, (alpn.encode(),) if alpn else ())
    assert chooser.asked == [(hello, local)]
    wanted = (name, alpn, local) not in [
        ("first.example", "http/1.1", HERE),
        (None, None, HERE),
    ]
    assert client.certificate == served_by(chooser.second if wanted else chooser.first)


async def test_without_a_choice_nothing_is_parsed(
    engine: TLSEngine,
    client_context: ssl.SSLContext,
    sockets: Sockets,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tlsengine, "HelloReader", None)
    await shake(engine, sockets, client_context, "first.example")


@pytest.mark.parametrize("kind", [TLSTransport, Slow])
async def test_a_large_hello(
    engine: TLSEngine,
    client_context: ssl.SSLContext,
    sockets: Sockets,
    chooser: Chooser,
    kind: type[TLSTransport],
) -> None:
    client_context.set_alpn_protocols([*(f"protocol-{i:04}" for i in range(4000)), "http/1.1"])
    client = await shake(engine, sockets, client_context, "second.example", kind=kind)
    assert len(client.hello) > 56_000
    assert len(chooser.asked[0][0].alpn) == 4001
    assert client.certificate == served_by(chooser.second)
    assert client.tls.selected_alpn_protocol() == "http/1.1"


async def test_a_hello_that_is_too_large_to_be_waited_for_is_still_served(
    engine: TLSEngine,
    client_context: ssl.SSLContext,
    sockets: Sockets,
    chooser: Chooser,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("derp.wire.clienthello.MAX_FLIGHT", 30_000)
    client_context.set_alpn_protocols([*(f"protocol-{i:04}" for i in range(4000)), "http/1.1"])
    client = await shake(engine, sockets, client_context, "second.example")
    assert chooser.asked[0][0] is UNREADABLE
    assert client.certificate == served_by(chooser.first)
    assert client.tls.selected_alpn_protocol() == "http/1.1"


async def test_hellos_that_arrive_at_the_same_time(
    engine: TLSEngine, client_context: ssl.SSLContext, sockets: Sockets, chooser: Chooser
) -> None:
    """What has come of one must not lie where the next one's bytes are put."""
    names = ["first.example", "second.example"] * 4
    transports, clients = [], []
    for name in names:
        ours, stream = sockets()
        transports.append(TLSTransport(ours, THERE, HERE, engine))
        clients.append(Client(client_context, stream, name))
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            for transport in transports:
                nursery.start_soon(transport.handshake)
            for start in range(0, max(len(client.hello) for client in clients), 100):
                for client in clients:
                    await client.stream.send_all(client.hello[start : start + 100])
                await wait_all_tasks_blocked()
                assert empty(engine)
            for client in clients:
                nursery.start_soon(client.finish)
    assert [hello.server_name for hello, _ in chooser.asked] == names
    expected = {
        "first.example": served_by(chooser.first),
        "second.example": served_by(chooser.second),
    }
    assert [client.certificate for client in clients] == [expected[name] for name in names]
    for transport in transports:
        transport.abort()


async def test_the_context_may_refuse_the_name(
    engine: TLSEngine, client_context: ssl.SSLContext, sockets: Sockets, chooser: Chooser
) -> None:
    chooser.first = context_for("127.0.0.3")
    chooser.first.sni_callback = lambda *_: ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
    assert await refused(engine, sockets, client_context, "other.example") == (
        "the client asked for another server name, or for none",
        "TLSV1_UNRECOGNIZED_NAME",
    )
    # The engine is sound for the next one.
    await shake(engine, sockets, client_context, "second.example")


@pytest.mark.parametrize("choosing", [True, False])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("name", ["first.example", None])
@pytest.mark.parametrize("protocols", [0, 4000])
@pytest.mark.parametrize(
    ("alert", "seen"),
    [
        (ssl.ALERT_DESCRIPTION_INTERNAL_ERROR, "TLSV1_ALERT_INTERNAL_ERROR"),
        (ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME, "TLSV1_UNRECOGNIZED_NAME"),
    ],
)
async def test_while_there_is_no_certificate(
    engine: TLSEngine,
    client_context: ssl.SSLContext,
    sockets: Sockets,
    *,
    choosing: bool,
    version: ssl.TLSVersion,
    name: str | None,
    protocols: int,
    alert: int,
    seen: str,
) -> None:
    client_context.maximum_version = version
    if protocols:
        client_context.set_alpn_protocols([f"protocol-{i:04}" for i in range(protocols)])
    waiting = make_waiting_context("no certificate yet", alert)
    engine.context = waiting
    if choosing:
        engine.choose = Chooser(engine, waiting, waiting)
    assert await refused(engine, sockets, client_context, name) == ("no certificate yet", seen)


@pytest.mark.parametrize("kind", [TLSTransport, Slow])
async def test_a_challenge_is_answered_beside_the_others(
    engine: TLSEngine,
    client_context: ssl.SSLContext,
    sockets: Sockets,
    server_context: ssl.SSLContext,
    kind: type[TLSTransport],
) -> None:
    now = datetime.now(UTC)
    certificate, key = make_self_signed(ipaddress.ip_address("192.0.2.7"), now)
    pair = make_pair(certificate, key, chain_from="test", key_from="test")
    challenge = make_challenge_context(pair)

    def choose(hello: ClientHello, _local: Endpoint) -> ssl.SSLContext:
        return challenge if hello.alpn == (b"acme-tls/1",) else server_context

    engine.choose = choose
    client = await shake(engine, sockets, client_context, "a.example", kind=kind)
    assert client.certificate == served_by(server_context)
    client_context.set_alpn_protocols(["acme-tls/1"])
    client = await shake(engine, sockets, client_context, "a.example", kind=kind)
    assert client.certificate == pair.chain_der[0]
    assert client.tls.selected_alpn_protocol() == "acme-tls/1"


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET /derp HTTP/1.1\r\nHost: second.example\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        bytes(1000),
        b"\xff" * (MAX_FLIGHT + 1),
        b"\x16\x03\x01\x00\x05hello",
        b"\x15\x03\x01\x00\x02\x02\x28",
        b"\x16\x03\x01\x00\x04\x01\x00\x00\x00",
    ],
)
@pytest.mark.parametrize("kind", [TLSTransport, Slow])
async def test_what_is_no_tls_is_refused_by_openssl_in_its_words(
    engine: TLSEngine,
    server_context: ssl.SSLContext,
    sockets: Sockets,
    garbage: bytes,
    kind: type[TLSTransport],
) -> None:
    async def answer() -> tuple[str, bytes]:
        """Return our reason, and what the peer is sent."""
        ours, client = sockets()
        transport = kind(ours, THERE, HERE, engine)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send_all, garbage)
            with pytest.raises(TLSFailed) as caught:
                await transport.handshake()
            nursery.cancel_scope.cancel()
        assert empty(engine)
        ours.shutdown(socket.SHUT_WR)
        sent = await client.receive_some()
        transport.close()
        return str(caught.value), bytes(sent)

    without_choice = await answer()
    chooser = Chooser(engine, server_context, server_context)
    engine.choose = chooser
    assert await answer() == without_choice
    assert chooser.asked == [(UNREADABLE, HERE)]
    assert ("http request" in without_choice[0]) is garbage.startswith(b"GET")


@pytest.mark.parametrize("sent", [0, 1, 4, 5, 50, -1])
async def test_leaving_in_the_middle_of_the_hello(
    engine: TLSEngine,
    client_context: ssl.SSLContext,
    sockets: Sockets,
    chooser: Chooser,
    sent: int,
) -> None:
    ours, stream = sockets()
    transport = TLSTransport(ours, THERE, HERE, engine)
    await stream.send_all(Client(client_context, stream).hello[:sent])
    await stream.aclose()
    with pytest.raises(PeerVanished, match="during the TLS handshake"):
        await transport.handshake()
    assert not chooser.asked
    assert empty(engine)
    transport.close()


@pytest.mark.parametrize("sent", [0, 50])
@pytest.mark.parametrize("end", [TLSTransport.close, TLSTransport.abort])
@pytest.mark.parametrize("choosing", [True, False])
async def test_an_end_before_the_hello_has_come(
    engine: TLSEngine,
    server_context: ssl.SSLContext,
    client_context: ssl.SSLContext,
    sockets: Sockets,
    sent: int,
    end: object,
    choosing: bool,
) -> None:
    assert callable(end)
    if choosing:
        engine.choose = lambda _hello, _local: server_context
    ours, stream = sockets()
    transport = TLSTransport(ours, THERE, HERE, engine)
    if sent:
        await stream.send_all(Client(client_context, stream).hello[:sent])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transport.handshake)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    # What costs memory is made when it is needed.
    assert not hasattr(transport, "_ssl")
    end(transport)
    with contextlib.suppress(trio.BrokenResourceError):
        assert await stream.receive_some() == b""
    assert ours.fileno() == -1
    assert empty(engine)


async def half_of_a_hello(
    nursery: trio.Nursery, engine: TLSEngine, context: ssl.SSLContext, sockets: Sockets
) -> Client:
    """Send half of a ClientHello, and see to it that it has been read."""
    ours, stream = sockets()
    transport = TLSTransport(ours, THERE, HERE, engine)
    client = Client(context, stream, "second.example")
    nursery.start_soon(transport.handshake)
    await stream.send_all(client.hello[:100])
    await wait_all_tasks_blocked()
    with pytest.raises(BlockingIOError):
        ours.recv(1, socket.MSG_PEEK)
    return client


async def test_a_choice_that_begins_in_the_middle_of_a_hello_is_asked(
    engine: TLSEngine,
    second_context: ssl.SSLContext,
    client_context: ssl.SSLContext,
    sockets: Sockets,
) -> None:
    async with trio.open_nursery() as nursery:
        client = await half_of_a_hello(nursery, engine, client_context, sockets)
        engine.choose = Chooser(engine, second_context, second_context)
        await client.stream.send_all(client.hello[100:])
        await client.finish()
    assert client.certificate == served_by(second_context)


async def test_a_choice_that_ends_in_the_middle_of_a_hello_is_not_asked(
    engine: TLSEngine,
    server_context: ssl.SSLContext,
    client_context: ssl.SSLContext,
    sockets: Sockets,
    chooser: Chooser,
) -> None:
    async with trio.open_nursery() as nursery:
        client = await half_of_a_hello(nursery, engine, client_context, sockets)
        engine.choose, engine.context = None, server_context
        await client.stream.send_all(client.hello[100:])
        await client.finish()
    assert not chooser.asked
    assert client.certificate == served_by(server_context)


async def test_the_context_is_the_one_of_the_moment_when_the_hello_comes(
    engine: TLSEngine,
    second_context: ssl.SSLContext,
    client_context: ssl.SSLContext,
    sockets: Sockets,
) -> None:
    ours, stream = sockets()
    transport = TLSTransport(ours, THERE, HERE, engine)
    client = Client(client_context, stream)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transport.handshake)
        await wait_all_tasks_blocked()
        engine.context = second_context
        await stream.send_all(client.hello)
        await client.finish()
    assert client.certificate == served_by(second_context)
