"""Who is asked for a certificate, and as whom."""

from pathlib import Path
from typing import Final

import attrs

LETS_ENCRYPT: Final = "https://acme-v02.api.letsencrypt.org/directory"
GOOGLE: Final = "https://dv.acme-v02.api.pki.goog/directory"


@attrs.frozen
class ExternalAccount:
    """An account with the authority outside ACME, to bind ours to (RFC 8555, 7.3.4)."""

    kid: str
    hmac_key: bytes = attrs.field(repr=False)


@attrs.frozen
class Authority:
    """An ACME server, and what it learns of us."""

    directory: str
    """The URL of its directory (RFC 8555, 7.1.1)."""
    ca_bundle: Path | None = None
    """The only roots, in PEM, that its own TLS certificate may come from; None: the public ones."""
    email: str = ""
    """Where the authority can reach the operator; "" for no contact."""
    external_account: ExternalAccount | None = None
