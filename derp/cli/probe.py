"""Probes of a relay, as its clients see it: TCP, TLS, the upgrade to DERP, STUN.

Each probe takes a deadline in Trio's time, and raises a ProbeFailed that says what came instead of
the answer. The caller adds the cure, which depends on whether the relay is on this machine.
"""

import contextlib
import errno
import os
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import h11
import trio

from derp.errors import DerperError
from derp.net import httpclient
from derp.net.address import Endpoint, endpoint
from derp.net.listenaddress import UnixSocket
from derp.relay.networks import PeerNetwork, is_in
from derp.wire.frames import HEADER, HEADER_LENGTH, KEY_LENGTH, MAGIC, FrameType
from derp.wire.proxyprotocol import LOCAL_HEADER
from stun.message import StunError, build_binding_request, parse_binding_response

STUN_AGAIN: Final = 0.5
"""Seconds until a STUN request counts as lost, and another is sent."""

Where = Endpoint | UnixSocket
"""Where a relay is."""

_GREETING_LENGTH: Final = HEADER_LENGTH + len(MAGIC) + KEY_LENGTH
_NO_ROUTE: Final = {errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}
_LONGEST_LINE: Final = 100


class ProbeFailed(DerperError):
    """A probe was not answered, or not as a relay answers it."""


class NotReached(ProbeFailed):
    """There is no TCP connection."""

    def __init__(self, message: str, *, no_route: bool = False) -> None:
        super().__init__(message)
        self.no_route = no_route
        """Whether this machine has no route to the address, which says nothing about the relay."""


class NoTLS(ProbeFailed):
    """The TLS handshake failed."""

    def __init__(self, message: str, error: ssl.SSLError | None = None) -> None:
        super().__init__(message)
        self.error = error
        """OpenSSL's error; None if no TLS came back."""

    @property
    def reason(self) -> str:
        """OpenSSL's name for the error; empty for none."""
        return "" if self.error is None else self.error.reason or ""


class NoDERP(ProbeFailed):
    """The server that answers does not speak DERP."""


class NoSTUN(ProbeFailed):
    """There is no answer to STUN, or a wrong one."""


async def connect(
    where: Where, deadline: float, header_from: Sequence[PeerNetwork] = ()
) -> trio.SocketStream:
    """Connect to an IP address by TCP, or to a unix socket. Raises NotReached.

    Where this machine's own address is in `header_from`, send a PROXY header first.
    """
    address: str | tuple[str, int]
    if isinstance(where, UnixSocket):
        family, address, name = socket.AF_UNIX, str(where.path), str(where)
    else:
        family = socket.AF_INET6 if ":" in where.host else socket.AF_INET
        address, name = (where.host, where.port), f"TCP {where}"
    with _fail_at(deadline, lambda: NotReached(f"{name} does not answer")):
        try:
            sock = trio.socket.socket(family, socket.SOCK_STREAM)
            try:
                await sock.connect(address)
                if header := _header(sock, header_from):
                    await sock.send(header)
            except BaseException:
                sock.close()
                raise
        except OSError as error:
            no_route = error.errno in _NO_ROUTE
            raise NotReached(f"{name}: {_words(error)}", no_route=no_route) from error
        return trio.SocketStream(sock)


async def handshake(
    stream: trio.SocketStream, where: Where, context: ssl.SSLContext, name: str, deadline: float
) -> "trio.SSLStream[trio.SocketStream]":
    """Do the TLS handshake, with the server name `name`. Raises NoTLS."""
    tls = trio.SSLStream(stream, context, server_hostname=name, https_compatible=True)
    with _fail_at(deadline, lambda: NoTLS(f"{where} does not answer the TLS handshake")):
        try:
            await tls.do_handshake()
        except trio.BrokenResourceError as error:
            cause = error.__cause__
            ended = isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError)
            if ended or not isinstance(cause, ssl.SSLError):
                raise NoTLS(f"{where} ends the connection instead of speaking TLS") from error
            if cause.reason in {"WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG"}:
                raise NoTLS(f"{where} does not speak TLS") from error
            raise NoTLS(f"TLS at {where} fails: {_openssl_words(cause)}", cause) from error
    return tls


