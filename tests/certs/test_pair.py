import hashlib
import ssl
import warnings
from datetime import timedelta
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from certs.errors import UnusablePairError
from certs.pair import Pair, cert_pin
from certs.parse import make_pair
from tests.support.examples import examples

END = "-----END CERTIFICATE-----\n"

SLOW_FIXTURES = settings(
    max_examples=examples(150),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def pair_of(chain_pem, key_pem):
    return make_pair(chain_pem, key_pem, chain_from="/c/h.crt", key_from="/c/h.key")


def self_signed_for(key, now, *extensions):
    name = x509.Name([])
    builder = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    edwards = isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
    return builder.sign(key, None if edwards else SHA256()).public_bytes(Encoding.PEM)


def pem_of(key, form=PrivateFormat.PKCS8, encryption=None):
    return key.private_bytes(Encoding.PEM, form, encryption or NoEncryption())


def leaf_of(issued):
    return ssl.PEM_cert_to_DER_cert(issued.chain_pem.decode().partition(END)[0] + END)


def refusal(chain_pem, key_pem):
    with pytest.raises(UnusablePairError) as caught:
        pair_of(chain_pem, key_pem)
    message = str(caught.value)
    assert "\n" not in message
    assert "/c/h." in message
    return message


def test_a_chain_keeps_its_order_and_the_leaf_is_described(issue):
    issued = issue("relay.example", "*.wild.example", "192.0.2.7", "2001:db8::7")
    pair = pair_of(issued.chain_pem, issued.key_pem)
    in_file = x509.load_pem_x509_certificates(issued.chain_pem)
    assert pair.chain_der == tuple(c.public_bytes(Encoding.DER) for c in in_file)
    assert len(pair.chain_der) == 2
    assert pair.dns_names == ("relay.example", "*.wild.example")
    assert pair.ip_addresses == (ip_address("192.0.2.7"), ip_address("2001:db8::7"))
    assert pair.names == ("relay.example", "*.wild.example", "192.0.2.7", "2001:db8::7")
    assert pair.not_before == in_file[0].not_valid_before_utc
    assert pair.not_after == in_file[0].not_valid_after_utc
    assert not pair.self_signed
    assert pair.warnings == ()
    assert load_pem_private_key(pair.key_pem, None).public_key() == in_file[0].public_key()


def test_the_key_is_not_in_the_repr(issued):
    pair = pair_of(issued.chain_pem, issued.key_pem)
    assert "key_pem" not in repr(pair)
    assert "PRIVATE" not in repr(pair)


def test_the_pin_is_the_hash_of_the_leaf(issued):
    pair = pair_of(issued.chain_pem, issued.key_pem)
    assert pair.pin == f"sha256-raw:{hashlib.sha256(pair.chain_der[0]).hexdigest()}"
    assert cert_pin(b"") == (
        "sha256-raw:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )


@pytest.mark.parametrize(
    ("key", "form"),
    [
        (ec.generate_private_key(ec.SECP256R1()), PrivateFormat.PKCS8),
        (ec.generate_private_key(ec.SECP256R1()), PrivateFormat.TraditionalOpenSSL),
        (ec.generate_private_key(ec.SECP384R1()), PrivateFormat.PKCS8),
        (rsa.generate_private_key(65537, 2048), PrivateFormat.PKCS8),
        (rsa.generate_private_key(65537, 2048), PrivateFormat.TraditionalOpenSSL),
        (ed25519.Ed25519PrivateKey.generate(), PrivateFormat.PKCS8),
    ],
    ids=["p256", "p256-sec1", "p384", "rsa", "rsa-pkcs1", "ed25519"],
)
def test_kinds_of_keys_that_clients_can_use(key, form, now):
    pair = pair_of(self_signed_for(key, now), pem_of(key, form))
    assert pair.key_pem.startswith(b"-----BEGIN PRIVATE KEY-----")
    assert pair.self_signed
    assert pair.names == ()


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP256K1()),
        ed448.Ed448PrivateKey.generate(),
        dsa.generate_private_key(1024),
    ],
    ids=["secp256k1", "ed448", "dsa"],
)
def test_kinds_of_keys_that_clients_can_not_use(key, now):
    message = refusal(self_signed_for(key, now), pem_of(key))
    assert message.startswith("/c/h.key: clients can't use this kind of key; ")


