"""dns-lexicon, with a name server and an HTTP server that stand for a company's."""

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from certs.dns01 import lexicon, lexiconcall
from certs.dns01.budget import Budget
from certs.dns01.lexicon import Lexicon, check_provider
from certs.dns01.options import Resolver
from certs.dns01.record import Place, PlacedRecord, Record
from certs.errors import CertificateFileError, Failure, IssueError
from certs.installing import how_to_install
from tests.certs.dns01.conftest import zone

pytestmark = pytest.mark.slow

PLACED = PlacedRecord(
    "-acme-dns powerdns",
    Record("a.example", "value"),
    Place("_acme-challenge.a.example", "example"),
)
TOKEN = "hunter2 and more"
PATH = "/api/v1/servers/localhost/zones/example"


class Company(http.server.BaseHTTPRequestHandler):
    """The part of PowerDNS's interface that changes records."""

    def do_GET(self) -> None:
        self.answer({"kind": "Native", "rrsets": self.server.rrsets})  # type: ignore[attr-defined]

    def do_PATCH(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.changes += body["rrsets"]  # type: ignore[attr-defined]
        self.answer({})

    def answer(self, body: Any) -> None:
        server: Any = self.server
        assert self.path.startswith(PATH), self.path
        assert self.headers["X-API-Key"] == TOKEN
        server.release.wait(60.0)
        status, text = server.refusal or (200, json.dumps(body))
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def company() -> Iterator[Any]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Company) as server:
        found: Any = server
        found.rrsets, found.changes, found.refusal = [], [], None
        found.release = threading.Event()
        found.release.set()
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield found
        found.release.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def provider(company: Any, serve: Callable[..., Any], port: int) -> Lexicon:
    serve("127.0.0.1", zone("example", "127.0.0.1"))
    url = f"http://127.0.0.1:{company.server_address[1]}"
    variables = {"LEXICON_POWERDNS_PDNS_SERVER": url, "LEXICON_POWERDNS_AUTH_TOKEN": TOKEN}
    return Lexicon("powerdns", variables, [Resolver("127.0.0.1", port)])


def test_a_record_is_set_beside_others_and_removed(provider: Lexicon, company: Any) -> None:
    other = {"content": '"other"', "disabled": False}
    ours = {"content": '"value"', "disabled": False}
    name = f"{PLACED.place.name}."
    company.rrsets = [{"name": name, "type": "TXT", "ttl": 60, "records": [other]}]
    assert provider.set(PLACED, Budget.of(60.0)) == ""
    company.rrsets = [{"name": name, "type": "TXT", "ttl": 60, "records": [other, ours]}]
    provider.remove(PLACED, Budget.of(60.0))
    set_to, removed_to = company.changes
    assert (set_to["name"], set_to["type"], set_to["changetype"]) == (name, "TXT", "REPLACE")
    assert {record["content"] for record in set_to["records"]} == {'"other"', '"value"'}
    assert [record["content"] for record in removed_to["records"]] == ['"other"']


def complaint(provider: Lexicon, failure: Failure, seconds: float = 60.0) -> str:
    with pytest.raises(IssueError) as caught:
        provider.set(PLACED, Budget.of(seconds))
    message = str(caught.value)
    assert message.isprintable()
    assert caught.value.failure is failure, message
    assert "hunter2" not in message
    return message


@pytest.mark.parametrize(
    ("status", "text", "failure", "says"),
    [
        (
            401,
            f"<b>no\n{TOKEN}</b>",
            Failure.REFUSED,
            "answers with HTTP status 401 and says '<b>no hunter2 and more</b>'; correct LEXICON_",
        ),
        (429, "", Failure.TRANSIENT, "answers with HTTP status 429; the relay tries again later"),
        (503, "\x1b[1m", Failure.TRANSIENT, "answers with HTTP status 503 and says '?[1m'; the "),
    ],
)
def test_a_refusal(
    provider: Lexicon, company: Any, status: int, text: str, failure: Failure, says: str
) -> None:
    company.refusal = status, text
    message = complaint(provider, failure)
    expected = says.replace(TOKEN, "…")
    assert message.startswith(f"-acme-dns powerdns: powerdns {expected}")
    if failure is Failure.REFUSED:
        assert message.endswith(
            "; correct LEXICON_POWERDNS_AUTH_TOKEN, LEXICON_POWERDNS_PDNS_SERVER, "
            "and see that this account may change example"
        )