def insecure_context() -> ssl.SSLContext:
    """Return a context that accepts any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def upgrade(stream: trio.abc.Stream, where: Where, host: str, deadline: float) -> bytes:
    """Upgrade to DERP, without a login; return the relay's key, 32 bytes. Raises NoDERP.

    With fast start (Go: derphttp.Client.connect) the ServerKey frame replaces the response.
    """
    headers = [("Upgrade", "DERP"), ("Connection", "Upgrade"), ("Derp-Fast-Start", "1")]
    request = _request("/derp", host, headers)
    received = await _exchange(stream, where, request, _GREETING_LENGTH, deadline)
    if received.startswith(b"HTTP/"):
        raise NoDERP(f"{where} refuses the upgrade to DERP: {_status(received)}")
    payload = bytes(received[HEADER_LENGTH:_GREETING_LENGTH])
    if (
        len(received) < _GREETING_LENGTH
        or HEADER.unpack_from(received)[0] != FrameType.SERVER_KEY
        or not payload.startswith(MAGIC)
    ):
        raise NoDERP(f"{where} does not speak DERP")
    return payload.removeprefix(MAGIC)


async def latency_check(stream: trio.abc.Stream, where: Where, host: str, deadline: float) -> None:
    """Check that a relay with -derp=false serves its pages. Raises NoDERP.

    It asks as clients do (Go: measureHTTPSLatency of netcheck): to others, a hidden relay answers
    as another server.
    """
    headers = [("User-Agent", "Go-http-client/1.1"), ("Accept-Encoding", "gzip")]
    request = _request("/derp/latency-check", host, headers)
    received = await _exchange(stream, where, request, _LONGEST_LINE, deadline)
    if not received.startswith(b"HTTP/"):
        raise NoDERP(f"{where} answers a probe with something other than HTTP")
    if received.split()[1:2] != [b"200"]:
        raise NoDERP(f"{where} answers a probe with {_status(received)}")


async def stun(where: Endpoint, deadline: float, header_from: Sequence[PeerNetwork] = ()) -> None:
    """Send a STUN binding request, and check the response; see `connect`. Raises NoSTUN."""
    family = socket.AF_INET6 if ":" in where.host else socket.AF_INET
    transaction = os.urandom(12)
    with _fail_at(deadline, lambda: NoSTUN(f"UDP {where} does not answer STUN")):
        try:
            with trio.socket.socket(family, socket.SOCK_DGRAM) as sock:
                await sock.connect((where.host, where.port))
                request = _header(sock, header_from) + build_binding_request(transaction)
                while True:
                    await sock.send(request)
                    with trio.move_on_after(STUN_AGAIN):
                        answer = await sock.recv(2048)
                        break
            answered, _ = parse_binding_response(answer)
        except OSError as error:
            raise NoSTUN(f"UDP {where}: {_words(error)}") from error
        except StunError as error:
            raise NoSTUN(f"UDP {where} answers with something other than STUN: {error}") from error
    if answered != transaction:
        raise NoSTUN(f"UDP {where} answers a STUN request that was not sent")


async def close(stream: trio.abc.Stream, deadline: float) -> None:
    """Close `stream`, with TLS's close_notify if there is time."""
    with trio.move_on_at(deadline), contextlib.suppress(trio.BrokenResourceError):
        await stream.aclose()


def _header(sock: trio.socket.SocketType, header_from: Sequence[PeerNetwork]) -> bytes:
    """Return the PROXY header that the relay wants from a connected socket; empty for none."""
    own = endpoint(sock.getsockname()).host
    return LOCAL_HEADER if header_from and is_in(own, header_from) else b""


@contextlib.contextmanager
def _fail_at(deadline: float, late: Callable[[], ProbeFailed]) -> Iterator[None]:
    with trio.move_on_at(deadline) as scope:
        yield
    if scope.cancelled_caught:
        raise late()


async def _exchange(
    stream: trio.abc.Stream, where: Where, request: bytes, enough: int, deadline: float
) -> bytes:
    """Send an HTTP request; return the status line, `enough` bytes, or all that comes."""
    received = b""
    with _fail_at(deadline, lambda: NoDERP(f"{where} does not answer the HTTP request")):
        try:
            await stream.send_all(request)
            while len(received) < enough and not _is_whole_line(received):
                if not (data := await stream.receive_some(4096)):
                    break
                received += data
        except trio.BrokenResourceError as error:
            raise NoDERP(f"{where} ends the connection at the HTTP request") from error
    if not received:
        raise NoDERP(f"{where} ends the connection at the HTTP request")
    return received


def _request(target: str, host: str, headers: httpclient.Headers) -> bytes:
    connection = h11.Connection(h11.CLIENT)
    return httpclient.request(connection, "GET", target, [("Host", host), *headers])


def _is_whole_line(received: bytes) -> bool:
    return received.startswith(b"HTTP/") and b"\r\n" in received


def _status(received: bytes) -> str:
    line = received.partition(b"\r\n")[0][:_LONGEST_LINE].decode("ascii", "replace")
    return line if line.isprintable() else ascii(line)


def _words(error: OSError) -> str:
    return str(error) if error.errno is None else os.strerror(error.errno).lower()


def _openssl_words(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    return (error.reason or str(error)).lower().replace("_", " ")