def test_other_blocks_and_text_around_are_skipped(issued):
    parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    everything = b"Bag Attributes: none\n" + parameters + issued.key_pem + issued.chain_pem
    assert pair_of(everything, everything) == pair_of(issued.chain_pem, issued.key_pem)


def test_carriage_returns_are_no_harm(issued):
    chain, key = (pem.replace(b"\n", b"\r\n") for pem in (issued.chain_pem, issued.key_pem))
    assert pair_of(chain, key) == pair_of(issued.chain_pem, issued.key_pem)


@pytest.mark.parametrize("content", [b"", b"relay", b"\x30\x82\x01\x0a", b"\xff\xfe"])
def test_files_that_are_not_pem(issued, content):
    assert refusal(content, issued.key_pem).startswith("/c/h.crt: no PEM; ")
    assert refusal(issued.chain_pem, content).startswith("/c/h.key: no PEM; ")


def test_files_switched(issued):
    assert "a private key but no certificate" in refusal(issued.key_pem, issued.chain_pem)
    assert "a certificate but no private key" in refusal(issued.chain_pem, issued.chain_pem)


def test_a_key_of_another_certificate(issued, issue):
    message = refusal(issued.chain_pem, issue("relay.example").key_pem)
    assert message.startswith("/c/h.key: this is not the key of the first certificate in /c/h.crt")


def test_a_chain_that_begins_with_the_authority(issued):
    leaf, parent = x509.load_pem_x509_certificates(issued.chain_pem)
    backwards = parent.public_bytes(Encoding.PEM) + leaf.public_bytes(Encoding.PEM)
    assert "the chain must begin with the host's own" in refusal(backwards, issued.key_pem)


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_an_encrypted_key(issued, form):
    key = load_pem_private_key(issued.key_pem, None)
    message = refusal(issued.chain_pem, pem_of(key, form, BestAvailableEncryption(b"secret")))
    assert message.startswith("/c/h.key: the private key is encrypted; ")


def test_a_cut_off_certificate(issued):
    assert "damaged certificate" in refusal(issued.chain_pem[:300], issued.key_pem)


def test_a_cut_off_key_is_not_quoted(issued):
    cut = issued.key_pem[:100] + b"\n-----END PRIVATE KEY-----\n"
    with pytest.raises(UnusablePairError, match="damaged private key") as caught:
        pair_of(issued.chain_pem, cut)
    assert caught.value.__cause__ is None
    assert issued.key_pem[40:60].decode() not in str(caught.value)


BIT_STRING = bytes([3, 7, 0]) + b"abcdef"
"""DER: tag, length, unused bits, data."""


