"""An admission controller: a control server that is asked, by HTTP, whom it admits.

    POST URL                                       200
    {"NodePublic": "nodekey:HEX", "Source": IP}    {"Allow": true}

Headscale's /verify is one. As with the Go derper, redirects are followed, and what can't be asked
is told apart from what gives a bad answer: up to the response's head all trouble is UNREACHABLE,
LATE or UNKNOWN, which fails open unless the operator says otherwise; from then on it is REFUSED.

Matches Go's verifyClient (derp/derpserver) and the parts of net/http and encoding/json under it.
Ours are the Authorization header, the private root certificates, and that an answer nested some
hundred levels deep is refused. The proxies of HTTP_PROXY, HTTPS_PROXY and NO_PROXY are used.
"""

import ssl
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import httpx
import trio

from derp.admission.model import ANSWER_TIMEOUT, Outcome, Question, Verdict
from derp.errors import StartError, UsageError
from derp.net.descriptors import OUT_OF_RESOURCES
from derp.net.oserrors import os_errors
from derp.wire import gojson
from derp.wire.keys import node_public_text

BODY_LIMIT: Final = 4 << 10
"""Bytes of an answer that are looked at."""
MAX_REQUESTS: Final = 10
"""Requests for one question, the first and those that redirects lead to."""
PLACE_LIMIT: Final = 200
"""Characters of a URL from a redirect that are shown."""
IDLE_CONNECTIONS: Final = 16
"""Connections that wait for the next question."""

_LOOPBACK: Final = ("all://localhost", "all://127.0.0.1", "all://[::1]")


class AdmissionURL:
    """The source that is an admission URL; `async with` closes its connections at the end."""

    def __init__(
        self,
        url: str,
        authorization: str = "",
        ca_bundle: Path | None = None,
        timeout: float = ANSWER_TIMEOUT,
    ) -> None:
        """Read the root certificates from disk: the machine's, and those of `ca_bundle`.

        `authorization` is the value of the Authorization header, which goes to the scheme, host
        and port of `url` only. Raises UsageError, StartError.
        """
        try:
            self._url = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise UsageError(f"-verify-client-url: not a URL ({error})") from None
        self._host = self._url.netloc.decode("ascii")
        self.name = self._host + self._url.path.rstrip("/")
        """The URL without its scheme, and without what may be secret: user, password and query."""
        self._timeout = timeout
        headers = {"User-Agent": "derper", "Accept-Encoding": "identity"}
        if authorization:
            headers["Authorization"] = authorization
        try:
            self._client = httpx.AsyncClient(
                # A no-op in place of a user and password from the URL.
                auth=httpx.Auth() if authorization else None,
                headers=headers,
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
                verify=_tls_context(ca_bundle),
                # The checker bounds how many questions there are at once.
                limits=httpx.Limits(max_keepalive_connections=IDLE_CONNECTIONS, keepalive_expiry=5),
                # As in Go, no proxy stands between a machine and itself.
                mounts=dict.fromkeys(_LOOPBACK),
                timeout=None,  # noqa: S113 -- `ask` bounds the time.
            )
        except (ImportError, ValueError) as error:
            raise StartError(
                f"-verify-client-url: the proxy in the environment can't be used ({error}); "
                f"want http:// or https:// in HTTP_PROXY, HTTPS_PROXY and ALL_PROXY"
            ) from error

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._client.__aexit__(kind, error, traceback)

    async def ask(self, question: Question) -> Verdict:
        """Ask whether the controller admits the client."""
        asked = {"NodePublic": node_public_text(question.key), "Source": question.address}
        requests = [self._client.build_request("POST", self._url, json=asked)]
        response = None
        with trio.move_on_after(self._timeout):
            try:
                response = await self._response_to(requests)
            except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
                # ValueError: a redirect to a host that can't be written in a DNS question.
                return self._trouble(self._asked(requests), error)
            try:
                return await self._read(self._asked(requests), response)
            finally:
                await response.aclose()
        who = self._asked(requests)
        if response is None:
            reason = f"{who} gave no answer within {self._timeout:g} s"
            return Verdict(Outcome.LATE, self.name, reason)
        return self._refused(who, "is so slow that its answer did not come to an end")

    async def _response_to(self, requests: list[httpx.Request]) -> httpx.Response:
        """Return the head of the response that redirects, if any, lead to.

        `requests` has the first one, and gets those that follow. Raises httpx.HTTPError,
        httpx.InvalidURL, ValueError.
        """
        while True:
            response = await self._send(requests[-1])
            if response.next_request is None or not response.headers["Location"]:
                return response
            await response.aclose()
            if len(requests) == MAX_REQUESTS:
                raise httpx.TooManyRedirects(
                    f"more than {MAX_REQUESTS - 1} redirects", request=response.next_request
                )
            requests.append(response.next_request)

    async def _send(self, request: httpx.Request) -> httpx.Response:
        """Send on a connection that is there already, and on the next if that turns out dead."""
        while True:
            connects = _Connects()
            request.extensions = {**request.extensions, "trace": connects}
            try:
                return await self._client.send(request, stream=True)
            except (httpx.RemoteProtocolError, httpx.NetworkError):
                if connects.seen:
                    raise

    def _asked(self, requests: list[httpx.Request]) -> str:
        """Name who was asked last, as the subject of a sentence, without what may be secret."""
        if len(requests) == 1:
            return self._host
        last = requests[-1]
        place = f"{last.url.scheme}://{last.url.netloc.decode('ascii')}{last.url.path}"
        if len(place) > PLACE_LIMIT:
            place = f"{place[:PLACE_LIMIT]}…"
        # A status of 301, 302 or 303 makes a GET of a POST, which most controllers don't answer.
        return f"{self._host} redirects to {last.method} {place}, which"

    def _trouble(self, who: str, error: Exception) -> Verdict:
        causes = list(os_errors(error))
        is_ours = any(cause.errno in OUT_OF_RESOURCES for cause in causes)
        outcome = Outcome.UNKNOWN
        if isinstance(error, httpx.ConnectError | httpx.ProxyError):
            # Where a redirect leads to may depend on the question.
            is_first = error.request.url == self._url
            outcome = Outcome.UNREACHABLE if is_first else Outcome.UNKNOWN
        for cause in causes:
            if isinstance(cause, ssl.SSLCertVerificationError):
                return Verdict(
                    outcome,
                    self.name,
                    f"{who} has a certificate that can't be verified "
                    f"({cause.verify_message}); give -verify-client-url-ca-bundle its root if it "
                    f"is of an authority of your own",
                )
        strerror = next((cause.strerror for cause in reversed(causes) if cause.strerror), None)
        reason = f"{who} can't be asked ({strerror or str(error) or type(error).__name__})"
        return Verdict(Outcome.NO_ROOM if is_ours else outcome, self.name, reason)

    async def _read(self, who: str, response: httpx.Response) -> Verdict:
        """Return the verdict that a response has in its body."""
        if response.status_code != httpx.codes.OK:
            return self._refused(who, f"answers with HTTP status {response.status_code}")
        allow = read_allow(await _beginning(response))
        if allow is None:
            return self._refused(who, 'answers with something else than {"Allow": true}')
        if not allow:
            return self._refused(who, "does not allow it")
        return Verdict(Outcome.ALLOWED, self.name)

    def _refused(self, who: str, what: str) -> Verdict:
        return Verdict(Outcome.REFUSED, self.name, f"{who} {what}")


