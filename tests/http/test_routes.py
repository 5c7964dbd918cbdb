import json
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from derp.http.access import DebugAccess
from derp.http.backend import Backend
from derp.http.bootstrap_dns import Record
from derp.http.message import (
    Answer,
    BadRequest,
    Later,
    Request,
    Response,
    Stream,
    Upgrade,
    parse_request,
)
from derp.http.routes import clean_path, route, route_plain
from tests.http.sites import make_backend, returning

Header = tuple[bytes, bytes]

STRANGER = "192.0.2.7"
LOCAL = "127.0.0.1"


def request(
    target: str = "/",
    *headers: Header,
    method: str = "GET",
    version: str = "1.1",
    host: str | None = "derp.example",
    remote: str = STRANGER,
) -> Request:
    fields = list(headers)
    if host is not None:
        fields.insert(0, (b"host", host.encode()))
    return parse_request(method.encode(), target.encode(), version.encode(), fields, remote)


def response(answer: Answer) -> Response:
    if isinstance(answer, Later):

        async def wait() -> Response:
            return answer.show(await answer.ask())

        return trio.run(wait)
    assert isinstance(answer, Response)
    return answer


def location(answer: Answer) -> str:
    return dict(response(answer).headers)["Location"]


UPGRADE = (b"upgrade", b"DERP")
WEBSOCKET = (
    (b"upgrade", b"websocket"),
    (b"connection", b"keep-alive, Upgrade"),
    (b"sec-websocket-version", b"13"),
    (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
    (b"sec-websocket-protocol", b"chat, derp"),
)


def without(name: bytes, *instead: bytes) -> tuple[Header, ...]:
    kept = tuple(header for header in WEBSOCKET if header[0] != name)
    return (*kept, *((name, value) for value in instead))


class TestACMEChallenge:
    PATH = "/.well-known/acme-challenge/"

    @pytest.fixture
    def site(self) -> Backend:
        return make_backend(challenges={"to-ken_1": "to-ken_1.thumbprint"})

    def test_a_known_token(self, site: Backend) -> None:
        answer = response(route_plain(site, request(f"{self.PATH}to-ken_1", host="192.0.2.1")))
        assert answer.status == 200
        assert answer.body == b"to-ken_1.thumbprint"
        assert dict(answer.headers)["Content-Type"] == "application/octet-stream"

    @pytest.mark.parametrize("token", ["", "other", "to-ken_1/", "to-ken%5f1", "to-ken_1%00"])
    def test_any_other(self, site: Backend, token: str) -> None:
        assert response(route_plain(site, request(self.PATH + token))).status == 404

    def test_a_challenge_that_has_been_answered(self) -> None:
        challenges = {"token": "body"}
        site = make_backend(challenges=challenges)
        del challenges["token"]
        assert response(route_plain(site, request(f"{self.PATH}token"))).status == 404

    def test_without_acme_it_is_a_path_like_any_other(self) -> None:
        answer = route_plain(make_backend(), request(f"{self.PATH}token"))
        assert location(answer) == f"https://derp.example{self.PATH}token"

    def test_only_the_plain_port_answers(self, site: Backend) -> None:
        answer = response(route(site, request(f"{self.PATH}to-ken_1")))
        assert b"thumbprint" not in answer.body


class TestDERP:
    def test_raw(self, site: Backend) -> None:
        answer = route(site, request("/derp", UPGRADE))
        expected = (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n"
            b"Derp-Version: 2\r\nDerp-Public-Key: "
            b"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\r\n\r\n"
        )
        assert answer == Upgrade(websocket=False, fast_start=False, ideal_node="", answer=expected)

    @pytest.mark.parametrize("value", [b"derp", b"dErP", b"WebSocket"])
    @pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
    @pytest.mark.parametrize("version", ["1.0", "1.1"])
    def test_upgrade_header_is_enough(
        self, site: Backend, value: bytes, method: str, version: str
    ) -> None:
        asked = request("/derp?x", (b"upgrade", value), method=method, version=version)
        answer = route(site, asked)
        assert isinstance(answer, Upgrade)
        assert not answer.websocket

    @pytest.mark.parametrize(
        "headers", [(), ((b"upgrade", b""),), ((b"upgrade", b"h2c"),), ((b"upgrade", b"derp, x"),)]
    )
    def test_no_upgrade(self, site: Backend, headers: tuple[Header, ...]) -> None:
        answer = response(route(site, request("/derp", *headers)))
        assert answer.status == 426
        assert answer.body == b"DERP requires connection upgrade\n"
        assert ("Upgrade", "DERP") in answer.headers

    @pytest.mark.parametrize(("value", "fast"), [(b"1", True), (b"0", False), (b"true", False)])
    def test_fast_start(self, site: Backend, value: bytes, fast: bool) -> None:
        answer = route(site, request("/derp", UPGRADE, (b"derp-fast-start", value)))
        assert isinstance(answer, Upgrade)
        assert answer.fast_start == fast
        assert (answer.answer == b"") == fast

    @pytest.mark.parametrize(
        ("value", "name"), [(b"1a", "1a"), (b"derp1.example", "derp1.example"), (b"a\x1b[2J", "")]
    )
    def test_ideal_node(self, site: Backend, value: bytes, name: str) -> None:
        answer = route(site, request("/derp", UPGRADE, (b"ideal-node", value)))
        assert isinstance(answer, Upgrade)
        assert answer.ideal_node == name

    @pytest.mark.parametrize(
        "header", [(b"content-length", b"5"), (b"transfer-encoding", b"chunked")]
    )
    def test_body(self, site: Backend, header: Header) -> None:
        assert response(route(site, request("/derp", UPGRADE, header))).status == 400

    def test_empty_body(self, site: Backend) -> None:
        asked = request("/derp", UPGRADE, (b"content-length", b"0"), method="POST")
        assert isinstance(route(site, asked), Upgrade)

    @pytest.mark.parametrize("headers", [(), (UPGRADE,), WEBSOCKET])
    def test_disabled(self, headers: tuple[Header, ...]) -> None:
        answer = response(route(make_backend(derp=False), request("/derp", *headers)))
        assert (answer.status, answer.body) == (404, b"derp server disabled\n")


class TestWebsocket:
    def test_handshake(self, site: Backend) -> None:
        answer = route(site, request("/derp", *WEBSOCKET, (b"derp-fast-start", b"1")))
        assert answer == Upgrade(websocket=True, fast_start=False, ideal_node="", answer=b"")

    def test_without_subprotocol_is_raw(self, site: Backend) -> None:
        answer = route(site, request("/derp", *without(b"sec-websocket-protocol")))
        assert isinstance(answer, Upgrade)
        assert not answer.websocket
        assert answer.answer

    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            (without(b"connection"), 426),
            (without(b"connection", b"close"), 426),
            (without(b"sec-websocket-version"), 400),
            (without(b"sec-websocket-version", b"8"), 400),
            (without(b"sec-websocket-key"), 400),
            (without(b"sec-websocket-key", b"", b""), 400),
            (without(b"sec-websocket-key", b"c2hvcnQ="), 400),
            (without(b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ"), 400),
            (without(b"sec-websocket-key", b"\xe9"), 400),
            (without(b"sec-websocket-key", *[b"dGhlIHNhbXBsZSBub25jZQ=="] * 2), 400),
            (without(b"sec-websocket-protocol", b"underp"), 400),
        ],
    )
    def test_refused(self, site: Backend, headers: tuple[Header, ...], status: int) -> None:
        assert response(route(site, request("/derp", *headers))).status == status

    def test_method(self, site: Backend) -> None:
        answer = response(route(site, request("/derp", *WEBSOCKET, method="POST")))
        assert answer.status == 405
        assert ("Allow", "GET") in answer.headers

    def test_version(self, site: Backend) -> None:
        assert response(route(site, request("/derp", *WEBSOCKET, version="1.0"))).status == 426


class TestDebug:
    PAGES = (
        *("/debug/", "/debug/vars", "/debug/varz", "/debug/check", "/debug/traffic"),
        "/debug/nope",
    )

    @pytest.mark.parametrize("path", PAGES)
    @pytest.mark.parametrize("router", [route, route_plain])
    def test_not_for_strangers(
        self, site: Backend, path: str, router: Callable[[Backend, Request], Answer]
    ) -> None:
        assert response(router(site, request(path))).status == 403

    @pytest.mark.parametrize("path", PAGES)
    @pytest.mark.parametrize("router", [route, route_plain])
    @pytest.mark.parametrize(
        ("headers", "host"),
        [
            (((b"x-forwarded-for", b""), (b"x-forwarded-for", b"192.0.2.1")), "derp.example"),
            (((b"forwarded", b"for=192.0.2.1"),), "derp.example"),
            ((), "evil.example"),
        ],
    )
    def test_not_through_a_proxy_nor_by_another_name(
        self,
        site: Backend,
        path: str,
        router: Callable[[Backend, Request], Answer],
        headers: tuple[Header, ...],
        host: str,
    ) -> None:
        assert (
            response(router(site, request(path, *headers, remote=LOCAL, host=host))).status == 403
        )

    def test_by_its_name_in_any_case(self) -> None:
        asked = request("/debug/", remote=LOCAL, host="DERP.example:443")
        assert response(route(make_backend(), asked)).status == 200

    @pytest.mark.parametrize("path", ["/debug/", "/debug/varz"])
    @pytest.mark.parametrize("router", [route, route_plain])
    def test_with_the_key_from_anywhere(
        self, path: str, router: Callable[[Backend, Request], Answer]
    ) -> None:
        site = make_backend(debug_access=DebugAccess(key=lambda: b"k"))
        asked = request(f"{path}?debugkey=k", (b"x-forwarded-for", b"192.0.2.1"))
        assert response(router(site, asked)).status == 200
        assert response(router(site, request(f"{path}?debugkey=x"))).status == 403

    @pytest.mark.parametrize("path", ["/debug/", "/%64ebug/"])
    @pytest.mark.parametrize("remote", [LOCAL, "::1", "100.100.1.1", "fd7a:115c:a1e0::1"])
    def test_index(self, site: Backend, path: str, remote: str) -> None:
        answer = response(route(site, request(path, remote=remote)))
        assert answer.status == 200
        assert answer.body.startswith(b"PageOptions(")

    def test_varz(self, site: Backend) -> None:
        answer = response(route(site, request("/debug/varz", remote=LOCAL)))
        assert answer.body == b"# TYPE gauge_x gauge\ngauge_x 1\n"
        assert ("Content-Type", "text/plain;version=0.0.4;charset=utf-8") in answer.headers

    def test_vars(self, site: Backend) -> None:
        answer = response(route(site, request("/debug/vars", remote=LOCAL)))
        assert json.loads(answer.body) == {"x": 1}
        assert ("Content-Type", "application/json; charset=utf-8") in answer.headers

    def test_check(self) -> None:
        asked = request("/debug/check", remote=LOCAL)
        answer = response(route(make_backend(), asked))
        assert (answer.status, answer.body) == (200, b"derp.Server ConsistencyCheck okay")
        broken = make_backend(problems=returning(["one", "two"]))
        answer = response(route(broken, asked))
        assert (answer.status, answer.body) == (500, b"one\ntwo\n")

    def test_traffic(self, site: Backend) -> None:
        answer = route(site, request("/debug/traffic", remote=LOCAL))
        assert isinstance(answer, Stream)
        assert answer.chunks is site.traffic

    @pytest.mark.parametrize(
        ("page", "name"),
        [
            ("/debug/varz", "varz"),
            ("/debug/vars", "expvars"),
            ("/debug/check", "problems"),
        ],
    )
    def test_nobody_is_asked_before_the_front_end_waits(
        self, site: Backend, page: str, name: str
    ) -> None:
        answer = route(site, request(page, remote=LOCAL))
        assert isinstance(answer, Later)
        assert answer.ask is getattr(site, name)

    def test_unknown(self, site: Backend) -> None:
        assert response(route(site, request("/debug/pprof/", remote=LOCAL))).status == 404


class TestProbe:
    @pytest.mark.parametrize("path", ["/derp/probe", "/derp/latency-check"])
    def test_other_methods_get_the_go_derpers_words(self, site: Backend, path: str) -> None:
        answer = response(route(site, request(path, method="POST")))
        assert (answer.status, answer.body) == (405, b"bogus probe method\n")


class TestHome:
    def test_default(self, site: Backend) -> None:
        stranger = response(route(site, request("/")))
        local = response(route(site, request("/", remote=LOCAL)))
        assert b"/debug/" not in stranger.body
        assert b"/debug/" in local.body

    def test_no_link_to_what_is_closed(self, site: Backend) -> None:
        for asked in (
            request("/", (b"via", b""), remote=LOCAL),
            request("/", remote=LOCAL, host="evil.example"),
        ):
            assert b"/debug/" not in response(route(site, asked)).body
            assert location(route_plain(site, asked)) == f"https://{asked.host}/"

    def test_blank(self) -> None:
        answer = response(route(make_backend(home="blank"), request("/")))
        assert (answer.status, answer.body) == (200, b"")

    def test_redirect(self) -> None:
        answer = route(make_backend(home="https://a.example/?b=c#d"), request("/x?y"))
        assert response(answer).status == 302
        assert location(answer) == "https://a.example/?b=c#d"

    @pytest.mark.parametrize("path", ["/x", "/derp/", "/derp%2fprobe", "/%2e%2e/derp", "/Derp"])
    def test_unknown_paths(self, site: Backend, path: str) -> None:
        assert route(site, request(path)) == route(site, request("/"))


class TestPaths:
    @pytest.mark.parametrize(
        ("path", "clean"),
        [
            ("/", "/"),
            ("//", "/"),
            ("/a", "/a"),
            ("/a/", "/a/"),
            ("/a//b", "/a/b"),
            ("/a/./b/", "/a/b/"),
            ("/a/.", "/a"),
            ("/a/..", "/"),
            ("/a/../", "/"),
            ("/../../a", "/a"),
            ("/a/b/../c", "/a/c"),
            ("/.well-known/x", "/.well-known/x"),
            ("/...", "/..."),
            ("/a..b", "/a..b"),
            ("/%2e%2e/", "/%2e%2e/"),
        ],
    )
    def test_clean(self, path: str, clean: str) -> None:
        assert clean_path(path) == clean

    @given(st.text(alphabet="/.ab%\\"))
    def test_clean_is_clean(self, text: str) -> None:
        clean = clean_path(f"/{text}")
        assert clean_path(clean) == clean
        assert not clean.startswith("//")
        assert not {"", ".", ".."} & set(clean.removesuffix("/").split("/")[1:])

    @pytest.mark.parametrize(
        ("target", "to"),
        [
            ("//derp/probe", "/derp/probe"),
            ("/derp/./probe?x=1", "/derp/probe?x=1"),
            ("/debug", "/debug/"),
            ("/debug?x=1", "/debug/?x=1"),
            ("/./\\evil.example", "/%5Cevil.example"),
            ("http://evil.example//a", "/a"),
        ],
    )
    @pytest.mark.parametrize("router", [route, route_plain])
    def test_redirect(
        self,
        site: Backend,
        target: str,
        to: str,
        router: Callable[[Backend, Request], Answer],
    ) -> None:
        answer = router(site, request(target))
        assert response(answer).status == 307
        assert location(answer) == to

    @pytest.mark.parametrize("router", [route, route_plain])
    def test_connect(self, site: Backend, router: Callable[[Backend, Request], Answer]) -> None:
        answer = response(router(site, request("a.example:443", method="CONNECT")))
        assert (answer.status, answer.body) == (403, b"CONNECT not enabled\n")

    def test_options(self, site: Backend) -> None:
        assert route(site, request("*", method="OPTIONS")) == Response(200)


class TestChallenge:
    @pytest.mark.parametrize("value", ["a", "aZ09.-_:", "x" * 64])
    @pytest.mark.parametrize("router", [route, route_plain])
    def test_taken_up(
        self, site: Backend, value: str, router: Callable[[Backend, Request], Answer]
    ) -> None:
        asked = request("/generate_204", (b"x-tailscale-challenge", value.encode()))
        answer = response(router(site, asked))
        assert (answer.status, answer.body) == (204, b"")
        assert ("X-Tailscale-Response", f"response {value}") in answer.headers

    @pytest.mark.parametrize("value", [b"", b"a b", b"x" * 65, b"a\r\nb", b"\xe9", b"<", b"a/b"])
    def test_ignored(self, site: Backend, value: bytes) -> None:
        answer = response(route(site, request("/generate_204", (b"x-tailscale-challenge", value))))
        assert answer.status == 204
        assert "X-Tailscale-Response" not in dict(answer.headers)


def test_bootstrap_dns(site: Backend) -> None:
    site.bootstrap_dns.add_unpublished("secret", Record(("192.0.2.9",)))
    answer = response(route(site, request("/bootstrap-dns?q=secret")))
    assert answer.body == b'{\n\t"secret": [\n\t\t"192.0.2.9"\n\t]\n}'
    assert ("Connection", "close") in answer.headers


class TestPlain:
    @pytest.mark.parametrize(
        ("target", "host", "remote", "to"),
        [
            ("/", "a.example", STRANGER, "https://a.example/"),
            ("/", "derp.example", LOCAL, "https://derp.example/debug/"),
            ("/", "a.example", LOCAL, "https://a.example/"),
            ("/?x", "derp.example", LOCAL, "https://derp.example/?x"),
            ("/x?y=z", "a.example", STRANGER, "https://a.example/x?y=z"),
            ("/derp", "a.example", STRANGER, "https://a.example/derp"),
            ("/x", "a.example:8080", STRANGER, "https://a.example:8080/x"),
            ("/x", "[2001:db8::1]", STRANGER, "https://[2001:db8::1]/x"),
            ("/x", "", STRANGER, "https://derp.example/x"),
            ("/x", None, STRANGER, "https://derp.example/x"),
            ("http://b.example/x", "a.example", STRANGER, "https://b.example/x"),
            ("/%41?<&\"'\\", "a.example", STRANGER, "https://a.example/%41?%3C&%22'%5C"),
        ],
    )
    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    def test_redirect(
        self, site: Backend, target: str, host: str | None, remote: str, to: str, method: str
    ) -> None:
        version = "1.0" if host is None else "1.1"
        asked = request(target, host=host, remote=remote, method=method, version=version)
        answer = route_plain(site, asked)
        assert response(answer).status == 302
        assert location(answer) == to

    @pytest.mark.parametrize("method", ["POST", "PUT", "OPTIONS"])
    def test_other_methods(self, site: Backend, method: str) -> None:
        answer = response(route_plain(site, request("/x", method=method)))
        assert (answer.status, answer.body) == (400, b"Use HTTPS\n")

    @pytest.mark.parametrize("path", ["/debug/", "/debug/check", "/debug/x", "/debugging"])
    @pytest.mark.parametrize("remote", [LOCAL, STRANGER])
    def test_debug_goes_to_the_main_routes(self, site: Backend, path: str, remote: str) -> None:
        asked = request(path, remote=remote)
        plain, main = route_plain(site, asked), route(site, asked)
        assert plain == main or response(plain) == response(main)


# What h11 lets through as a request target and as a value.
TARGETS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1)
HOSTS = st.text(alphabet="aZ0!$%&'()*+,-.:;=_~", min_size=1)


@given(target=TARGETS.map(lambda text: f"/{text}"), host=HOSTS, remote=st.sampled_from([LOCAL, ""]))
def test_redirects_lead_to_the_host_asked_for(target: str, host: str, remote: str) -> None:
    site = make_backend()
    try:
        asked = request(target, host=host, remote=remote)
    except BadRequest:
        return
    for router in (route, route_plain):
        answer = router(site, asked)
        if isinstance(answer, Response) and "Location" in dict(answer.headers):
            to = location(answer)
            assert to.isascii()
            assert not set(to) & set(' \r\n\t\\"<>')
            if router is route or answer.status == 307:
                assert to.startswith("/")
                assert not to.startswith("//")
            else:
                assert to.startswith(f"https://{host}/")
                assert urlsplit(to).scheme == "https"
