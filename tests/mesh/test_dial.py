"""From an entry of -mesh-with to DERP, over loopback: what may be wrong, and its cure."""

import contextlib
import errno
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import trio
import trio.testing
import trustme

from derp.config.mesh import MeshRelay
from derp.errors import NoLink
from derp.mesh.dial import MAX_HEAD, dial
from derp.net.congestion import algorithm_of
from derp.net.listener import NOTSENT_LOWAT, TCPOptions
from derp.net.socketoptions import SocketFactory, SocketOptions, interface_of
from derp.net.tlsclient import TLSClientTransport
from derp.net.tlsengine import TLSEngine
from derp.net.transport import Transport, receive
from tests.patience import PATIENCE

NAME = "derp2.example.com"
UPGRADED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\n"
OPTIONS = TCPOptions(keepalive_time=77.0, user_timeout=8.0, congestion="reno")
Stream = trio.abc.Stream
Script = Callable[[Stream], Awaitable[object]]
SCRATCH = memoryview(bytearray(64 << 10))


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def engine(authority: trustme.CA) -> TLSEngine:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return TLSEngine(context)


def tls(certificate: trustme.LeafCert, script: Script) -> Script:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)

    async def wrapped(stream: Stream) -> None:
        secured = trio.SSLStream(stream, context, server_side=True)
        with contextlib.suppress(trio.BrokenResourceError):
            await secured.do_handshake()
            await script(secured)

    return wrapped


async def head(stream: Stream) -> bytes:
    received = b""
    while not received.endswith(b"\r\n\r\n"):
        received += await stream.receive_some()
    return received


def answering(*pieces: bytes) -> Script:
    async def script(stream: Stream) -> None:
        await head(stream)
        for piece in pieces:
            await stream.send_all(piece)
        await trio.sleep_forever()

    return script


async def hang_up(stream: Stream) -> None:
    """Say nothing more."""


@contextlib.asynccontextmanager
async def listening(script: Script) -> AsyncIterator[int]:
    """Run `script` for each connection; close it at the script's end."""

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await script(stream)

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


def at(port: int, host: str = NAME) -> MeshRelay:
    return MeshRelay(host, port, "127.0.0.1")


async def reached(relay: MeshRelay, engine: TLSEngine) -> tuple[Transport, bytes]:
    transport, behind = await dial(relay, engine, OPTIONS, SCRATCH)
    assert not engine.incoming.pending
    assert not engine.outgoing.pending
    return transport, behind


async def failure(relay: MeshRelay, engine: TLSEngine) -> tuple[str, str | None]:
    with pytest.raises(NoLink) as caught:
        await dial(relay, engine, OPTIONS, SCRATCH)
    assert not engine.incoming.pending
    assert not engine.outgoing.pending
    message = str(caught.value)
    assert message.isprintable()
    return message, caught.value.cure


# --- all is well ---


async def test_the_request(authority: trustme.CA, engine: TLSEngine) -> None:
    requests: list[bytes] = []

    async def script(stream: Stream) -> None:
        requests.append(await head(stream))
        await stream.send_all(UPGRADED)
        await trio.sleep_forever()

    async with listening(tls(authority.issue_cert(NAME), script)) as port:
        transport, behind = await reached(at(port), engine)
        assert behind == b""
        lines = requests[0].decode().split("\r\n")
        assert lines[0] == "GET /derp HTTP/1.1"
        assert sorted(lines[1:-2]) == [
            "Connection: Upgrade",
            f"Host: {NAME}:{port}",
            "Upgrade: DERP",
            "User-Agent: derper",
        ]
        assert transport.remote.port == port
        transport.close()


