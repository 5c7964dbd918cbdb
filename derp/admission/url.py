"""An admission URL: a control server that says over HTTP which clients it admits.

    POST URL                                       200
    {"NodePublic": "nodekey:HEX", "Source": IP}    {"Allow": true}

Headscale's /verify is one. As with the Go derper, redirects are followed, and any failure up to the
end of the response's head is UNREACHABLE, LATE or UNKNOWN, which may fail open, or NO_ROOM; any
later one is REFUSED. A connection has ANSWER_TIMEOUT, and the answer LATEST_ANSWER, which is when
the Go derper has long given up: how long a client waits, and what a late answer means, is for
`asker` and `limiter` to say.

Matches Go's verifyClient (derp/derpserver) and the parts of net/http and encoding/json under it.
Additions: the Authorization header, the private root certificates, and the refusal of a response
that is nested too deep for Python's parser.
"""

import json
import ssl
from pathlib import Path
from typing import Final, Self

import attrs
import trio

from derp.admission.model import ANSWER_TIMEOUT, LATEST_ANSWER, Outcome, Question, Verdict
from derp.errors import ConnectFailed, ExchangeFailed, UsageError
from derp.net.descriptors import OUT_OF_RESOURCES
from derp.net.httpclient import URL, Connection
from derp.net.oserrors import os_errors
from derp.net.outgoing import explain, make_client
from derp.relay.networks import UNIX
from derp.wire import gojson
from derp.wire.keys import node_public_text

BODY_LIMIT: Final = 4 << 10
"""Bytes of a response's body that are read."""
MAX_REQUESTS: Final = 10
"""Requests for one question: the first, and those after redirects."""
BODY_TIMEOUT: Final = 2.0
"""Seconds for a response's body, if the head comes late; else both have ANSWER_TIMEOUT."""
SHOWN_LENGTH: Final = 200
"""Characters of a URL from a redirect that are logged."""

_OK: Final = 200
_HEADERS: Final = [("User-Agent", "derper"), ("Accept-Encoding", "identity")]
_CHANGES_TO_GET: Final = {301, 302, 303}
_REDIRECTS: Final = {*_CHANGES_TO_GET, 307, 308}


@attrs.frozen
class _Request:
    method: str
    url: URL
    authorization: str = attrs.field(repr=False)
    """The value of the Authorization header; empty for none."""


