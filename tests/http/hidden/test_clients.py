"""Which requests are a client's: those that Tailscale's programs make, and none besides."""

from typing import Any

import pytest

from derp.http.access import DebugAccess
from derp.http.backend import Backend
from derp.http.bootstrap_dns import BootstrapDNS, Record
from derp.http.hidden.clients import is_from_client, route
from derp.http.message import Answer, Request, Response, Upgrade, parse_request
from derp.http.steer import Operator
from tests.http.sites import make_backend

STRANGER = "192.0.2.7"
GO = {"User-Agent": "Go-http-client/1.1", "Accept-Encoding": "gzip"}
DERP = {"User-Agent": "Go-http-client/1.1", "Connection": "Upgrade", "Upgrade": "DERP"}
WEBSOCKET = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Protocol": "derp",
}


def request(
    method: str, target: str, headers: dict[str, str] | None = None, remote: str = STRANGER
) -> Request:
    fields = {"Host": "derp.example", **(headers or {})}
    lines = [(name.lower().encode(), value.encode()) for name, value in fields.items()]
    return parse_request(method.encode(), target.encode(), b"1.1", lines, remote)


def names() -> BootstrapDNS:
    found = BootstrapDNS()
    found.publish("login.example", Record(("192.0.2.1",)))
    return found


def answered(relay: Backend, asked: Request, *, plain: bool = False) -> Answer | None:
    return route(relay, asked, plain=plain) if is_from_client(relay, asked, plain=plain) else None


CLIENTS: list[tuple[str, str, dict[str, str], int]] = [
    ("GET", "/derp", DERP, 101),
    ("GET", "/derp", {**DERP, "Derp-Fast-Start": "1", "Ideal-Node": "900a"}, 101),
    ("GET", "/derp", WEBSOCKET, 101),
    ("GET", "/derp/latency-check", GO, 200),
    ("HEAD", "/derp/probe", {"Origin": "https://login.example"}, 200),
    ("GET", "/generate_204", {"X-Tailscale-Challenge": "ts_192.0.2.1"}, 204),
    ("GET", "/generate_204?t=1", {"X-Tailscale-Challenge": "ts_192.0.2.1"}, 204),
    ("GET", "/bootstrap-dns?q=login.example", GO, 200),
]


@pytest.mark.parametrize(("method", "target", "headers", "status"), CLIENTS)
def test_clients_are_answered(
    method: str, target: str, headers: dict[str, str], status: int
) -> None:
    relay = make_backend(home="hidden", bootstrap_dns=names())
    found = answered(relay, request(method, target, headers))
    if status == 101:
        assert isinstance(found, Upgrade)
    else:
        assert isinstance(found, Response)
        assert found.status == status
    assert route(relay, request(method, target, headers)) == found


OTHERS: list[tuple[str, str, dict[str, str]]] = [
    *(("GET", path, {}) for path in ("/", "/derp", "/derp/probe", "/derp/latency-check", "/x")),
    *(("GET", path, {}) for path in ("/generate_204", "/bootstrap-dns", "/robots.txt", "/debug/")),
    ("POST", "/derp", DERP),
    ("GET", "/derp/", DERP),
    ("GET", "//derp", DERP),
    ("GET", "/%64erp", DERP),
    ("GET", "/derp", {"Upgrade": "DERP"}),
    ("GET", "/derp", {**DERP, "Content-Length": "1"}),
    ("GET", "/derp", {**DERP, "Upgrade": "h2c"}),
    ("GET", "/derp", {**WEBSOCKET, "Upgrade": "h2c"}),
    ("GET", "/derp", {**WEBSOCKET, "Sec-WebSocket-Protocol": "chat"}),
    ("GET", "/derp", {**WEBSOCKET, "Sec-WebSocket-Version": "12"}),
    ("GET", "/derp", {**WEBSOCKET, "Sec-WebSocket-Key": "x"}),
    ("GET", "/derp/latency-check", {**GO, "User-Agent": "curl/8.0"}),
    ("GET", "/derp/latency-check", {**GO, "Accept-Encoding": "gzip, br"}),
    ("POST", "/derp/latency-check", GO),
    ("GET", "/derp/latency-check", {**GO, "Content-Length": "1"}),
    ("GET", "/derp/probe", GO),
    ("HEAD", "/derp/probe", {}),
    ("GET", "/bootstrap-dns", GO),
    ("GET", "/bootstrap-dns?q=login.example", {}),
]


