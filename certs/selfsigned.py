"""A self-signed certificate for a relay that is reached by IP address alone.

Clients know the certificate by its pin in the DERP map, and a new one locks them out until they get
its pin. So a pair is made only if there is none, or if clients refuse the old one as expired.
"""

import contextlib
from collections.abc import Iterator
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from certs.errors import CertificateFileError
from certs.files import PairFiles
from certs.hostname import IPAddress
from certs.wholefile import write_whole

LIFETIME = timedelta(days=365)
"""The time from notBefore to notAfter. macOS refuses certificates with a much longer one."""

CLOCK_SKEW = timedelta(days=1)
"""The time from notBefore to now: a client's clock may be behind by this much."""


def make_self_signed(address: IPAddress, now: datetime) -> tuple[bytes, bytes]:
    """Return a new certificate for `address`, and its P-256 key ("EC PRIVATE KEY"); both in PEM.

    `now` is timezone-aware. Extensions as in createSelfSignedIPCert of Go's cmd/derper.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, str(address))])
    usage = x509.KeyUsage(
        digital_signature=True,
        key_encipherment=True,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    not_before = now - CLOCK_SKEW
    certificate = (
        x509.CertificateBuilder()
        .serial_number(x509.random_serial_number())
        .issuer_name(name)
        .subject_name(name)
        .not_valid_before(not_before)
        .not_valid_after(not_before + LIFETIME)
        .public_key(key.public_key())
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(address)]), critical=False)
        .sign(key, SHA256())
    )
    return (
        certificate.public_bytes(Encoding.PEM),
        key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()),
    )


def write_self_signed(files: PairFiles, address: IPAddress, now: datetime) -> None:
    """Make a pair and write it to two files in one directory, which is made (0700) if absent.

    The key is written first, so that no certificate is on disk, and perhaps pinned, without its
    key. The replaced files are kept as `previous_files`. Raises CertificateFileError.
    """
    certificate_pem, key_pem = make_self_signed(address, now)
    previous = previous_files(files)
    with _writing(files):
        files.certificate.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for file, kept, mode in (
            (files.key, previous.key, 0o600),
            (files.certificate, previous.certificate, 0o644),
        ):
            if file.exists():
                write_whole(kept, file.read_bytes(), mode=mode)
        write_whole(files.key, key_pem, mode=0o600)
        write_whole(files.certificate, certificate_pem, mode=0o644)


def previous_files(files: PairFiles) -> PairFiles:
    """Return the files of the previous pair: the same names with ".old" appended."""
    certificate, key = files.certificate, files.key
    return PairFiles(
        certificate.with_name(f"{certificate.name}.old"), key.with_name(f"{key.name}.old")
    )


def restore_previous(files: PairFiles) -> None:
    """Restore the previous pair. Raises CertificateFileError."""
    previous = previous_files(files)
    with _writing(files):
        write_whole(files.key, previous.key.read_bytes(), mode=0o600)
        write_whole(files.certificate, previous.certificate.read_bytes(), mode=0o644)


@contextlib.contextmanager
def _writing(files: PairFiles) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        directory = files.certificate.parent
        raise CertificateFileError(
            f"{directory}: can't write a self-signed certificate there ({error.strerror}); "
            f"make it a directory that the relay can write to, "
            f"or put {files.certificate.name} and {files.key.name} into it"
        ) from error