class _Connects:
    """Notes whether a request made a connection; for httpcore's "trace" extension."""

    def __init__(self) -> None:
        self.seen = False

    async def __call__(self, event: str, _info: object) -> None:
        if event.startswith("connection.connect_"):
            self.seen = True


async def _beginning(response: httpx.Response) -> bytes:
    """Return the body up to the end of its first JSON object, or up to BODY_LIMIT.

    No more is waited for. What has come along already is taken in, because the connection can be
    used again once the body is at its end.
    """
    body = bytearray()
    brackets = _Brackets()
    with trio.CancelScope() as scope:
        try:
            async for chunk in response.aiter_raw():
                room = BODY_LIMIT - len(body)
                body += chunk[:room]
                if brackets.close_in(chunk[:room]) or len(body) == BODY_LIMIT:
                    # Not left, as nobody else would close the generators behind it.
                    scope.cancel()
        except httpx.HTTPError:
            pass  # What did come counts, and half an object is none.
    return bytes(body)


class _Brackets:
    """Finds the end of a JSON object or array that comes in pieces."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._escaped = False

    def close_in(self, piece: bytes) -> bool:
        """Whether the outermost one closes in the next piece of text."""
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
    """Return the field Allow of the first JSON value, as encoding/json's Decoder reads it.

    None is for a body that holds no such value, or not all of it.
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


def _tls_context(ca_bundle: Path | None) -> ssl.SSLContext:
    where = f"-verify-client-url-ca-bundle {ca_bundle}"
    try:
        context = ssl.create_default_context()
        if ca_bundle is not None:
            context.load_verify_locations(ca_bundle)
    except ssl.SSLError as error:
        raise StartError(
            f"{where}: no certificates in PEM; want those that vouch for -verify-client-url"
        ) from error
    except OSError as error:
        raise StartError(
            f"{where}: can't be read ({error.strerror}); "
            f"want a file with certificates in PEM that vouch for -verify-client-url"
        ) from error
    return context
