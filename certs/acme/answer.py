"""The making of an answer to an ACME challenge: a text, a self-signed certificate, a DNS record."""

import base64
import hashlib
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from certs.acme.challenge import DNS01, HTTP01, TLSALPN01, AnyChallenge, Kind
from certs.hostname import parse_ip
from certs.pair import Pair
from certs.parse import make_pair

_ACME_IDENTIFIER: Final = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")
_CLOCK_SKEW: Final = timedelta(days=1)
_LIFETIME: Final = timedelta(days=7)


def make_challenge(
    kind: Kind, name: str, token: str, key_authorization: str, now: datetime
) -> AnyChallenge:
    """Return a challenge for `name`, with its answer.

    `name` is a DNS name or an IP address; for dns-01, a DNS name or a wildcard.
    """
    if kind == "http-01":
        return HTTP01(token, key_authorization)
    if kind == "dns-01":
        digest = hashlib.sha256(key_authorization.encode("ascii")).digest()
        value = base64.urlsafe_b64encode(digest).decode("ascii").rstrip("=")
        return DNS01(name.removeprefix("*."), value)
    address = parse_ip(name)
    server_name = name if address is None else address.reverse_pointer
    return TLSALPN01(server_name, _validation_pair(name, key_authorization, now))


def _validation_pair(name: str, key_authorization: str, now: datetime) -> Pair:
    """Return the self-signed certificate of RFC 8737, 3, and its P-256 key.

    `name` is its only subject alternative name; a critical acmeIdentifier holds the SHA-256
    digest of the key authorization, as an OCTET STRING of 32 bytes.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ACME challenge")])
    address = parse_ip(name)
    san = x509.DNSName(name) if address is None else x509.IPAddress(address)
    digest = hashlib.sha256(key_authorization.encode("ascii")).digest()
    identifier = x509.UnrecognizedExtension(_ACME_IDENTIFIER, b"\x04\x20" + digest)
    certificate = (
        x509.CertificateBuilder()
        .serial_number(x509.random_serial_number())
        .issuer_name(subject)
        .subject_name(subject)
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + _LIFETIME)
        .public_key(key.public_key())
        .add_extension(x509.SubjectAlternativeName([san]), critical=False)
        .add_extension(identifier, critical=True)
        .sign(key, SHA256())
    )
    return make_pair(
        certificate.public_bytes(Encoding.PEM),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        chain_from="the certificate of the challenge",
        key_from="its key",
    )