@pytest.mark.parametrize(
    "pieces",
    [
        [UPGRADED + b"behind it"],
        [UPGRADED[:50], UPGRADED[50:], b"behind it"],
        [b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n" + UPGRADED, b"behind it"],
        [b"HTTP/1.1 101 \r\nX: " + b"x" * (MAX_HEAD - 100) + b"\r\n\r\n", b"behind it"],
    ],
)
async def test_the_answer(authority: trustme.CA, engine: TLSEngine, pieces: list[bytes]) -> None:
    async with listening(tls(authority.issue_cert(NAME), answering(*pieces))) as port:
        transport, behind = await reached(at(port), engine)
        with trio.fail_after(PATIENCE):
            while len(behind) < 9:
                behind += await receive(transport, SCRATCH)
        assert behind == b"behind it"
        transport.close()


async def test_the_options_of_the_socket(authority: trustme.CA, engine: TLSEngine) -> None:
    async with listening(tls(authority.issue_cert(NAME), answering(UPGRADED))) as port:
        transport, _ = await reached(at(port), engine)
        assert isinstance(transport, TLSClientTransport)
        sock, protocol = transport._socket, socket.IPPROTO_TCP
        assert not sock.getblocking()
        assert sock.getsockopt(protocol, socket.TCP_NODELAY)
        assert sock.getsockopt(protocol, socket.TCP_KEEPIDLE) == 77
        assert sock.getsockopt(protocol, socket.TCP_USER_TIMEOUT) == 8000
        assert sock.getsockopt(protocol, socket.TCP_NOTSENT_LOWAT) == NOTSENT_LOWAT
        assert algorithm_of(sock) == "reno"
        transport.close()


async def test_what_a_socket_is_bound_to_before_it_connects(
    authority: trustme.CA, engine: TLSEngine
) -> None:
    SocketFactory().install()

    async def script(stream: Stream) -> None:
        await head(stream)
        await stream.send_all(UPGRADED)
        await trio.sleep_forever()

    async with listening(tls(authority.issue_cert(NAME), script)) as port:
        lo = SocketOptions(interface="lo")
        transport, _ = await dial(at(port), engine, OPTIONS, SCRATCH, lo)
        assert isinstance(transport, TLSClientTransport)
        assert interface_of(transport._socket) == "lo"
        transport.close()
        with pytest.raises(NoLink, match="no such device"):
            await dial(at(port), engine, OPTIONS, SCRATCH, SocketOptions("nonesuch0"))


async def test_by_address(authority: trustme.CA, engine: TLSEngine) -> None:
    async with listening(tls(authority.issue_cert("127.0.0.1"), answering(UPGRADED))) as port:
        transport, _ = await reached(MeshRelay("127.0.0.1", port), engine)
        transport.close()


class Resolver(trio.abc.HostnameResolver):
    """Knows names, and what is wrong with others."""

    def __init__(self, known: dict[str, object]) -> None:
        self.known = known

    async def getaddrinfo(self, host: Any, port: Any, *_: Any, **__: Any) -> Any:
        await trio.lowlevel.checkpoint()
        found = self.known[host.decode() if isinstance(host, bytes) else host]
        if isinstance(found, Exception):
            raise found
        assert isinstance(found, list)
        stream = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
        return [(*stream, (address, port)) for address in found]

    async def getnameinfo(self, *_: Any) -> Any:
        raise NotImplementedError


def knowing(**names: object) -> None:
    trio.socket.set_custom_hostname_resolver(Resolver(names))


async def test_by_any_of_its_addresses(authority: trustme.CA, engine: TLSEngine) -> None:
    knowing(derp_2=["127.0.0.2", "127.0.0.1"])
    async with listening(tls(authority.issue_cert(NAME), answering(UPGRADED))) as port:
        transport, _ = await reached(MeshRelay(NAME, port, "derp_2"), engine)
        assert transport.remote.host == "127.0.0.1"
        transport.close()


# --- the way there ---


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    assert isinstance(port, int)
    return port


async def test_nobody_there(engine: TLSEngine, closed_port: int) -> None:
    cure = "does the relay run, and is the port open?"
    refused = f"port {closed_port}: connection refused"
    assert await failure(at(closed_port), engine) == (f"TCP 127.0.0.1 {refused}", cure)
    knowing(derp2=["127.0.0.2", "127.0.0.1"])
    found = await failure(MeshRelay("derp2", closed_port), engine)
    assert found == (f"TCP derp2 {refused}", cure)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "name or service not "),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), "temporary "),
        (socket.gaierror(), "unknown"),
    ],
)
async def test_no_such_name(engine: TLSEngine, error: Exception, reason: str) -> None:
    knowing(derp2=error)
    for relay in (MeshRelay("derp2"), MeshRelay(NAME, 443, "derp2")):
        message, cure = await failure(relay, engine)
        assert message.startswith(f"the name derp2 can't be looked up: {reason}")
        assert cure == "is it right in -mesh-with?"


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "too many open files"),
        (OSError("all attempts failed"), "no connection"),
    ],
)
async def test_no_connection_at_all(
    engine: TLSEngine, monkeypatch: pytest.MonkeyPatch, error: OSError, why: str
) -> None:
    async def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(trio, "open_tcp_stream", fail)
    assert (await failure(at(1), engine))[0] == f"TCP 127.0.0.1 port 1: {why}"