class AdmissionURL:
    """An admission URL as a source; `async with` closes its connections at the end."""

    def __init__(
        self,
        url: str,
        authorization: str = "",
        ca_bundle: Path | None = None,
        *,
        timeout: float = ANSWER_TIMEOUT,
        latest: float = LATEST_ANSWER,
    ) -> None:
        """Read the root certificates from disk: the machine's, and those of `ca_bundle`.

        `authorization` is the value of the Authorization header, which is sent to the scheme, host
        and port of `url` only. `timeout`: seconds for a connection, and for an answer that is in
        time; `latest`: seconds for the head of one that is not. Raises UsageError, StartError.
        """
        try:
            self._url = URL.parse(url)
        except ValueError as error:
            raise UsageError(f"-verify-client-url: not a URL ({error})") from None
        self.name = self._url.authority + self._url.path.rstrip("/")
        """The URL without its scheme, and without what may be secret: user, password and query."""
        self._timeout = timeout
        self._latest = latest
        self._authorization = authorization
        self._client = make_client("-verify-client-url", ca_bundle, timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def ask(self, question: Question) -> Verdict:
        """Ask whether the control server admits the client."""
        # Without an address, Go's netip.Addr is the empty string.
        source = "" if question.address == UNIX else question.address
        asked = {"NodePublic": node_public_text(question.key), "Source": source}
        body = json.dumps(asked, separators=(",", ":")).encode()
        authorization = self._authorization or self._url.authorization
        requests = [_Request("POST", self._url, authorization)]
        connection, began = None, trio.current_time()
        with trio.move_on_at(began + self._latest) as waiting:
            try:
                status, connection = await self._final_response(requests, body)
            except (ExchangeFailed, ValueError) as error:
                # ValueError: a redirect to a malformed URL.
                return self._failure(requests, error)
            head_at = trio.current_time()
            in_time = began + self._timeout
            waiting.deadline = in_time if head_at <= in_time else head_at + BODY_TIMEOUT
            try:
                return await self._read(self._subject(requests), status, connection)
            finally:
                await self._client.finish(requests[-1].url, connection)
        subject = self._subject(requests)
        if connection is None:
            reason = f"{subject} gave no answer within {self._latest:g} s"
            return Verdict(Outcome.LATE, self.name, reason)
        seconds = trio.current_time() - began
        return self._refused(subject, f"gave no whole answer within {seconds:.2g} s")

    async def _final_response(
        self, requests: list[_Request], body: bytes
    ) -> tuple[int, Connection]:
        """Return the status of the first response that is no redirect, and its connection.

        `requests` holds the first request; those after redirects are appended. Raises
        ExchangeFailed, ValueError.
        """
        while True:
            request, headers, content = requests[-1], [*_HEADERS], b""
            if request.authorization:
                headers.append(("Authorization", request.authorization))
            if request.method == "POST":
                content = body
                headers.append(("Content-Type", "application/json"))
                headers.append(("Content-Length", f"{len(body)}"))
            method, url = request.method, request.url
            head, connection = await self._client.send(method, url, headers, content)
            location = dict(head.headers).get(b"location", b"").decode("utf-8", "replace")
            if head.status_code not in _REDIRECTS or not location:
                return head.status_code, connection
            await self._client.finish(url, connection)
            following = self._redirected(request, head.status_code, location)
            if len(requests) == MAX_REQUESTS:
                raise ExchangeFailed(f"more than {MAX_REQUESTS - 1} redirects")
            requests.append(following)

    def _redirected(self, request: _Request, status: int, location: str) -> _Request:
        """Return the request that a redirect asks for. Raises ValueError.

        Authorization is sent to the same origin only, and to the same host on HTTPS.
        """
        url = request.url.join(location)
        upgraded = ("https", request.url.host, 443) if request.url.port == 80 else None
        stays = url.origin in {request.url.origin, upgraded}
        authorization = request.authorization if stays else ""
        if not self._authorization:
            authorization = url.authorization or authorization
        return _Request("GET" if status in _CHANGES_TO_GET else request.method, url, authorization)

    def _subject(self, requests: list[_Request]) -> str:
        """Return the subject of a log line: the server asked last, without what may be secret."""
        if len(requests) == 1:
            return self._url.authority
        last = requests[-1]
        shown = f"{last.url.scheme}://{last.url.authority}{last.url.path}"
        if len(shown) > SHOWN_LENGTH:
            shown = f"{shown[:SHOWN_LENGTH]}…"
        # Most servers don't answer a GET, which a POST may have become.
        return f"{self._url.authority} redirects to {last.method} {shown}, which"

    def _failure(self, requests: list[_Request], error: Exception) -> Verdict:
        """Return the verdict for a server that can't be asked."""
        causes = list(os_errors(error))
        is_ours = any(cause.errno in OUT_OF_RESOURCES for cause in causes)
        is_ours &= not any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes)
        # Another question may be redirected to a server that works.
        is_down = isinstance(error, ConnectFailed) and len(requests) == 1
        outcome = Outcome.UNREACHABLE if is_down else Outcome.UNKNOWN
        reason = f"{self._subject(requests)} {explain(error)}"
        return Verdict(Outcome.NO_ROOM if is_ours else outcome, self.name, reason)

    async def _read(self, subject: str, status: int, connection: Connection) -> Verdict:
        """Return the verdict in a response's body."""
        if status != _OK:
            return self._refused(subject, f"answers with HTTP status {status}")
        allow = read_allow(await _beginning(connection))
        if allow is None:
            return self._refused(subject, 'answers with something other than {"Allow": true}')
        if not allow:
            return self._refused(subject, "does not allow it")
        return Verdict(Outcome.ALLOWED, self.name)

    def _refused(self, subject: str, what: str) -> Verdict:
        return Verdict(Outcome.REFUSED, self.name, f"{subject} {what}")


async def _beginning(connection: Connection) -> bytes:
    """Return the body up to the end of its first JSON object, or up to BODY_LIMIT."""
    body = bytearray()
    brackets = _Brackets()
    try:
        while len(body) < BODY_LIMIT and (piece := await connection.read()):
            piece = piece[: BODY_LIMIT - len(body)]
            body += piece
            if brackets.feed(piece):
                break
    except ExchangeFailed:
        pass  # What has arrived counts, and half an object is none.
    return bytes(body)


class _Brackets:
    """The brackets of a JSON object or array that comes in pieces."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._escaped = False

    def feed(self, piece: bytes) -> bool:
        """Read the next piece, and return whether the outermost bracket closes in it."""
        for char in piece:
            if self._escaped:
                self._escaped = False
            elif char in b'"':
                self._in_string = not self._in_string
            elif self._in_string:
                self._escaped = char in b"\\"
            elif char in b"{[":
                self._depth += 1
            elif char in b"}]":
                self._depth -= 1
                if self._depth <= 0:
                    return True
        return False


def read_allow(body: bytes) -> bool | None:
    """Return Allow in the first JSON object, False if absent, as encoding/json's Decoder reads it.

    Returns None where the body has no whole object, or where Allow is no bool.
    """
    allow = False
    try:
        pairs = gojson.read_pairs(body, ("Allow",), first=True)
    except gojson.JSONFormError:
        return None
    for _, value in pairs:
        if not isinstance(value, bool | None):
            return None
        allow = allow if value is None else value
    return allow