def test_an_answer_that_is_none(provider: Lexicon, company: Any) -> None:
    company.refusal = 200, "hello"
    assert "LEXICON_POWERDNS_AUTH_TOKEN" in complaint(provider, Failure.REFUSED)


def test_one_that_does_not_answer(provider: Lexicon, company: Any) -> None:
    company.release.clear()
    message = complaint(provider, Failure.TRANSIENT, seconds=3.0)
    assert message == "powerdns did not answer within 3 s; the relay tries again later"


def test_one_that_can_t_be_reached(company: Any, serve: Callable[..., Any], port: int) -> None:
    serve("127.0.0.1", zone("example", "127.0.0.1"))
    url = f"http://127.0.0.1:1/?key={TOKEN}"
    variables = {"LEXICON_POWERDNS_PDNS_SERVER": url, "LEXICON_POWERDNS_AUTH_TOKEN": TOKEN}
    provider = Lexicon("powerdns", variables, [Resolver("127.0.0.1", port)])
    assert complaint(provider, Failure.TRANSIENT) == (
        "-acme-dns powerdns: powerdns can't be reached (Connection refused); "
        "the relay tries again later"
    )


def test_of_a_url_only_the_host_is_shown() -> None:
    text = "no host in 'https://api.example/v1/hunter2?key=hunter2', nor http://other.example"
    shown = "no host in 'https://api.example/…', nor http://other.example/…"
    assert lexiconcall._shown(text, {}) == shown


def test_a_process_that_breaks(provider: Lexicon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lexicon, "_PROGRAM", f"raise SystemExit('{TOKEN}')")
    assert (
        complaint(provider, Failure.REFUSED)
        == "dns-lexicon ended with status 1: '…'; install it anew"
    )


def test_without_the_extra_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lexicon, "find_spec", lambda _name: None)
    with pytest.raises(CertificateFileError) as caught:
        check_provider("cloudflare", {})
    assert str(caught.value) == (
        f"-acme-dns cloudflare: dns-lexicon is not installed; "
        f"{how_to_install('dns-lexicon>=3.20,<4')}"
    )


ROUTE53 = how_to_install("dns-lexicon[route53]")
CLOUDFLARE = "LEXICON_CLOUDFLARE_AUTH_USERNAME, LEXICON_CLOUDFLARE_AUTH_TOKEN, "


@pytest.mark.parametrize(
    ("provider", "variables", "says"),
    [
        (
            "cloudfare",
            {},
            "-acme-dns cloudfare: no such provider; want rfc2136, or one of dns-lexicon's: cloudfl",
        ),
        (
            "route53",
            {"LEXICON_ROUTE53_AUTH_ACCESS_KEY": "x"},
            "-acme-dns route53: its own library is not installed; " + ROUTE53,
        ),
        (
            "cloudflare",
            {"LEXICON_CLOUDFLARE_AUTH_TOKN": "hunter2"},
            "-acme-dns cloudflare: it has no variable LEXICON_CLOUDFLARE_AUTH_TOKN; want "
            + CLOUDFLARE,
        ),
        (
            "cloudflare",
            {"LEXICON_CLOUDFLARE_AUTH_TOKEN": ""},
            "-acme-dns cloudflare: no credentials; set what it needs of " + CLOUDFLARE,
        ),
    ],
)
def test_what_is_wrong_is_found_at_the_start(
    provider: str, variables: dict[str, str], says: str
) -> None:
    with pytest.raises(CertificateFileError) as caught:
        check_provider(provider, variables)
    message = str(caught.value)
    assert message.startswith(says)
    assert message.isprintable()
    assert "hunter2" not in message


def test_credentials_that_may_do() -> None:
    check_provider("cloudflare", {"LEXICON_CLOUDFLARE_AUTH_TOKEN": "x", "HTTPS_PROXY": "y"})


@pytest.mark.parametrize("provider", ["aliyun", "dnspod", "gandi", "hetzner", "linode4", "ovh"])
def test_providers_and_their_variables(provider: str) -> None:
    with pytest.raises(
        CertificateFileError, match=f"set what it needs of LEXICON_{provider.upper()}_AUTH_"
    ):
        check_provider(provider, {})
