"""Which certificate answers which ClientHello."""

from ipaddress import ip_address
from typing import cast

import pytest

from certs.acme.challenge import HTTP01, TLSALPN01
from certs.hostname import IPAddress
from derp.net.address import Endpoint
from derp.net.tlsengine import Choose, TLSEngine
from derp.service import tls
from derp.service.tls import ByAddress, ServerContexts
from derp.wire.clienthello import UNREADABLE, ClientHello

HOST, ONE, TWO, ALPN = "host", "one", "two", "alpn"
"""Stand-ins for contexts."""


class Engine:
    context: object = HOST
    choose: Choose | None = None


class Server:
    def __init__(
        self,
        *,
        named: tuple[str, ...] | None = None,
        is_possible: bool = True,
        hidden: bool = False,
    ) -> None:
        self.engine = Engine()
        self.asked: list[IPAddress] = []
        self.is_possible = is_possible
        self.by_address = None
        if named is not None:
            self.by_address = ByAddress(map(ip_address, named), self._ask)
        engine = cast("TLSEngine", self.engine)
        self.contexts = ServerContexts(engine, self.by_address, hidden=hidden)

    def _ask(self, address: IPAddress) -> bool:
        self.asked.append(address)
        return self.is_possible

    def install(self, *names: str, context: str) -> None:
        self.contexts.install(names, context)  # type: ignore[arg-type]

    def answer(self, name: str | None, *alpn: bytes, at: str = "192.0.2.7") -> object:
        if self.engine.choose is None:
            return self.engine.context
        return self.engine.choose(ClientHello(name, alpn), Endpoint(at, 443))

    def refusal(self, name: str | None, at: str = "192.0.2.7") -> str:
        return str(self.answer(name, at=at).refusal)  # type: ignore[attr-defined]

    def show(self, server_name: str) -> TLSALPN01:
        challenge = TLSALPN01(server_name, None)  # type: ignore[arg-type]
        self.contexts.show(challenge, ALPN)  # type: ignore[arg-type]
        return challenge


def test_usually_the_client_hello_is_not_read() -> None:
    assert Server().engine.choose is None


def test_a_new_certificate_is_served() -> None:
    server = Server()
    server.install("relay.example", context=ONE)
    assert server.answer("relay.example") == ONE


def test_a_new_certificate_for_an_address_is_served_in_manual_mode() -> None:
    server = Server()
    server.install("192.0.2.7", context=ONE)
    assert server.answer(None) == ONE


@pytest.mark.parametrize("name", ["relay.example", "RELAY.example", "relay.example."])
def test_a_challenge_is_answered_where_acme_tls_is_the_only_protocol_offered(name: str) -> None:
    server = Server()
    challenge = server.show("Relay.Example")
    assert server.answer(name, b"acme-tls/1") == ALPN
    assert server.answer(name, b"acme-tls/1", b"http/1.1") == HOST
    assert server.answer(name, b"http/1.1") == HOST
    assert server.answer(name) == HOST
    assert server.answer("other.example", b"acme-tls/1") == HOST
    assert server.answer(None, b"acme-tls/1") == HOST
    server.contexts.hide(challenge)
    assert server.engine.choose is None
    server.contexts.hide(challenge)


def test_two_challenges_at_once() -> None:
    server = Server()
    one, two = server.show("one.example"), server.show("two.example")
    server.contexts.hide(one)
    assert server.answer("two.example", b"acme-tls/1") == ALPN
    assert server.answer("one.example", b"acme-tls/1") == HOST
    server.contexts.hide(two)
    assert server.engine.choose is None


def test_an_http_challenge() -> None:
    server = Server()
    server.contexts.show(HTTP01("token", "body"), None)
    assert server.contexts.http_challenges == {"token": "body"}
    server.contexts.hide(HTTP01("token", "body"))
    assert server.contexts.http_challenges == {}


def test_a_client_that_connects_to_an_address_gets_its_certificate() -> None:
    server = Server(named=())
    server.install("192.0.2.7", "2001:db8::7", context=ONE)
    server.install("192.0.2.8", context=TWO)
    assert server.answer(None) == ONE
    assert server.answer(None, at="2001:db8::7") == ONE
    assert server.answer(None, at="192.0.2.8") == TWO
    assert server.answer("192.0.2.7") == ONE
    assert server.answer("2001:db8:0::7", at="2001:db8::7") == ONE
    assert server.answer("relay.example") == HOST
    assert server.asked == []


def test_an_address_without_one_is_asked_for_and_refused_meanwhile() -> None:
    server = Server(named=())
    assert server.refusal(None) == "there is no certificate for that address yet"
    assert server.asked == [ip_address("192.0.2.7")]


def test_a_client_that_speaks_no_tls_requests_nothing() -> None:
    server = Server(named=())
    assert server.engine.choose is not None
    assert server.engine.choose(UNREADABLE, Endpoint("192.0.2.7", 443)) == HOST
    assert server.asked == []


def test_only_an_address_that_is_the_connection_s_own_is_asked_for() -> None:
    server = Server(named=("192.0.2.9",))
    assert "not this server's" in server.refusal("192.0.2.8")
    assert server.asked == []


def test_an_address_that_no_authority_certifies_says_so() -> None:
    server = Server(named=(), is_possible=False)
    assert "name the public ones with -acme-ip-addresses" in server.refusal(None, at="10.0.0.5")


def test_behind_nat_the_named_addresses_answer() -> None:
    server = Server(named=("192.0.2.7", "2001:db8::7"), is_possible=False)
    assert server.refusal(None, at="10.0.0.5") == "there is no certificate for that address yet"
    server.install("192.0.2.7", "2001:db8::7", context=ONE)
    for name in (None, "192.0.2.7", "2001:db8::7", "10.0.0.5"):
        assert server.answer(name, at="10.0.0.5") == ONE
    assert server.answer(None, at="fd00::5") == ONE


def test_a_named_address_is_awaited_and_not_asked_for() -> None:
    server = Server(named=("192.0.2.7",))
    assert "yet" in server.refusal(None)
    assert server.asked == []


def test_a_hidden_relay_refuses_what_is_no_web_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "make_alpn_refusal", lambda context: f"{context} refuses")
    server = Server(hidden=True)
    assert server.answer("derp.example") == HOST
    assert server.answer("derp.example", b"h2", b"http/1.1") == HOST
    assert server.answer("derp.example", b"h2") == "host refuses"
    server.install("derp.example", context=ONE)
    assert server.answer("derp.example", b"h2") == "one refuses"
    # An authority's challenge is neither.
    assert server.answer("derp.example", b"acme-tls/1") == ONE
    server.show("derp.example")
    assert server.answer("derp.example", b"acme-tls/1") == ALPN
    assert Server().engine.choose is None
