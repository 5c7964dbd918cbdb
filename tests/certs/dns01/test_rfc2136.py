"""What dynamic updates are made of, and what a server's refusals become.

A real server takes some in tests/interop/test_acme_dns.py.
"""

import base64
import socketserver
import threading
from collections.abc import Callable, Iterator
from typing import Any

import dns.message
import dns.rcode
import dns.rdataclass
import dns.tsig
import dns.update
import pytest
from hypothesis import given
from hypothesis import strategies as st

from certs.dns01.budget import Budget
from certs.dns01.lookup import Lookup
from certs.dns01.record import Place, PlacedRecord, Record
from certs.dns01.rfc2136 import DynamicUpdates, Settings, parse_settings
from certs.errors import CertificateFileError, Failure, IssueError
from tests.certs.dns01.conftest import zone

SECRET = base64.b64encode(b"0123456789abcdef" * 2).decode()
VARIABLES = {"RFC2136_TSIG_KEY": "the-key", "RFC2136_TSIG_SECRET": SECRET}
PLACED = PlacedRecord(
    "-acme-dns rfc2136",
    Record("a.example", "value"),
    Place("_acme-challenge.a.example", "example"),
)


def settings(**more: str) -> Settings:
    return parse_settings({**VARIABLES, **{f"RFC2136_{name}": text for name, text in more.items()}})


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("", "", 53),
        ("ns.example", "ns.example", 53),
        ("ns.example:5353", "ns.example", 5353),
        ("192.0.2.1", "192.0.2.1", 53),
        ("192.0.2.1:5353", "192.0.2.1", 5353),
        ("2001:db8::1", "2001:db8::1", 53),
        ("[2001:db8::1]", "2001:db8::1", 53),
        ("[2001:db8::1]:5353", "2001:db8::1", 5353),
    ],
)
def test_a_server(text: str, host: str, port: int) -> None:
    found = settings(NAMESERVER=text)
    assert (found.host, found.port) == (host, port)
    assert found.key.algorithm == dns.tsig.HMAC_SHA256
    assert SECRET not in repr(found)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RFC2136_TSIG_KEY": ""}, "-acme-dns rfc2136: RFC2136_TSIG_KEY is not set; "),
        ({"RFC2136_TSIG_SECRET": ""}, "-acme-dns rfc2136: RFC2136_TSIG_SECRET is not set; "),
        ({"RFC2136_TSIG_KEY": "a..b"}, "RFC2136_TSIG_KEY: want the name of the key"),
        ({"RFC2136_TSIG_SECRET": "hunter2!"}, "RFC2136_TSIG_SECRET: want the key in base64"),
        ({"RFC2136_TSIG_ALGORITHM": "sha9"}, "RFC2136_TSIG_ALGORITHM=sha9: want one of hmac-md5, "),
        (
            {"RFC2136_NAMESERVER": "a b"},
            "RFC2136_NAMESERVER=a b: want host, host:port or ",
        ),
        ({"RFC2136_NAMESERVER": "a:0"}, "RFC2136_NAMESERVER=a:0: want host"),
        ({"RFC2136_NAMESERVER": "a:65536"}, "RFC2136_NAMESERVER=a:65536: want host"),
    ],
)
def test_wrong_variables_are_named(variables: dict[str, str], message: str) -> None:
    with pytest.raises(CertificateFileError) as caught:
        parse_settings({**VARIABLES, **variables})
    assert str(caught.value).startswith(message)
    assert "hunter2" not in str(caught.value)
    assert SECRET not in str(caught.value)


@given(st.dictionaries(st.sampled_from([*VARIABLES, "RFC2136_NAMESERVER"]), st.text()))
def test_any_variables_are_settings_or_one_line(variables: dict[str, str]) -> None:
    message = ""
    try:
        parse_settings(variables)
    except CertificateFileError as error:
        message = str(error)
    assert message.isprintable()


class Server(socketserver.TCPServer):
    allow_reuse_address = True
    rcode = dns.rcode.NOERROR
    error: int | None = None
    """Of the TSIG in the answer."""
    signed = True

    def __init__(self, address: tuple[str, int]) -> None:
        super().__init__(address, Handler)
        self.taken: list[str] = []


