"""Real handshakes in memory: what a client gets from the context."""

import os
import ssl
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from certs import context as context_module
from certs.context import (
    NO_APPLICATION_PROTOCOL,
    make_alpn_refusal,
    make_challenge_context,
    make_context,
    make_waiting_context,
)
from certs.errors import CertificateFileError, UnusablePairError
from certs.files import pair_files
from certs.manual import load
from certs.metacert import make_metacert
from certs.parse import make_pair

HOST = "relay.example"
METACERT = make_metacert(bytes(range(32)), datetime.now(UTC))
TLS_1_2, TLS_1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


class Side:
    """One end of a connection in memory."""

    def __init__(self, context, **options):
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, **options)
        self.error = None
        self.done = False

    def step(self):
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self.error = error
        else:
            self.done = True


class Handshake:
    """A handshake, as far as it went, with every byte that the server sent."""

    def __init__(self, server_context, client_context, name=HOST, spoil=lambda flight: flight):
        self.client = client = Side(client_context, server_hostname=name)
        self.server = server = Side(server_context, server_side=True)
        self.from_server = b""
        for _ in range(5):
            client.step()
            server.incoming.write(spoil(client.outgoing.read()))
            server.step()
            flight = server.outgoing.read()
            self.from_server += flight
            client.incoming.write(flight)
            if client.error or server.error:
                client.step()
                break

    @property
    def complete(self):
        return self.client.done and self.server.done


@pytest.fixture
def pair(issued):
    return make_pair(issued.chain_pem, issued.key_pem, chain_from="crt", key_from="key")


@pytest.fixture
def server(pair):
    return make_context(pair, METACERT, HOST)