async def test_a_name_server_that_is_silent(
    mock_clock: trio.testing.MockClock, engine: TLSEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(*_: object) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(trio, "open_tcp_stream", hang)
    mock_clock.autojump_threshold = 0
    message, _ = await failure(MeshRelay("derp2"), engine)
    assert message == "TCP derp2 port 443 does not answer"
    assert trio.current_time() == 10


# --- TLS ---


@pytest.mark.parametrize("dialled", [NAME, "192.0.2.1"])
async def test_another_name_on_the_certificate(
    authority: trustme.CA, engine: TLSEngine, dialled: str
) -> None:
    async with listening(tls(authority.issue_cert("other.example"), hang_up)) as port:
        message, cure = await failure(at(port, dialled), engine)
    assert "mismatch, certificate is not valid for" in message
    want = f"name it as its certificate does: -mesh-with NAME:{port}/127.0.0.1"
    assert cure == want


async def test_an_authority_that_is_not_known(engine: TLSEngine) -> None:
    async with listening(tls(trustme.CA().issue_cert(NAME), hang_up)) as port:
        message, cure = await failure(at(port), engine)
    assert message == (
        "TLS fails: certificate verify failed: unable to get local issuer certificate"
    )
    assert cure == "if your own authority signed its certificate, name the root in SSL_CERT_FILE"


async def test_a_certificate_that_has_expired(authority: trustme.CA, engine: TLSEngine) -> None:
    past = datetime(2020, 1, 1, tzinfo=UTC)
    async with listening(tls(authority.issue_cert(NAME, not_after=past), hang_up)) as port:
        message, cure = await failure(at(port), engine)
    assert message == "TLS fails: certificate verify failed: certificate has expired"
    assert cure == "renew its certificate, or set this machine's clock"


@pytest.mark.parametrize(
    ("alert", "reason", "cure"),
    [
        (112, "unrecognized name", "name it as its certificate does: -mesh-with NAME:{}/127.0.0.1"),
        (80, "internal error", "it has no certificate yet; see its log"),
        (40, "handshake failure", "does it serve HTTPS on that port?"),
    ],
)
async def test_an_alert(engine: TLSEngine, alert: int, reason: str, cure: str) -> None:
    async def script(stream: Stream) -> None:
        await stream.receive_some()
        await stream.send_all(bytes([0x15, 3, 3, 0, 2, 2, alert]))
        await stream.receive_some()

    async with listening(script) as port:
        message, found = await failure(at(port), engine)
    assert message.startswith("TLS fails: ")
    assert message.endswith(reason)
    assert found == cure.format(port)


async def http_only(stream: Stream) -> None:
    await stream.receive_some()
    await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await stream.receive_some()


@pytest.mark.parametrize("script", [http_only, hang_up])
async def test_no_tls_at_all(engine: TLSEngine, script: Script) -> None:
    async with listening(script) as port:
        message, cure = await failure(at(port), engine)
    assert message.startswith("TLS fails: ")
    assert cure == "does it serve HTTPS on that port?"


# --- the upgrade ---


@pytest.mark.parametrize("status", [200, 204, 302, 404, 426, 503])
async def test_no_upgrade(authority: trustme.CA, engine: TLSEngine, status: int) -> None:
    answer = f"HTTP/1.1 {status} \x1b[1mNo\r\nContent-Length: 0\r\n\r\n".encode()
    async with listening(tls(authority.issue_cert(NAME), answering(answer))) as port:
        message, cure = await failure(at(port), engine)
    if status != 204:
        assert message in {
            f"it answers HTTP {status} to the upgrade",
            "it does not answer in HTTP",
        }
    assert cure in {"does it serve DERP, at /derp?", "is it a DERP relay?"}


@pytest.mark.parametrize(
    "answer",
    [
        b"\0" * 100,
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 101 \r\nX: " + b"x" * (2 * MAX_HEAD) + b"\r\n\r\n",
        b"HTTP/1.1 99 X\r\n\r\n",
        b"HTTP/1.1 101 X\r\nbad header\r\n\r\n",
    ],
)
async def test_no_http(authority: trustme.CA, engine: TLSEngine, answer: bytes) -> None:
    async with listening(tls(authority.issue_cert(NAME), answering(answer))) as port:
        assert await failure(at(port), engine) == (
            "it does not answer in HTTP",
            "is it a DERP relay?",
        )


async def test_the_connection_ends_instead(authority: trustme.CA, engine: TLSEngine) -> None:
    for pieces in ([], [UPGRADED[:30]]):

        async def script(stream: Stream, pieces: list[bytes] = pieces) -> None:
            await head(stream)
            for piece in pieces:
                await stream.send_all(piece)

        async with listening(tls(authority.issue_cert(NAME), script)) as port:
            assert (await failure(at(port), engine))[0] == "it does not answer in HTTP"


@pytest.mark.parametrize("stage", ["TLS handshake", "HTTP request"])
async def test_a_relay_that_is_silent(
    mock_clock: trio.testing.MockClock, authority: trustme.CA, engine: TLSEngine, stage: str
) -> None:
    async def silent(stream: Stream) -> None:
        await stream.receive_some()
        mock_clock.jump(10)
        await trio.sleep_forever()

    script = silent if stage == "TLS handshake" else tls(authority.issue_cert(NAME), silent)
    async with listening(script) as port:
        assert await failure(at(port), engine) == (f"it does not answer the {stage}", None)
