"""The ACME server that issues certificates, and the account with it."""

import ssl
import stat
from pathlib import Path
from typing import Final

import attrs

from certs.errors import CertificateFileError

LETS_ENCRYPT: Final = "https://acme-v02.api.letsencrypt.org/directory"
GOOGLE: Final = "https://dv.acme-v02.api.pki.goog/directory"


@attrs.frozen
class ExternalAccount:
    """An account with the CA outside ACME, for External Account Binding (RFC 8555, 7.3.4)."""

    kid: str
    hmac_key: bytes = attrs.field(repr=False)


@attrs.frozen
class Authority:
    """An ACME server, and the data to register an account with it."""

    directory: str
    """The URL of its directory (RFC 8555, 7.1.1)."""
    ca_bundle: Path | None = None
    """A PEM file with the only roots trusted for the server's TLS; None for the public roots."""
    email: str = ""
    """The contact of the account; "" for none."""
    external_account: ExternalAccount | None = None


def check(authority: Authority) -> None:
    """Check that the CA bundle, if any, holds certificates. Raises CertificateFileError. Blocks."""
    bundle = authority.ca_bundle
    if bundle is None:
        return
    flag, cure = "-acme-ca-bundle", "name a file with the root certificate of the authority, in PEM"
    try:
        # Opening a pipe would wait for its writer.
        if not stat.S_ISREG(bundle.stat().st_mode):
            raise CertificateFileError(f"{flag} {bundle}: not a regular file; {cure}")
        loaded = ssl.create_default_context(cafile=bundle).cert_store_stats()["x509"]
    except ssl.SSLError:
        loaded = 0
    except OSError as error:
        raise CertificateFileError(
            f"{flag} {bundle}: can't be read ({error.strerror}); {cure}"
        ) from error
    if not loaded:
        raise CertificateFileError(
            f"{flag} {bundle}: no certificate in PEM; "
            f"put the root certificate of the authority there"
        )
