import ipaddress
from urllib.parse import quote

import pytest

from derp.http.access import DebugAccess, is_tailscale
from derp.http.message import parse_request

ACCESS = DebugAccess(("derp.example", "relay.example", "*.wild.example"))


def refusal(
    *headers: tuple[bytes, bytes],
    remote: str = "127.0.0.1",
    host: bytes = b"derp.example",
    version: bytes = b"1.1",
    access: DebugAccess = ACCESS,
    proxy: str = "",
) -> str:
    fields = [(b"host", host), *headers]
    request = parse_request(b"GET", b"/debug/", version, fields, remote)
    return access.refusal(request.sent_by(remote, proxy))


@pytest.mark.parametrize(
    ("remote", "allowed"),
    [
        ("127.0.0.1", True),
        ("127.255.255.254", True),
        ("128.0.0.1", False),
        ("::1", True),
        ("::2", False),
        ("::ffff:127.0.0.1", True),
        ("::ffff:192.0.2.1", False),
        ("::ffff:100.64.0.1", True),
        ("100.63.255.255", False),
        ("100.64.0.0", True),
        ("100.115.91.255", True),
        ("100.115.92.0", False),
        ("100.115.93.255", False),
        ("100.115.94.0", True),
        ("100.127.255.255", True),
        ("100.128.0.0", False),
        ("fd7a:115c:a1e0::1", True),
        ("fd7a:115c:a1e0:ffff::1", True),
        ("fd7a:115c:a1e1::1", False),
        ("fd7a:115c:a1df:ffff::1", False),
        ("10.0.0.1", False),
        ("192.168.1.1", False),
        ("fe80::1", False),
        ("0.0.0.0", False),
        ("", False),
        ("localhost", False),
    ],
)
def test_remote(remote: str, allowed: bool) -> None:
    assert (refusal(remote=remote) == "") == allowed


@pytest.mark.parametrize(
    "name",
    [
        *("X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Anything"),
        *("X-Forwarded", "Forwarded", "Forwarded-For", "Via", "X-Real-IP", "X-Client-IP"),
        *("CF-Connecting-IP", "CF-Ray", "CDN-Loop", "True-Client-IP", "Fastly-Client-IP"),
        *("X-Cluster-Client-IP", "X-Envoy-External-Address", "X-Original-Forwarded-For"),
        *("X-Amzn-Trace-Id", "X-Azure-ClientIP", "X-Cloud-Trace-Context", "X-Varnish"),
        "Proxy-Connection",
    ],
)
@pytest.mark.parametrize("values", [[b"192.0.2.1"], [b""], [b"", b"192.0.2.1"], [b"127.0.0.1"]])
@pytest.mark.parametrize("remote", ["127.0.0.1", "100.64.0.1"])
def test_nobody_through_a_proxy(name: str, values: list[bytes], remote: str) -> None:
    name = name.lower()
    headers = [(name.encode(), value) for value in values]
    assert f"({name})" in refusal(*headers, remote=remote)


def test_nobody_through_a_proxy_that_says_nothing() -> None:
    """An nginx that is told to add nothing, without websockets and with them."""
    assert "(HTTP/1.0)" in refusal((b"connection", b"close"), version=b"1.0", host=b"127.0.0.1")
    assert "(Connection: upgrade)" in refusal((b"connection", b"Upgrade"), host=b"127.0.0.1")
    assert refusal((b"connection", b"close")) == ""
    assert refusal((b"connection", b"upgrade"), (b"upgrade", b"h2c")) == ""


@pytest.mark.parametrize(
    "header",
    [
        *("User-Agent", "Accept", "Accept-Encoding", "Authorization", "Cookie", "Origin"),
        *("X-Prometheus-Scrape-Timeout-Seconds", "Upgrade-Insecure-Requests", "Sec-Fetch-Site"),
    ],
)
def test_what_curl_prometheus_and_browsers_send(header: str) -> None:
    assert refusal((header.lower().encode(), b"x")) == ""


@pytest.mark.parametrize("port", ["", ":80", ":8443"])
@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("127.0.0.1", True),
        ("192.0.2.1", True),
        ("[::1]", True),
        ("[fd7a:115c:a1e0::1]", True),
        ("localhost", True),
        ("LocalHost.", True),
        ("derp.example", True),
        ("Derp.Example", True),
        ("derp.example.", True),
        ("relay.example", True),
        ("evil.example", False),
        ("x.derp.example", False),
        ("a.Wild.example", True),
        ("wild.example", False),
        ("a.b.wild.example", False),
        ("example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("127.1", False),
        ("[evil.example]", False),
        ("", False),
    ],
)
def test_host(host: str, port: str, allowed: bool) -> None:
    """A browser names the page that asks, whatever address the name has been made to have."""
    assert (refusal(host=f"{host}{port}".encode()) == "") == allowed


