import hashlib
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from certs.acme.answer import make_challenge
from certs.acme.challenge import ALPN_OFFER, ALPN_PROTOCOL, HTTP01, TLSALPN01
from certs.context import make_context


def test_the_protocol_of_rfc_8737():
    assert ALPN_PROTOCOL == "acme-tls/1"
    assert ALPN_OFFER == (b"acme-tls/1",)


def test_http_01_is_the_key_authorization(now):
    assert make_challenge("http-01", "relay.example", "to-ken", "to-ken.print", now) == HTTP01(
        "to-ken", "to-ken.print"
    )


@pytest.mark.parametrize(
    ("name", "server_name"),
    [
        ("relay.example", "relay.example"),
        ("192.0.2.1", "1.2.0.192.in-addr.arpa"),
        ("2001:db8::1", "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"),
    ],
)
def test_tls_alpn_01_as_rfc_8737_and_8738_have_it(name, server_name, now):
    challenge = make_challenge("tls-alpn-01", name, "to-ken", "to-ken.print", now)
    assert isinstance(challenge, TLSALPN01)
    assert challenge.server_name == server_name
    pair = challenge.pair
    assert pair.names == (name,)
    assert pair.self_signed
    assert pair.not_before < now - timedelta(hours=12) < now + timedelta(days=3) < pair.not_after

    (leaf_der,) = pair.chain_der
    leaf = x509.load_der_x509_certificate(leaf_der)
    assert leaf.public_key() == load_pem_private_key(pair.key_pem, None).public_key()
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert len(list(names)) == 1
    oid = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")
    identifier = leaf.extensions.get_extension_for_oid(oid)
    assert identifier.critical
    digest = hashlib.sha256(b"to-ken.print").digest()
    assert identifier.value.value == bytes([4, 32]) + digest  # type: ignore[attr-defined]


def test_the_answer_can_be_served(now):
    challenge = make_challenge("tls-alpn-01", "relay.example", "to-ken", "to-ken.print", now)
    make_context(challenge.pair, challenge.pair.chain_der[0], "relay.example")


def test_no_secret_is_in_the_repr(now):
    challenge = make_challenge("tls-alpn-01", "relay.example", "to-ken", "to-ken.print", now)
    assert "PRIVATE" not in repr(challenge)