def with_a_bit_string(name, now, *extensions):
    """Return a certificate and its key, with a bit string for the name's one text."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    der = builder.sign(key, SHA256()).public_bytes(Encoding.DER)
    text = b"\x0c\x07\0abcdef"
    assert text in der
    return ssl.DER_cert_to_PEM_cert(der.replace(text, BIT_STRING)).encode(), pem_of(key)


TEXT = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "\0abcdef")])


def test_a_subject_that_has_no_text_is_not_shown(now):
    chain_pem, key_pem = with_a_bit_string(TEXT, now)
    assert pair_of(chain_pem, key_pem).subject == ""


def test_an_alternative_name_that_has_no_text(now):
    names = x509.SubjectAlternativeName([x509.DirectoryName(TEXT)])
    chain_pem, key_pem = with_a_bit_string(x509.Name([]), now, names)
    assert "damaged extensions" in refusal(chain_pem, key_pem)


def test_damaged_extensions(now):
    key = ec.generate_private_key(ec.SECP256R1())
    broken = x509.UnrecognizedExtension(x509.SubjectAlternativeName.oid, b"\x30\x05\x82")
    assert "damaged extensions" in refusal(self_signed_for(key, now, broken), pem_of(key))


def test_an_extension_that_is_there_twice(issued):
    leaf = leaf_of(issued)
    key_usage, alternative_names = bytes.fromhex("0603551d0f"), bytes.fromhex("0603551d11")
    assert key_usage in leaf
    odd = ssl.DER_cert_to_PEM_cert(leaf.replace(key_usage, alternative_names)).encode()
    assert "damaged extensions" in refusal(odd, issued.key_pem)


def test_a_certificate_of_an_unknown_version(issued):
    leaf = leaf_of(issued)
    assert leaf[8:13] == bytes.fromhex("a003020102")
    odd = ssl.DER_cert_to_PEM_cert(leaf[:12] + b"\x09" + leaf[13:]).encode()
    assert "damaged certificate" in refusal(odd, issued.key_pem)


def test_a_public_key_of_an_unknown_kind(issued):
    leaf = leaf_of(issued)
    ec_public_key, unknown = (bytes.fromhex(f"06072a8648ce3d02{n}") for n in ("01", "7f"))
    assert ec_public_key in leaf
    odd = ssl.DER_cert_to_PEM_cert(leaf.replace(ec_public_key, unknown)).encode()
    assert "public key or one of an unknown kind" in refusal(odd, issued.key_pem)


def nothing_but_unusable(chain_pem, key_pem):
    with warnings.catch_warnings():
        # The parser warns of oddities that it lets pass.
        warnings.simplefilter("ignore")
        try:
            pair = pair_of(chain_pem, key_pem)
        except UnusablePairError as error:
            assert "\n" not in str(error)  # noqa: PT017
        else:
            assert isinstance(pair, Pair)


@pytest.mark.slow
@given(chain_pem=st.binary(), key_pem=st.binary())
@example(b"-----BEGIN CERTIFICATE-----", b"-----BEGIN PRIVATE KEY-----")
@example(b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", b"")
@SLOW_FIXTURES
def test_any_bytes(issued, chain_pem, key_pem):
    nothing_but_unusable(chain_pem, issued.key_pem)
    nothing_but_unusable(issued.chain_pem, key_pem)


def armoured(label):
    return st.binary().map(
        lambda der: ssl.DER_cert_to_PEM_cert(der).replace("CERTIFICATE", label).encode()
    )


@pytest.mark.slow
@given(
    chain_pem=armoured("CERTIFICATE"),
    key_pem=st.sampled_from(["PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY"]).flatmap(armoured),
)
@SLOW_FIXTURES
def test_any_bytes_in_armour(issued, chain_pem, key_pem):
    nothing_but_unusable(chain_pem, issued.key_pem)
    nothing_but_unusable(issued.chain_pem, key_pem)


@given(data=st.data())
@SLOW_FIXTURES
def test_a_certificate_with_one_byte_changed(issued, data):
    der = bytearray(leaf_of(issued))
    der[data.draw(st.integers(0, len(der) - 1))] = data.draw(st.integers(0, 255))
    nothing_but_unusable(ssl.DER_cert_to_PEM_cert(bytes(der)).encode(), issued.key_pem)


@pytest.mark.parametrize("tag", [0, 0x1E, 0x80, 0xFF])
def test_names_of_an_unknown_type_of_string(issued, tag):
    der = leaf_of(issued)
    utf8_string = 0x0C
    places = [place for place, byte in enumerate(der) if byte == utf8_string]
    assert places
    for place in places:
        changed = der[:place] + bytes([tag]) + der[place + 1 :]
        nothing_but_unusable(ssl.DER_cert_to_PEM_cert(changed).encode(), issued.key_pem)


@given(data=st.data())
@SLOW_FIXTURES
def test_a_key_with_one_byte_changed(issued, data):
    pem = bytearray(issued.key_pem)
    pem[data.draw(st.integers(0, len(pem) - 1))] = data.draw(st.integers(0, 255))
    nothing_but_unusable(issued.chain_pem, bytes(pem))
