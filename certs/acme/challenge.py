"""Answers to the ACME challenges by which an authority validates names.

http-01 validates by HTTP on TCP port 80 (RFC 8555, 8.3), tls-alpn-01 by TLS on port 443 (RFC 8737).
Both answers hold the key authorization: token, dot, thumbprint of the account key.
"""

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Final, Literal

import attrs
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from certs.hostname import parse_ip
from certs.pair import Pair, make_pair

Kind = Literal["http-01", "tls-alpn-01"]

ALPN_PROTOCOL: Final = "acme-tls/1"
"""The ALPN protocol of TLS-ALPN-01 (RFC 8737, 6.2)."""
ALPN_OFFER: Final = (ALPN_PROTOCOL.encode("ascii"),)
"""The ALPN protocols in the ClientHello of an authority that validates (RFC 8737, 3)."""

_ACME_IDENTIFIER: Final = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")
_CLOCK_SKEW: Final = timedelta(days=1)
_LIFETIME: Final = timedelta(days=7)


@attrs.frozen
class HTTP01:
    """The answer to GET /.well-known/acme-challenge/`token` (application/octet-stream)."""

    token: str
    body: str


@attrs.frozen
class TLSALPN01:
    """The answer to a ClientHello for `server_name` whose one ALPN protocol is "acme-tls/1".

    For an IP address, `server_name` is its reverse name (RFC 8738, 6): "1.2.0.192.in-addr.arpa".
    """

    server_name: str
    pair: Pair


Challenge = HTTP01 | TLSALPN01

Present = Callable[[Challenge], AbstractContextManager[None]]
"""Answers a challenge while its context lasts. Called in the thread that orders."""


def make_challenge(
    kind: Kind, name: str, token: str, key_authorization: str, now: datetime
) -> Challenge:
    """Return the answer to a challenge for `name`, a DNS name or an IP address."""
    if kind == "http-01":
        return HTTP01(token, key_authorization)
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