def test_host_is_an_address_without_brackets() -> None:
    """As Go's clients send it."""
    assert refusal(host=b"fd7a:115c:a1e0::1") == ""


def test_a_stranger_is_told_nothing_of_that() -> None:
    told = refusal(remote="192.0.2.1")
    assert refusal((b"via", b""), remote="192.0.2.1", host=b"evil.example") == told


class TestNetworks:
    ACCESS = DebugAccess(
        ("derp.example",),
        networks=[ipaddress.ip_network(text) for text in ("172.16.0.0/12", "2001:db8::7/128")],
    )

    @pytest.mark.parametrize(
        ("remote", "allowed"),
        [
            ("172.17.0.1", True),
            ("172.31.255.255", True),
            ("::ffff:172.17.0.1", True),
            ("172.32.0.0", False),
            ("2001:db8::7", True),
            ("2001:db8::8", False),
            ("10.0.0.1", False),
            ("127.0.0.1", True),
            ("100.64.0.1", True),
        ],
    )
    def test_remote(self, remote: str, allowed: bool) -> None:
        assert (refusal(remote=remote, access=self.ACCESS) == "") == allowed

    def test_no_proxy_and_no_other_name(self) -> None:
        """As for the rest."""
        there = {"remote": "172.17.0.1", "access": self.ACCESS}
        assert "(via)" in refusal((b"via", b""), **there)
        assert "Host" in refusal(host=b"evil.example", **there)


class TestListedProxies:
    """Whoever their client is, and whatever they add: they may pass TLS on as it is."""

    ACCESS = DebugAccess(
        ("derp.example",),
        networks=[ipaddress.ip_network("172.16.0.0/12")],
        key=lambda: b"secret",
    )

    @pytest.mark.parametrize("flag", ["-trusted-proxies", "-proxy-protocol-from"])
    @pytest.mark.parametrize("remote", ["127.0.0.1", "::1", "172.17.0.1", "100.64.0.1", "8.8.8.8"])
    def test_closed(self, flag: str, remote: str) -> None:
        assert f"a proxy ({flag})" in refusal(remote=remote, access=self.ACCESS, proxy=flag)

    def test_open_with_the_key(self) -> None:
        fields = [(b"host", b"evil.example")]
        request = parse_request(b"GET", b"/debug/?debugkey=secret", b"1.1", fields, "8.8.8.8")
        assert self.ACCESS.allows(request.sent_by("8.8.8.8", "-trusted-proxies"))


class TestKey:
    """Who shows it is in, wherever from and by whatever name; tsweb.AllowDebugAccess."""

    @staticmethod
    def shown(query: bytes, key: bytes = b"open sesame+1", method: bytes = b"GET") -> bool:
        fields = [(b"host", b"evil.example"), (b"x-forwarded-for", b"192.0.2.1")]
        asked = parse_request(method, b"/debug/?" + query, b"1.1", fields, "192.0.2.7")
        return DebugAccess(key=lambda: key).allows(asked)

    @pytest.mark.parametrize(
        ("query", "allowed"),
        [
            (b"debugkey=open+sesame%2B1", True),
            (b"x=y&debugkey=open%20sesame%2b1&z", True),
            (b"debugkey=open+sesame%2B1&debugkey=x", True),
            (b"debugkey=x&debugkey=open+sesame%2B1", False),
            (b"debugkey=&debugkey=open+sesame%2B1", False),
            (b"debugkey=open+sesame+1", False),
            (b"debugkey=open+sesame%2B", False),
            (b"debugkey=open+sesame%2B1x", False),
            (b"Debugkey=open+sesame%2B1", False),
            (b"debugkey=", False),
            (b"debugkey", False),
            (b"", False),
        ],
    )
    def test_query(self, query: bytes, allowed: bool) -> None:
        assert self.shown(query) == allowed

    @pytest.mark.parametrize("method", [b"HEAD", b"POST"])
    def test_method(self, method: bytes) -> None:
        assert not self.shown(b"debugkey=open+sesame%2B1", method=method)

    @pytest.mark.parametrize("query", [b"debugkey=", b"debugkey", b"debugkey=x"])
    def test_none(self, query: bytes) -> None:
        assert not self.shown(query, key=b"")

    def test_any_bytes(self) -> None:
        key = bytes(range(1, 256))
        assert self.shown(b"debugkey=" + quote(key).encode(), key=key)
        assert not self.shown(b"debugkey=%ff%C3", key=b"\xff\xc4")

    def test_it_is_no_hindrance(self) -> None:
        fields = [(b"host", b"localhost")]
        asked = parse_request(b"GET", b"/debug/?debugkey=x", b"1.1", fields, "127.0.0.1")
        assert DebugAccess(key=lambda: b"y").allows(asked)


def test_mapped_addresses_are_not_tailscale_unless_unmapped() -> None:
    assert not is_tailscale(ipaddress.ip_address("::ffff:100.64.0.1"))