@pytest.fixture
def client(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    return context


def any_name(version=TLS_1_3):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = version
    return context


def chain_as_sent(tls) -> list[bytes]:
    # Public from 3.13 on; the method behind it is older.
    if hasattr(tls, "get_unverified_chain"):
        return tls.get_unverified_chain()
    return [ssl.PEM_cert_to_DER_cert(c.public_bytes()) for c in tls._sslobj.get_unverified_chain()]


def chain_on_the_wire(flight: bytes) -> Iterator[bytes]:
    """Read the certificates out of what a TLS 1.2 server sends in the clear (RFC 5246, 7.4.2)."""
    messages = b""
    while flight and flight[0] == 22:
        size = int.from_bytes(flight[3:5], "big")
        messages += flight[5 : 5 + size]
        flight = flight[5 + size :]
    while messages[0] != 11:
        messages = messages[4 + int.from_bytes(messages[1:4], "big") :]
    rest = messages[7 : 4 + int.from_bytes(messages[1:4], "big")]
    while rest:
        size = int.from_bytes(rest[:3], "big")
        yield rest[3 : 3 + size]
        rest = rest[3 + size :]


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
def test_a_client_that_verifies_connects(server, client, version):
    client.maximum_version = version
    handshake = Handshake(server, client)
    assert handshake.complete, handshake.client.error
    assert handshake.client.tls.version() == {TLS_1_2: "TLSv1.2", TLS_1_3: "TLSv1.3"}[version]


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
def test_the_chain_is_leaf_intermediate_metacert(server, pair, client, version):
    client.maximum_version = version
    handshake = Handshake(server, client)
    assert len(pair.chain_der) == 2
    assert chain_as_sent(handshake.client.tls) == [*pair.chain_der, METACERT]


def test_the_chain_on_the_wire_has_the_same_order(server, pair, client):
    client.maximum_version = TLS_1_2
    sent = list(chain_on_the_wire(Handshake(server, client).from_server))
    assert sent == [*pair.chain_der, METACERT]


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
def test_a_self_signed_pair_is_followed_by_the_metacert_alone(tmp_path, now, version):
    pair = load(pair_files(tmp_path, "192.0.2.7"), ["192.0.2.7"], now)
    server = make_context(pair, METACERT, "192.0.2.7")
    handshake = Handshake(server, any_name(version), "192.0.2.7")
    assert chain_as_sent(handshake.client.tls) == [pair.chain_der[0], METACERT]


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
def test_a_relay_that_hides_has_no_metacert_and_gives_tickets(server, pair, client, version):
    client.maximum_version = version
    hidden = make_context(pair, b"", HOST)
    handshake = Handshake(hidden, client)
    assert chain_as_sent(handshake.client.tls) == list(pair.chain_der)
    assert (hidden.num_tickets, server.num_tickets) == (2, 0)
    assert not hidden.options & ssl.OP_NO_TICKET
    if version == TLS_1_2:
        assert handshake.client.tls.session.has_ticket
        assert not Handshake(server, client).client.tls.session.has_ticket


def alert(handshake) -> int:
    """The alert with which a server refuses a ClientHello."""
    assert handshake.server.error
    kind, *_, level, description = handshake.from_server
    assert (kind, level) == (21, 2)
    return description


def test_its_protocols_are_those_of_a_web_server(pair, client):
    hidden = make_context(pair, b"", HOST)
    client.set_alpn_protocols(["h2", "http/1.0"])
    assert Handshake(hidden, client).client.tls.selected_alpn_protocol() == "http/1.0"
    client.set_alpn_protocols(["h2"])
    refusal = make_alpn_refusal(hidden)
    assert alert(Handshake(refusal, client)) == NO_APPLICATION_PROTOCOL
    assert alert(Handshake(refusal, client, "other.example")) == 112
    by_address = make_alpn_refusal(make_context(pair, b"", "192.0.2.7"))
    assert alert(Handshake(by_address, client, "other.example")) == NO_APPLICATION_PROTOCOL


def test_the_self_signed_certificate_is_good_for_clients_that_trust_it(tmp_path, now):
    pair = load(pair_files(tmp_path, "192.0.2.7"), ["192.0.2.7"], now)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(tmp_path / "192.0.2.7.crt")
    assert Handshake(make_context(pair, METACERT, "192.0.2.7"), client, "192.0.2.7").complete


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
@pytest.mark.parametrize("waiting", [False, True])
def test_tls_1_1_is_refused(server, waiting):
    if waiting:
        server = make_waiting_context("there is no certificate yet")
    client = any_name(ssl.TLSVersion.TLSv1_1)
    client.minimum_version = ssl.TLSVersion.TLSv1_1
    client.set_ciphers("ALL:@SECLEVEL=0")
    handshake = Handshake(server, client)
    assert handshake.server.error.reason == "UNSUPPORTED_PROTOCOL"


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["http/1.1"], "http/1.1"),
        (["h2", "http/1.1"], "http/1.1"),
        (["h2"], None),
        (["derp", "x"], None),
        ([], None),
    ],
)
@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
def test_alpn_is_answered_if_it_can_be_and_ends_no_handshake(server, offered, chosen, version):
    client = any_name(version)
    if offered:
        client.set_alpn_protocols(offered)
    handshake = Handshake(server, client)
    assert handshake.complete
    assert handshake.client.tls.selected_alpn_protocol() == chosen


@pytest.mark.parametrize(
    "order",
    [
        ("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"),
        ("ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-ECDSA-AES128-GCM-SHA256"),
        ("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384"),
    ],
)
def test_the_clients_order_of_ciphers_decides(server, order):
    client = any_name(TLS_1_2)
    client.set_ciphers(":".join(order))
    assert Handshake(server, client).client.tls.cipher()[0] == order[0]


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
def test_no_session_is_resumed_and_no_ticket_is_sent(server, version):
    client = any_name(version)
    handshake = Handshake(server, client)
    assert handshake.complete
    session = handshake.client.tls.session
    assert session is None or not session.has_ticket
    with pytest.raises(ssl.SSLWantReadError):
        handshake.client.tls.read(1)
    assert handshake.client.tls.session is None or not handshake.client.tls.session.has_ticket


@pytest.mark.parametrize("name", [HOST, "RELAY.Example", "relay.example."])
def test_the_server_name_of_the_host_is_accepted(server, name):
    assert Handshake(server, any_name(), name).complete


