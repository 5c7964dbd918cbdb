"""HTTP requests to an authority: certbot's network client, with limits.

A response is bounded in time and size, and a step of the clock does not disturb an order.
"""

import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit

import requests
from acme import messages
from acme.client import ClientNetwork
from josepy.jwa import ES256
from josepy.jwk import JWK
from requests.adapters import HTTPAdapter

from certs.acme.authority import Authority, check
from certs.errors import CertificateFileError, IssueError
from certs.retryafter import parse_http_date, parse_retry_after

REQUEST_TIMEOUT: Final = 30
"""Seconds to wait for a connection, and then for each piece of a response."""

BODY_LIMIT: Final = 1 << 20
"""Most bytes of a decompressed response; a certificate chain has some thousands."""

CLOCK_TOLERANCE: Final = timedelta(days=1)

POLL_EVERY: Final = 1.0
"""Seconds between polls if there is no Retry-After."""

_NONCE_TRIES: Final = 5
"""Calls of the library, each of which tries twice."""

_PIECE: Final = 4096
_USER_AGENT: Final = f"trio-derper {requests.utils.default_user_agent()}"


class Network(ClientNetwork):
    """A ClientNetwork for all requests of one order, which together take `timeout` seconds at most.

    `now` is by the local clock. Raises IssueError for an unusable CA bundle; requests raise it when
    the time is up, for a redirection or too long a response, and if the authority's clock differs
    from the local one by more than CLOCK_TOLERANCE.
    """

    def __init__(
        self, authority: Authority, key: JWK | None, now: datetime, timeout: float
    ) -> None:
        super().__init__(key, alg=ES256, user_agent=_USER_AGENT, timeout=REQUEST_TIMEOUT)
        self.host = _host(authority.directory)
        """For messages."""
        self._adapter = _Adapter(self.host, _roots(authority), now, timeout)
        self.session.mount("https://", self._adapter)
        self.session.mount("http://", self._adapter)

    @property
    def status(self) -> int:
        """The HTTP status of the last response, 0 before the first one."""
        return self._adapter.status

    @property
    def retry_after(self) -> float | None:
        """The Retry-After of the last response, in seconds."""
        return self._adapter.retry_after

    @property
    def now(self) -> datetime:
        """The local time; steps of the clock since the start do not count."""
        return self._adapter.now

    def post(self, *args: Any, **kwargs: Any) -> requests.Response:
        """Post as the library does, but retry rejected nonces more often (RFC 8555, 6.5)."""
        for _ in range(_NONCE_TRIES - 1):
            try:
                return super().post(*args, **kwargs)
            except messages.Error as error:
                if error.code != "badNonce":
                    raise
        return super().post(*args, **kwargs)

    def pause(self, least: float = 0.1) -> None:
        """Wait for the last response's Retry-After, and at least `least` seconds.

        Raises IssueError if the time would be up first.
        """
        seconds = max(POLL_EVERY if self.retry_after is None else self.retry_after, least)
        if seconds >= self._adapter.time_left():
            raise self._adapter.time_is_up()
        time.sleep(seconds)


def _host(url: str) -> str:
    """Return the host and port in a URL, without user and password, for messages."""
    try:
        host = urlsplit(url).netloc
    except ValueError:
        host = ""
    return (host or url).rpartition("@")[2] or "the authority"


def _roots(authority: Authority) -> str | None:
    """Return the path of the CA bundle, checked; None for the public roots."""
    try:
        check(authority)
    except CertificateFileError as error:
        raise IssueError(str(error)) from error
    return None if authority.ca_bundle is None else str(authority.ca_bundle)


class _Adapter(HTTPAdapter):
    """The transport of all requests of a session, with their limits."""

    def __init__(self, host: str, roots: str | None, now: datetime, timeout: float) -> None:
        super().__init__()
        self._host = host
        self._roots = roots
        self._start_wall = now
        self._start_monotonic = time.monotonic()
        self._timeout = timeout
        self.status = 0
        self.retry_after: float | None = None

    @property
    def now(self) -> datetime:
        return self._start_wall + timedelta(seconds=time.monotonic() - self._start_monotonic)

    def time_left(self) -> float:
        """Return the seconds left. Raises IssueError if there are none."""
        left = self._start_monotonic + self._timeout - time.monotonic()
        if left <= 0:
            raise self.time_is_up()
        return left

    def time_is_up(self) -> IssueError:
        return IssueError(
            f"{self._host} was not done within {self._timeout:.0f} s; the relay tries again later",
            retry_after=self.retry_after,
        )

    def send(
        self, request: requests.PreparedRequest, *args: Any, **kwargs: Any
    ) -> requests.Response:
        self.status, self.retry_after = 0, None
        kwargs["timeout"] = min(REQUEST_TIMEOUT, self.time_left())
        if self._roots is not None:
            kwargs["verify"] = self._roots
        response = super().send(request, *args, **kwargs)
        try:
            self._check(response)
        except IssueError:
            response.close()
            raise
        response.raw = _Bounded(response.raw, self)
        return response

    def _check(self, response: requests.Response) -> None:
        server_now = parse_http_date(response.headers.get("Date", ""))
        self.status = response.status_code
        self.retry_after = parse_retry_after(
            response.headers.get("Retry-After", ""), server_now or self.now
        )
        if server_now is not None and abs(server_now - self.now) > CLOCK_TOLERANCE:
            raise IssueError(
                f"{self._host} says that it is {server_now:%Y-%m-%d %H:%M} UTC, this machine's "
                f"clock says {self.now:%Y-%m-%d %H:%M}; set the clock"
            )
        if response.is_redirect:
            raise IssueError(
                f"{self._host} redirects to {response.headers['Location'][:200]!r}, which is not "
                f"followed; give -acme-directory the URL of the directory itself"
            )

    def check_size(self, size: int) -> None:
        """Raise IssueError if a body is too long, or the time is up."""
        if size > BODY_LIMIT:
            raise IssueError(
                f"{self._host} sent a response of more than {BODY_LIMIT >> 10} KiB; "
                f"check that -acme-directory is the URL of an ACME server"
            )
        self.time_left()


class _Bounded:
    """A bounded body of a response: the part of urllib3's HTTPResponse that `requests` uses."""

    def __init__(self, raw: Any, adapter: _Adapter) -> None:
        self._raw = raw
        self._adapter = adapter

    def stream(self, _piece: int, decode_content: bool) -> Iterator[bytes]:
        size = 0
        for piece in self._raw.stream(_PIECE, decode_content=decode_content):
            size += len(piece)
            try:
                self._adapter.check_size(size)
            except IssueError:
                self.close()
                raise
            yield piece

    def close(self) -> None:
        self._raw.close()

    def release_conn(self) -> None:
        self._raw.release_conn()
