"""Requests and answers, as the front end and the router exchange them. Sans-I/O.

h11 checks a request against the grammar of RFC 9112; `parse_request` adds the rules that h11 leaves
to its users. The router returns one of five answers:

    Response    a whole answer
    Later       a Response whose content has to be awaited
    Stream      chunks, sent as they come, until the client disconnects
    Posted      an answer that depends on the request's body
    Upgrade     the connection leaves HTTP: the server returns a Handoff
"""

import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

import attrs

from derp.errors import ConnectionEnd, DerperError, HTTPFailed

# The characters that Go's httpguts.ValidHostHeader accepts. RFC 3986 is not checked further, since
# Go clients send an IPv6 address from a DERP map without brackets. Without quotes, angle brackets,
# slashes, "@" and unprintable characters, a Host may go into a Location header.
_HOST = re.compile(r"[A-Za-z0-9!$%&'()*+,\-.:;=\[\]_~]*")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_ABSOLUTE = re.compile(r"https?://([^/?]*)", re.IGNORECASE)

T = TypeVar("T")


class BadRequest(HTTPFailed):
    """A request that can't be served; the answer is `status`, and the connection ends.

    The message goes to the peer and into the log; it contains nothing that the peer sent.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Overloaded(DerperError):
    """A request for which there is no room: the answer is `status`, and `end` ends the connection.

    The message of `end` goes to the peer.
    """

    def __init__(self, status: int, end: ConnectionEnd) -> None:
        super().__init__(str(end))
        self.status = status
        self.end = end


@attrs.frozen
class Request:
    """A request's head.

    `path` is as sent, with its %-escapes; "*" for `OPTIONS *`, empty for CONNECT. `query` has no
    question mark. `host` is from the target if that is a URL, else from the Host header, or empty.
    `remote` is the client's IP address: the peer's, unless that is one of the operator's proxies.
    """

    method: str
    target: str
    path: str
    query: str
    host: str
    version: str
    headers: Sequence[tuple[bytes, bytes]]
    """Names in lower case, values stripped, in the order sent."""
    remote: str
    proxy: str = ""
    """The flag that has the proxy through which the request came; empty for none."""

    def header(self, name: bytes) -> str:
        """Return the first value of the header `name` (lower case), or an empty string."""
        return _first(self.headers, name)

    def sent_by(self, remote: str, proxy: str = "") -> "Request":
        """Return the same request from another client, maybe through a proxy."""
        return Request(
            self.method,
            self.target,
            self.path,
            self.query,
            self.host,
            self.version,
            self.headers,
            remote,
            proxy,
        )

    def tokens(self, name: bytes) -> list[str]:
        """Return the elements of all `name` headers, split at commas (RFC 9110, 5.6.1)."""
        values = [value.decode("latin-1") for field, value in self.headers if field == name]
        return [token for value in values for part in value.split(",") if (token := part.strip())]

    @property
    def has_body(self) -> bool:
        """Whether a body follows (RFC 9112, 6.3)."""
        return self.content_length > 0 or self.header(b"transfer-encoding") != ""

    @property
    def content_length(self) -> int:
        """The announced length in bytes, 0 for none. h11 has checked the syntax."""
        return int(self.header(b"content-length") or 0)


def parse_request(
    method: bytes,
    target: bytes,
    version: bytes,
    headers: Sequence[tuple[bytes, bytes]],
    remote: str,
) -> Request:
    """Make a Request from the parts that h11 parsed.

    Raises BadRequest: 505 for a version other than HTTP/1.x, 400 for an invalid target or Host, or
    a body whose end is ambiguous, 417 for an expectation other than 100-continue.
    """
    if not version.startswith(b"1."):
        raise BadRequest(505, "only HTTP/1.0 and HTTP/1.1 are supported")
    text = target.decode("latin-1")
    authority, path, query = _split_target(method, text)
    host = _first(headers, b"host")
    names = {name for name, _ in headers}
    if version != b"1.0" and b"host" not in names:
        raise BadRequest(400, "the Host header is missing")
    if not _HOST.fullmatch(host) or not _HOST.fullmatch(authority):
        raise BadRequest(400, "the Host header names no host")
    if b"transfer-encoding" in names and (version == b"1.0" or b"content-length" in names):
        # Request smuggling: a proxy may take another body length (RFC 9112, 6.1 and 6.3).
        raise BadRequest(400, "Transfer-Encoding goes neither with Content-Length nor HTTP/1.0")
    expected = _first(headers, b"expect")
    if expected and expected.lower() != "100-continue":
        raise BadRequest(417, "100-continue is the only expectation that can be met")
    return Request(
        method=method.decode("latin-1"),
        target=text,
        path=path,
        query=query,
        host=authority or host,
        version=version.decode("latin-1"),
        headers=headers,
        remote=remote,
    )


def _first(headers: Sequence[tuple[bytes, bytes]], name: bytes) -> str:
    for field, value in headers:
        if field == name:
            return value.decode("latin-1")
    return ""


def _split_target(method: bytes, target: str) -> tuple[str, str, str]:
    """Split a request target (RFC 9112, 3.2) into authority, path and query."""
    if method == b"CONNECT":
        return "", "", ""
    if target == "*" and method == b"OPTIONS":
        return "", "*", ""
    authority = ""
    if not target.startswith("/"):
        absolute = _ABSOLUTE.match(target)
        if absolute is None:
            raise BadRequest(400, "the request target is neither a path nor a URL")
        authority = absolute[1]
        target = target[absolute.end() :]
    path, _, query = target.partition("?")
    if _BAD_ESCAPE.search(path):
        raise BadRequest(400, "the request target has a % without two hexadecimal digits")
    return authority, path or "/", query


@attrs.frozen
class Response:
    """A whole answer. The server adds Date, Content-Length and, if needed, Connection."""

    status: int
    headers: Sequence[tuple[str, str]] = ()
    body: bytes = b""


@attrs.frozen
class Later(Generic[T]):
    """A Response whose content has to be awaited.

    If `ask` raises RPCFailed, or takes longer than Deadlines.later, the answer is 503.
    """

    ask: Callable[[], Awaitable[T]]
    show: Callable[[T], Response]


@attrs.frozen
class Stream:
    """An answer with status 200 whose body is what `chunks` yields.

    A disconnect is noticed by a write only, so `chunks` has to yield something every few seconds,
    if only a line feed. If it raises RPCFailed, the body is left without its end.
    """

    headers: Sequence[tuple[str, str]]
    chunks: Callable[[], AsyncGenerator[bytes, None]]
    is_allowed: Callable[[], bool] = lambda: True
    """Asked before each chunk: the body ends once whoever asked for it may not have it."""


@attrs.frozen
class Upgrade:
    """An answer by which the connection leaves HTTP; the fields are those of Handoff."""

    websocket: bool
    fast_start: bool
    ideal_node: str
    answer: bytes


Reply = Response | Later[Any] | Stream | Upgrade


@attrs.frozen
class Posted:
    """An answer that depends on the request's body, which is discarded for all others.

    The body may have `most` bytes, or else the answer is 413.
    """

    most: int
    reply: Callable[[bytes], Reply]


Answer = Reply | Posted


@attrs.frozen
class Handoff:
    """A connection that has left HTTP."""

    answer: bytes
    """The 101 response, to be sent with the first DERP frame. Empty with `fast_start`, and with
    `websocket`: trio-websocket makes the response from `head`."""
    websocket: bool
    fast_start: bool
    ideal_node: str
    """The Ideal-Node header: the node of this region that is the client's first choice."""
    head: bytes
    """The request's head as received, with its final empty line."""
    leftover: bytes
    """Bytes received after the head: DERP or websocket frames."""