class Handler(socketserver.StreamRequestHandler):
    server: Server

    def handle(self) -> None:
        wire = self.rfile.read(int.from_bytes(self.rfile.read(2), "big"))
        key = settings().key
        update = dns.message.from_wire(wire, keyring=key)
        assert isinstance(update, dns.update.UpdateMessage)
        self.server.taken += [
            f"{rrset.name} {rrset.ttl} {rrset[0]} {rrset.deleting}" for rrset in update.update
        ]
        response = dns.message.make_response(update, tsig_error=self.server.error or 0)
        response.set_rcode(self.server.rcode)
        if not self.server.signed:
            response.tsig = None
        answer = response.to_wire()
        self.wfile.write(len(answer).to_bytes(2, "big") + answer)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def updates(server: Server, lookup: Lookup) -> DynamicUpdates:
    return DynamicUpdates(settings(NAMESERVER=f"127.0.0.1:{server.server_address[1]}"), lookup)


def test_a_record_is_added_and_removed(server: Server, updates: DynamicUpdates) -> None:
    assert updates.set(PLACED, Budget.of(30.0)) == ""
    updates.remove(PLACED, Budget.of(30.0))
    assert server.taken == [
        '_acme-challenge.a.example. 60 "value" None',
        # Class NONE: this record of the name, and no other (RFC 2136, 2.5.4).
        f'_acme-challenge.a.example. 0 "value" {dns.rdataclass.NONE}',
    ]


@pytest.mark.parametrize(
    ("rcode", "failure", "cure"),
    [
        (dns.rcode.REFUSED, Failure.REFUSED, "let the key the-key (RFC2136_TSIG_KEY) change TXT"),
        (dns.rcode.NOTAUTH, Failure.REFUSED, "set RFC2136_NAMESERVER to the server on which"),
        (dns.rcode.NOTZONE, Failure.REFUSED, "set RFC2136_NAMESERVER to the server on which"),
        (dns.rcode.SERVFAIL, Failure.TRANSIENT, "see its log: it may be unable to write the zone"),
        (dns.rcode.YXDOMAIN, Failure.REFUSED, "see its log; RFC2136_TSIG_KEY is the-key, and"),
    ],
)
def test_a_refusal(
    server: Server, updates: DynamicUpdates, rcode: int, failure: Failure, cure: str
) -> None:
    server.rcode = rcode
    message = complaint(updates, failure)
    assert message.startswith(f"127.0.0.1 answers {dns.rcode.to_text(rcode)} to an update")
    assert cure in message


@pytest.mark.parametrize(
    ("error", "failure", "says"),
    [
        (dns.rcode.BADKEY, Failure.REFUSED, "127.0.0.1 knows no hmac-sha256 key the-key; add it "),
        (
            dns.rcode.BADSIG,
            Failure.REFUSED,
            "127.0.0.1 has another secret for the key the-key; ",
        ),
        (
            dns.rcode.BADTIME,
            Failure.TRANSIENT,
            "127.0.0.1 finds that this machine's clock is wr",
        ),
    ],
)
def test_a_key_that_is_wrong(
    server: Server, updates: DynamicUpdates, error: int, failure: Failure, says: str
) -> None:
    server.rcode, server.error = dns.rcode.NOTAUTH, error
    message = complaint(updates, failure)
    assert message.startswith(says)
    assert SECRET not in message


def test_an_answer_that_is_not_signed(server: Server, updates: DynamicUpdates) -> None:
    server.signed = False
    message = complaint(updates, Failure.TRANSIENT)
    assert "TSIG" in message or "not signed" in message


def complaint(updates: DynamicUpdates, failure: Failure) -> str:
    with pytest.raises(IssueError) as caught:
        updates.set(PLACED, Budget.of(30.0))
    message = str(caught.value)
    assert message.isprintable()
    assert caught.value.failure is failure, message
    return message


def test_no_server_there(lookup: Lookup) -> None:
    with Server(("127.0.0.1", 0)) as closed:
        port = closed.server_address[1]
    updates = DynamicUpdates(settings(NAMESERVER=f"127.0.0.1:{port}"), lookup)
    assert complaint(updates, Failure.TRANSIENT) == (
        f"the name server 127.0.0.1, port {port}, can't be asked to change example (Connection "
        f"refused); start it and let this machine reach it by TCP, "
        f"or set RFC2136_NAMESERVER to another"
    )


def test_the_zone_s_primary_is_asked(serve: Callable[..., Any], port: int, lookup: Lookup) -> None:
    serve("127.0.0.1", zone("example", "127.0.0.1"))
    with Server(("127.0.0.1", port)) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        DynamicUpdates(settings(), lookup).set(PLACED, Budget.of(30.0))
        thread.join()
        assert len(server.taken) == 1
