"""Dialling another relay: name look-up, TCP, TLS and HTTP upgrade for an entry of -mesh-with.

Matches connect and dialURL of Go's derphttp.Client: no proxy, and always HTTPS. The certificate is
verified by the system's roots (SSL_CERT_FILE and SSL_CERT_DIR name others), and for the entry's
host, even if another is dialled. The upgrade has no fast start, so that it passes proxies in front
of the other relay: links are dialled too seldom for a round trip to matter.
"""

import os
import socket
import ssl
from types import TracebackType
from typing import Final

import attrs
import h11
import trio

from derp.config.mesh import MeshRelay
from derp.errors import NoLink, PeerVanished, TLSFailed
from derp.net import httpclient, tlserrors
from derp.net.address import endpoint
from derp.net.listener import TCPOptions
from derp.net.oserrors import os_errors
from derp.net.socketoptions import DEFAULTS, SocketOptions, used
from derp.net.tlsclient import TLSClientTransport
from derp.net.tlsengine import TLSEngine
from derp.net.transport import Transport, receive

TIMEOUT: Final = 10.0
"""Seconds for the whole of `dial` (Go: Client.connect)."""
MAX_HEAD: Final = 16 << 10
"""Bytes that the head of the answer to the upgrade may have."""

_UPGRADED: Final = 101


async def dial(
    relay: MeshRelay,
    engine: TLSEngine,
    options: TCPOptions,
    scratch: memoryview,
    made_with: SocketOptions = DEFAULTS,
) -> tuple[Transport, bytes]:
    """Connect and upgrade; return the transport, and the bytes after the 101 answer.

    `scratch` is a shared buffer, whose content is not kept across an await. Options that a socket
    needs before it connects are in `made_with`; others than the defaults take a SocketFactory that
    is installed. Raises NoLink.
    """
    deadline = trio.current_time() + TIMEOUT
    with used(made_with):
        sock = await _connect(relay, deadline)
    try:
        options.apply(sock)
        remote, local = endpoint(sock.getpeername()), endpoint(sock.getsockname())
    except OSError as error:
        sock.close()
        raise NoLink("the connection was reset at once") from error
    transport = TLSClientTransport(sock, remote, local, engine, relay.host)
    try:
        await _handshake(transport, relay, deadline)
        return transport, await _upgrade(transport, relay, scratch[:MAX_HEAD], deadline)
    except BaseException:
        transport.abort()
        raise


class NoLinkAt:
    """A deadline as of trio.fail_at, which raises `late` if the block is not done by then.

    Not made by contextlib: Python 3.13 leaves the generator and the exception in a cycle.
    """

    def __init__(self, deadline: float, late: NoLink) -> None:
        self._scope = trio.CancelScope(deadline=deadline)
        self._late = late

    def __enter__(self) -> None:
        self._scope.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        swallowed = self._scope.__exit__(kind, error, traceback)
        if self._scope.cancelled_caught:
            raise self._late
        return bool(swallowed)


async def _connect(relay: MeshRelay, deadline: float) -> socket.socket:
    """Look the host up and try its addresses (Happy Eyeballs, RFC 8305). Raises NoLink."""
    host, port = relay.dial_host or relay.host, relay.port
    late = NoLink(
        f"TCP {host} port {port} does not answer", "does the relay run, and is the port open?"
    )
    with NoLinkAt(deadline, late):
        try:
            # Bytes, since older Trios refuse underscores in host names of type str.
            stream = await trio.open_tcp_stream(host.encode("ascii"), port)
        except socket.gaierror as error:
            why = (error.strerror or "unknown").lower()
            raise NoLink(
                f"the name {host} can't be looked up: {why}", "is it right in -mesh-with?"
            ) from error
        except OSError as error:
            number = next((cause.errno for cause in os_errors(error) if cause.errno), None)
            why = "no connection" if number is None else os.strerror(number).lower()
            raise NoLink(f"TCP {host} port {port}: {why}", late.cure) from error
    sock = socket.socket(fileno=stream.socket.detach())
    sock.setblocking(False)
    return sock


async def _handshake(transport: TLSClientTransport, relay: MeshRelay, deadline: float) -> None:
    with NoLinkAt(deadline, NoLink("it does not answer the TLS handshake")):
        try:
            await transport.handshake()
        except (TLSFailed, PeerVanished) as error:
            raise NoLink(f"TLS fails: {error}", _tls_cure(error.__cause__, relay)) from error


def _tls_cure(cause: BaseException | None, relay: MeshRelay) -> str:
    reason = cause.reason if isinstance(cause, ssl.SSLError) else None
    code = cause.verify_code if isinstance(cause, ssl.SSLCertVerificationError) else None
    if code in tlserrors.NAME_MISMATCHES or reason == tlserrors.UNRECOGNIZED_NAME:
        example = attrs.evolve(relay, host="NAME", dial_host=relay.dial_host or relay.host)
        return f"name it as its certificate does: -mesh-with {example}"
    if code == tlserrors.CERT_HAS_EXPIRED:
        return "renew its certificate, or set this machine's clock"
    if code is not None:
        return "if your own authority signed its certificate, name the root in SSL_CERT_FILE"
    if reason == tlserrors.INTERNAL_ERROR:
        return "it has no certificate yet; see its log"
    return "does it serve HTTPS on that port?"


async def _upgrade(
    transport: Transport, relay: MeshRelay, scratch: memoryview, deadline: float
) -> bytes:
    """Upgrade to DERP; return the bytes after the 101 answer. Raises NoLink."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
    headers = [
        ("Host", relay.authority),
        ("User-Agent", "derper"),
        ("Upgrade", "DERP"),
        ("Connection", "Upgrade"),
    ]
    with NoLinkAt(deadline, NoLink("it does not answer the HTTP request")):
        try:
            transport.write(httpclient.request(connection, "GET", "/derp", headers))
            await transport.flush()
            while (head := httpclient.response_head(connection)) is None:
                connection.receive_data(await receive(transport, scratch))
            status = head.status_code
        except (PeerVanished, TLSFailed) as error:
            raise NoLink(f"the HTTP request fails: {error}") from error
        except h11.RemoteProtocolError as error:
            raise NoLink("it does not answer in HTTP", "is it a DERP relay?") from error
    if status != _UPGRADED:
        raise NoLink(f"it answers HTTP {status} to the upgrade", "does it serve DERP, at /derp?")
    return connection.trailing_data[0]
