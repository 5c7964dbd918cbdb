"""An HTTP/1.1 client: h11 on Trio streams, with idle connections kept for the next request.

`request` and `response_head` are sans-I/O. Redirects and deadlines are left to the caller. Proxies
are as in HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, but for this machine itself none (Go:
http.ProxyFromEnvironment).
"""

import base64
import math
import ssl
from collections.abc import Sequence
from typing import Final
from urllib.parse import quote, unquote, urljoin, urlsplit

import attrs
import h11
import trio

from derp.errors import ConnectFailed, ExchangeFailed
from derp.net.address import host_port

MAX_HEAD: Final = 100 << 10
"""Most bytes of a response's head."""
IDLE_CONNECTIONS: Final = 16
IDLE_SECONDS: Final = 5.0

LOCAL_HOSTS: Final = {"localhost", "127.0.0.1", "::1"}
_PORTS: Final = {"http": 80, "https": 443}
_UPGRADED: Final = 101
_RECEIVE_SIZE: Final = 64 << 10
_SAFE: Final = "/?%:@!$&'()*+,;=~"
"""Characters that stand unescaped in a request's target, besides letters, digits and -._"""

Headers = Sequence[tuple[str, str]]
Head = h11.Response | h11.InformationalResponse


def request(
    connection: h11.Connection, method: str, target: str, headers: Headers, body: bytes = b""
) -> bytes:
    """Return the bytes of a request. Raises h11.LocalProtocolError."""
    head = h11.Request(method=method, target=target, headers=list(headers))
    events = (head, *([h11.Data(data=body)] if body else []), h11.EndOfMessage())
    return b"".join(connection.send(event) or b"" for event in events)


def response_head(connection: h11.Connection) -> Head | None:
    """Return the head of a final response or a 101, or None until all of it has arrived.

    Raises h11.RemoteProtocolError.
    """
    event = connection.next_event()
    while isinstance(event, h11.InformationalResponse) and event.status_code != _UPGRADED:
        event = connection.next_event()
    return event if isinstance(event, Head) else None


@attrs.frozen
class URL:
    """An absolute http or https URL."""

    text: str = attrs.field(repr=False)
    """As given: user, password and query may be secret."""
    scheme: str
    host: str
    """In lower case, without brackets."""
    port: int
    path: str
    """Decoded, for logs."""
    target: str = attrs.field(repr=False)
    """The request target: path and query (RFC 9112, 3.2.1)."""
    authorization: str = attrs.field(repr=False)
    """The Authorization header, of the URL's user and password; empty without."""

    @classmethod
    def parse(cls, text: str) -> "URL":
        """Parse a URL. Raises ValueError."""
        parts = urlsplit(text)
        if parts.scheme not in _PORTS or not parts.hostname:
            raise ValueError(f"want http:// or https:// and a host, not {parts.scheme}://")
        host, authorization = parts.hostname, ""
        if not host.isascii():
            host = host.encode("idna").decode("ascii")
        if parts.username or parts.password:
            user = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
            authorization = f"Basic {base64.b64encode(user.encode()).decode()}"
        port = _PORTS[parts.scheme] if parts.port is None else parts.port
        target = quote(f"{parts.path or '/'}{'?' * bool(parts.query)}{parts.query}", safe=_SAFE)
        return cls(text, parts.scheme, host, port, unquote(parts.path), target, authorization)

    @property
    def authority(self) -> str:
        """Host, and the port unless it is the scheme's default."""
        text = host_port(self.host, self.port)
        return text if self.port != _PORTS[self.scheme] else text.removesuffix(f":{self.port}")

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port."""
        return self.scheme, self.host, self.port

    def join(self, reference: str) -> "URL":
        """Resolve a reference, as of a Location header. Raises ValueError."""
        return URL.parse(urljoin(self.text, reference))


def environment_proxies() -> dict[str, URL]:
    """Return the environment's proxies by scheme or "all". Raises ValueError."""
    # Imported late: it loads all of `email`, and tailscaled is asked without a proxy.
    from urllib.request import getproxies  # noqa: PLC0415

    return {
        scheme: URL.parse(text if "://" in text else f"http://{text}")
        for scheme, text in getproxies().items()
        if scheme in {*_PORTS, "all"}
    }


class Connection:
    """A connection to a server or a proxy, for one exchange at a time."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)

    async def send(self, method: str, target: str, headers: Headers, body: bytes = b"") -> Head:
        """Send a request; return its response's head. Raises ExchangeFailed."""
        try:
            if self._h11.our_state is h11.DONE:
                self._h11.start_next_cycle()
            await self._stream.send_all(request(self._h11, method, target, headers, body))
            while (head := response_head(self._h11)) is None:
                await self._receive()
        except (trio.BrokenResourceError, h11.ProtocolError) as error:
            raise ExchangeFailed(str(error)) from error
        return head

    async def read(self) -> bytes:
        """Return more of the response's body; empty at its end. Raises ExchangeFailed."""
        try:
            while (event := self._h11.next_event()) is h11.NEED_DATA:
                await self._receive()
        except (trio.BrokenResourceError, h11.ProtocolError) as error:
            raise ExchangeFailed(str(error)) from error
        return bytes(event.data) if isinstance(event, h11.Data) else b""

    async def _receive(self) -> None:
        data = await self._stream.receive_some(_RECEIVE_SIZE)
        if not data and self._h11.their_state is h11.SEND_RESPONSE:
            raise ExchangeFailed("the server closed the connection without a response")
        self._h11.receive_data(bytes(data))

    def is_reusable(self) -> bool:
        """Return whether the whole response has arrived, so that another request may be sent."""
        try:
            while isinstance(self._h11.next_event(), h11.Data):
                pass
        except h11.ProtocolError:
            return False
        return self._h11.our_state is self._h11.their_state is h11.DONE

    async def close(self) -> None:
        """Close without waiting for the other end."""
        await trio.aclose_forcefully(self._stream)