@pytest.mark.parametrize("hostname", ["Relay.Example", "relay.example."])
def test_the_case_and_final_dot_of_the_flag_do_not_count(pair, hostname):
    assert Handshake(make_context(pair, METACERT, hostname), any_name()).complete


@pytest.mark.parametrize(
    ("name", "accepted"),
    [
        (HOST, True),
        ("B.example", True),
        ("c.wild.example", True),
        ("wild.example", False),
        ("c.d.wild.example", False),
        ("other.example", False),
        (None, False),
    ],
)
def test_each_of_several_names_is_accepted(pair, name, accepted):
    server = make_context(pair, METACERT, HOST, "b.example", "*.wild.example")
    assert Handshake(server, any_name(), name).complete is accepted


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
@pytest.mark.parametrize("name", ["other.example", "a.relay.example", "192.0.2.7", None])
def test_another_name_or_none_gets_an_alert(server, name, version):
    handshake = Handshake(server, any_name(version), name)
    assert not handshake.server.done
    assert handshake.server.error.reason == "CALLBACK_FAILED"
    assert handshake.client.error.reason == "TLSV1_UNRECOGNIZED_NAME"


@pytest.mark.parametrize("name", ["anything.example", "192.0.2.7", None])
def test_for_an_address_any_server_name_is_accepted(tmp_path, now, name):
    pair = load(pair_files(tmp_path, "192.0.2.7"), ["192.0.2.7"], now)
    assert Handshake(make_context(pair, METACERT, "192.0.2.7"), any_name(), name).complete


@pytest.mark.parametrize("waiting", [False, True])
def test_a_name_that_is_not_ascii_ends_the_handshake(server, monkeypatch, waiting):
    if waiting:
        server = make_waiting_context("there is no certificate yet")
    reported = []
    monkeypatch.setattr(sys, "unraisablehook", lambda report: reported.append(report.exc_type))

    def spoil(flight):
        return flight.replace(b"relay.example", b"\xff" * 13)

    handshake = Handshake(server, any_name(), HOST, spoil)
    assert handshake.server.error.reason == "CALLBACK_FAILED"
    assert reported == [UnicodeDecodeError]


WAITING = "there is no certificate yet"


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
@pytest.mark.parametrize("name", [HOST, "other.example", "192.0.2.7", None])
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ([], "TLSV1_ALERT_INTERNAL_ERROR"),
        ([ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME], "TLSV1_UNRECOGNIZED_NAME"),
    ],
)
def test_without_a_certificate_every_client_gets_the_alert(name, version, options, reason):
    context = make_waiting_context(WAITING, *options)
    assert context.refusal == WAITING
    handshake = Handshake(context, any_name(version), name)
    assert not handshake.server.done
    assert handshake.server.error.reason == "CALLBACK_FAILED"
    assert handshake.client.error.reason == reason


@pytest.mark.parametrize("ciphers", ["ECDHE-RSA-AES128-GCM-SHA256", "DHE-RSA-AES256-GCM-SHA384"])
@pytest.mark.parametrize("alpn", ["h2", "http/1.1", "acme-tls/1"])
def test_without_a_certificate_the_alert_comes_whatever_alpn_is_offered(ciphers, alpn):
    client = any_name(TLS_1_2)
    client.set_ciphers(ciphers)
    client.set_alpn_protocols([alpn])
    handshake = Handshake(make_waiting_context(WAITING), client)
    assert handshake.client.error.reason == "TLSV1_ALERT_INTERNAL_ERROR"


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
@pytest.mark.parametrize("name", [HOST, "7.2.0.192.in-addr.arpa", None])
def test_the_answer_to_a_challenge(pair, name, version):
    client = any_name(version)
    client.set_alpn_protocols(["acme-tls/1"])
    handshake = Handshake(make_challenge_context(pair), client, name)
    assert handshake.complete
    assert handshake.client.tls.selected_alpn_protocol() == "acme-tls/1"
    assert chain_as_sent(handshake.client.tls) == list(pair.chain_der)


