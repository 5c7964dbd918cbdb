"""The checks of a certificate chain and its private key, from which every Pair is made."""

from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from certs.errors import UnusablePairError
from certs.hostname import IPAddress, parse_ips
from certs.pair import Pair

_UsableKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

_CURVES = ("secp256r1", "secp384r1", "secp521r1")
"""The curves of Go's TLS, and so of the clients."""


def make_pair(chain_pem: bytes, key_pem: bytes, *, chain_from: str, key_from: str) -> Pair:
    """Check a chain and its key, both in PEM, and return them as a Pair.

    The key must fit the leaf, and be of a kind that clients can use. PEM blocks of other types are
    skipped. `chain_from` and `key_from` name the sources, for messages. Raises UnusablePairError.
    """
    chain = _parse_chain(chain_pem, chain_from)
    leaf = chain[0]
    key = _parse_key(key_pem, key_from)
    if _public_bytes(key.public_key()) != _leaf_public_bytes(leaf, chain_from):
        raise UnusablePairError(
            f"{key_from}: this is not the key of the first certificate in {chain_from}; "
            f"the two must come from the same issue, and the chain must begin with the host's own"
        )
    dns_names, ip_addresses = _alternative_names(leaf, chain_from)
    not_before, not_after = _dates(leaf, chain_from)
    return Pair(
        chain_der=tuple(certificate.public_bytes(Encoding.DER) for certificate in chain),
        key_pem=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        not_before=not_before,
        not_after=not_after,
        dns_names=dns_names,
        ip_addresses=ip_addresses,
        subject=_subject(leaf),
        self_signed=_is_self_signed(leaf),
    )


def _parse_chain(pem: bytes, source: str) -> list[x509.Certificate]:
    if b"-----BEGIN CERTIFICATE-----" not in pem:
        found = "a private key but no certificate" if b"PRIVATE KEY-----" in pem else "no PEM"
        raise UnusablePairError(
            f"{source}: {found}; the host's certificate and its intermediates belong there, "
            f"each beginning with -----BEGIN CERTIFICATE-----"
        )
    try:
        return x509.load_pem_x509_certificates(pem)
    except (ValueError, x509.InvalidVersion) as error:
        raise UnusablePairError(
            f"{source}: damaged certificate; copy the whole file anew from its issuer"
        ) from error


def _parse_key(pem: bytes, source: str) -> _UsableKey:
    if b"PRIVATE KEY-----" not in pem:
        found = "a certificate but no private key" if b"CERTIFICATE-----" in pem else "no PEM"
        raise UnusablePairError(
            f"{source}: {found}; the host's private key belongs there, "
            f"beginning with -----BEGIN PRIVATE KEY-----"
        )
    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError:
        # Dropping the cause: nothing about a key's contents belongs in a traceback.
        raise UnusablePairError(
            f"{source}: the private key is encrypted; write it without a passphrase: "
            f"openssl pkey -in {source} -out FILE"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise UnusablePairError(
            f"{source}: damaged private key or one of an unknown kind; "
            f"an RSA, ECDSA (P-256, P-384, P-521) or Ed25519 key belongs there"
        ) from None
    if not isinstance(key, _UsableKey) or (
        isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name not in _CURVES
    ):
        raise UnusablePairError(
            f"{source}: clients can't use this kind of key; "
            f"have a certificate issued for an RSA, ECDSA (P-256, P-384, P-521) or Ed25519 key"
        )
    return key


def _leaf_public_bytes(leaf: x509.Certificate, source: str) -> bytes:
    try:
        return _public_bytes(leaf.public_key())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UnusablePairError(
            f"{source}: the first certificate has a damaged public key or one of an unknown kind; "
            f"have one issued for an RSA, ECDSA (P-256, P-384, P-521) or Ed25519 key"
        ) from error


def _public_bytes(key: CertificatePublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _alternative_names(
    leaf: x509.Certificate, source: str
) -> tuple[tuple[str, ...], tuple[IPAddress, ...]]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return (), ()
    except (
        ValueError,
        KeyError,
        TypeError,
        x509.DuplicateExtension,
        x509.UnsupportedGeneralNameType,
    ) as error:
        raise UnusablePairError(
            f"{source}: damaged extensions in the first certificate; have it issued anew"
        ) from error
    addresses = parse_ips(map(str, names.get_values_for_type(x509.IPAddress)))
    return tuple(names.get_values_for_type(x509.DNSName)), tuple(addresses)


def _dates(leaf: x509.Certificate, source: str) -> tuple[datetime, datetime]:
    try:
        return leaf.not_valid_before_utc, leaf.not_valid_after_utc
    except ValueError as error:
        # A damaged certificate may have the year 0, and a datetime can't.
        raise UnusablePairError(
            f"{source}: damaged dates in the first certificate; have it issued anew"
        ) from error


def _subject(leaf: x509.Certificate) -> str:
    try:
        return leaf.subject.rfc4514_string()
    except (ValueError, KeyError, TypeError):
        # Clients don't read it. cryptography raises TypeError for a bit string where it takes none;
        # older versions raise KeyError for an unknown string type.
        return ""


def _is_self_signed(leaf: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(leaf)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True