class Client:
    """A pool of connections to any servers; `close` closes them."""

    def __init__(
        self,
        context: ssl.SSLContext,
        proxies: dict[str, URL],
        connect_timeout: float = math.inf,
    ) -> None:
        """Give up on a connection after `connect_timeout` seconds, TLS and proxies included."""
        self._context = context
        self._proxies = proxies
        self._connect_timeout = connect_timeout
        self._idle: list[tuple[tuple[str, str, int], float, Connection]] = []

    async def send(
        self, method: str, url: URL, headers: Headers, body: bytes = b""
    ) -> tuple[Head, Connection]:
        """Send a request on an idle connection, on another if it turns out dead, or on a new one.

        Returns the response's head, and the connection to read the body from and to pass to
        `finish`. Raises ConnectFailed, ExchangeFailed, and ValueError for what can't be sent.
        """
        target, headers, proxy = url.target, [("Host", url.authority), *headers], self._proxy(url)
        if proxy is not None and url.scheme == "http":
            target = f"http://{url.authority}{target}"
            headers += _proxy_headers(proxy)
        while True:
            idle = await self._take_idle(url.origin)
            connection = idle or await self._connect_in_time(url, proxy)
            try:
                return await connection.send(method, target, headers, body), connection
            except BaseException as error:
                await connection.close()
                if idle is None or not isinstance(error, ExchangeFailed):
                    raise

    async def finish(self, url: URL, connection: Connection) -> None:
        """Keep a connection for the next request if it's reusable, or close it."""
        if connection.is_reusable():
            self._idle.append((url.origin, trio.current_time() + IDLE_SECONDS, connection))
            if len(self._idle) > IDLE_CONNECTIONS:
                await self._idle.pop(0)[2].close()
        else:
            await connection.close()

    async def close(self) -> None:
        """Close all idle connections."""
        while self._idle:
            await self._idle.pop()[2].close()

    async def _take_idle(self, origin: tuple[str, str, int]) -> Connection | None:
        while self._idle and self._idle[0][1] <= trio.current_time():
            await self._idle.pop(0)[2].close()
        for position in reversed(range(len(self._idle))):
            if self._idle[position][0] == origin:
                return self._idle.pop(position)[2]
        return None

    def _proxy(self, url: URL) -> URL | None:
        from urllib.request import proxy_bypass  # noqa: PLC0415 - see environment_proxies

        if url.host in LOCAL_HOSTS or proxy_bypass(url.host):
            return None
        return self._proxies.get(url.scheme) or self._proxies.get("all")

    async def _connect_in_time(self, url: URL, proxy: URL | None) -> Connection:
        with trio.move_on_after(self._connect_timeout):
            return await self._connect(url, proxy)
        raise ConnectFailed(f"no connection within {self._connect_timeout:g} s")

    async def _connect(self, url: URL, proxy: URL | None) -> Connection:
        first = proxy or url
        try:
            # Bytes, since older Trios refuse underscores in host names of type str.
            host = first.host.encode("ascii")
            stream: trio.abc.Stream = await trio.open_tcp_stream(host, first.port)
        except OSError as error:
            raise ConnectFailed(str(error)) from error
        try:
            if first.scheme == "https":
                stream = await self._start_tls(stream, first.host)
            if proxy is not None and url.scheme == "https":
                await _open_tunnel(stream, url, proxy)
                stream = await self._start_tls(stream, url.host)
        except BaseException as error:
            await trio.aclose_forcefully(stream)
            if isinstance(error, trio.BrokenResourceError | ExchangeFailed):
                raise ConnectFailed(str(error)) from error
            raise
        return Connection(stream)

    async def _start_tls(self, stream: trio.abc.Stream, host: str) -> trio.abc.Stream:
        tls = trio.SSLStream(stream, self._context, server_hostname=host, https_compatible=True)
        await tls.do_handshake()
        return tls


async def _open_tunnel(stream: trio.abc.Stream, url: URL, proxy: URL) -> None:
    """Have a proxy connect to the server of `url`. Raises ExchangeFailed."""
    where = host_port(url.host, url.port)
    headers = [("Host", where), *_proxy_headers(proxy)]
    head = await Connection(stream).send("CONNECT", where, headers)
    if head.status_code // 100 != 2:
        raise ExchangeFailed(f"{head.status_code} {head.reason.decode('latin-1')}")


def _proxy_headers(proxy: URL) -> Headers:
    return [("Proxy-Authorization", proxy.authorization)] if proxy.authorization else []