@pytest.mark.parametrize("offered", [["http/1.1"], ["h2", "http/1.1"], []])
def test_a_challenge_is_answered_with_no_other_protocol(pair, offered):
    client = any_name()
    if offered:
        client.set_alpn_protocols(offered)
    handshake = Handshake(make_challenge_context(pair), client)
    assert handshake.client.tls.selected_alpn_protocol() is None


@pytest.mark.parametrize(
    "make",
    [
        lambda pair: make_context(pair, METACERT, HOST),
        lambda pair: make_waiting_context(WAITING),
        make_challenge_context,
    ],
)
def test_what_all_contexts_have_in_common(pair, make):
    context = make(pair)
    off = ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_NO_TICKET
    assert context.options & off == off
    assert not context.options & ssl.OP_CIPHER_SERVER_PREFERENCE
    assert context.num_tickets == 0
    assert context.minimum_version == TLS_1_2


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x01\x00", b"", b"\0" * 99]
)
def test_bytes_that_are_not_tls_are_an_ssl_error(server, garbage):
    side = Side(server, server_side=True)
    side.incoming.write(garbage)
    side.incoming.write_eof()
    side.step()
    assert isinstance(side.error, ssl.SSLError)


def test_a_key_that_openssl_calls_too_weak(now):
    key = rsa.generate_private_key(65537, 1024)
    name = x509.Name([])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, SHA256())
    )
    pair = make_pair(
        certificate.public_bytes(Encoding.PEM),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        chain_from="crt",
        key_from="key",
    )
    with pytest.raises(UnusablePairError) as caught:
        make_context(pair, METACERT, HOST)
    assert "not fit for TLS: OpenSSL says EE_KEY_TOO_SMALL; have one issued" in str(caught.value)
    assert "\n" not in str(caught.value)


needs_memory_files = pytest.mark.skipif(
    not hasattr(os, "memfd_create"), reason="no files in memory on this system"
)


@needs_memory_files
def test_the_key_never_touches_a_disk(pair, monkeypatch):
    files = []
    monkeypatch.setattr(tempfile, "mkdtemp", files.append)
    real = os.open
    monkeypatch.setattr(os, "open", lambda path, *more: files.append(path) or real(path, *more))
    context = make_context(pair, METACERT, HOST)
    handshake = Handshake(context, any_name())
    assert chain_as_sent(handshake.client.tls)[0] == pair.chain_der[0]
    assert files == []


@needs_memory_files
def test_the_file_in_memory_is_closed(pair, monkeypatch):
    opened, real = [], os.memfd_create
    monkeypatch.setattr(os, "memfd_create", lambda name: opened.append(real(name)) or opened[0])
    make_context(pair, METACERT, HOST)
    assert len(opened) == 1
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(opened[0])


def without_memory_files(monkeypatch):
    monkeypatch.delattr(os, "memfd_create", raising=False)


def with_memory_files_denied(monkeypatch):
    def denied(_name):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "memfd_create", denied, raising=False)


def with_memory_files_out_of_reach(monkeypatch):
    def not_to_be_written(_name):
        return os.open("/", os.O_RDONLY)

    monkeypatch.setattr(os, "memfd_create", not_to_be_written, raising=False)


HAMPER = [without_memory_files, with_memory_files_denied, with_memory_files_out_of_reach]


@pytest.mark.parametrize("hamper", HAMPER)
def test_without_memory_files_the_key_is_in_a_private_file_for_a_moment(
    pair, tmp_path, monkeypatch, hamper
):
    hamper(monkeypatch)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with ExitStack() as stack:
        assert context_module._memory_file(b"key", stack) is None
        path = Path(context_module._private_file(b"key", stack))
        assert path.parent.parent == tmp_path
        assert path.read_bytes() == b"key"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert Handshake(make_context(pair, METACERT, HOST), any_name()).complete
    assert not list(tmp_path.iterdir())


def test_without_any_place_for_the_key_it_is_one_line(pair, tmp_path, monkeypatch):
    without_memory_files(monkeypatch)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(CertificateFileError) as caught:
        make_context(pair, METACERT, HOST)
    assert "no place to hand the key to OpenSSL" in str(caught.value)
    assert "\n" not in str(caught.value)