@pytest.mark.parametrize(("method", "target", "headers"), OTHERS)
def test_others_are_not(method: str, target: str, headers: dict[str, str]) -> None:
    relay = make_backend(home="hidden", bootstrap_dns=names())
    asked = request(method, target, headers)
    assert answered(relay, asked) is None
    found = route(relay, asked)
    assert isinstance(found, Response)
    assert (found.status, found.headers[0]) == (404, ("Server", "nginx"))


@pytest.mark.parametrize(("method", "target", "headers", "_status"), CLIENTS)
def test_on_the_plain_port_only_captive_portals_are_looked_for(
    method: str, target: str, headers: dict[str, str], _status: int
) -> None:
    relay = make_backend(home="hidden", bootstrap_dns=names())
    found = answered(relay, request(method, target, headers), plain=True)
    assert (found is not None) == target.startswith("/generate_204")


def test_without_names_there_is_no_bootstrap_dns() -> None:
    assert answered(make_backend(), request("GET", "/bootstrap-dns?q=a", GO)) is None


def test_without_derp_there_is_no_derp() -> None:
    relay = make_backend(derp=False)
    assert answered(relay, request("GET", "/derp", DERP)) is None
    assert answered(relay, request("GET", "/derp/latency-check", GO)) is not None


@pytest.mark.parametrize("path", ["/debug", "/debug/", "/debug/varz", "/debug/none"])
@pytest.mark.parametrize("plain", [True, False])
def test_the_pages_of_debug_are_for_whom_they_are(path: str, plain: bool) -> None:
    relay = make_backend(debug_access=DebugAccess(key=lambda: b"secret"))
    for remote, query, shown in (
        (STRANGER, "", False),
        ("127.0.0.1", "", False),  # the Host is another
        (STRANGER, "?debugkey=secret", True),
        (STRANGER, "?debugkey=wrong", False),
    ):
        found = answered(relay, request("GET", path + query, remote=remote), plain=plain)
        assert (found is not None) == shown


@pytest.mark.parametrize(
    ("token", "plain", "shown"), [("t", True, True), ("t", False, False), ("u", True, False)]
)
def test_an_authority_s_challenge_is_answered_on_the_plain_port(
    token: str, plain: bool, shown: bool
) -> None:
    asked = request("GET", f"/.well-known/acme-challenge/{token}")
    found: Any = answered(make_backend(challenges={"t": "t.x"}), asked, plain=plain)
    assert (found is not None and found.body == b"t.x") == shown
    assert answered(make_backend(), asked, plain=True) is None


def test_to_decide_counts_nothing() -> None:
    """As the request is routed afterwards, it would count twice."""
    wrong: list[str] = []
    operator = Operator(lambda: b"x" * 16, on_wrong=wrong.append)
    access = DebugAccess(frozenset({"derp.example"}))
    relay = make_backend(bootstrap_dns=names(), operator=operator, debug_access=access)
    ask = request("GET", "/bootstrap-dns?q=login.example", GO)
    steer = request(
        "POST",
        "/debug/steer",
        {"Content-Type": "application/json", "Authorization": "Bearer wrong"},
        remote="127.0.0.1",
    )
    for asked, count in (
        (ask, lambda: relay.bootstrap_dns.requests),
        (steer, lambda: len(wrong)),
    ):
        assert is_from_client(relay, asked)
        assert count() == 0
        assert route(relay, asked) is not None
        assert count() == 1
