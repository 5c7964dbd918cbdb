"""OpenSSL's numbers and names for handshake failures.

Numbers are of `SSLCertVerificationError.verify_code` (X509_V_ERR_* of x509_vfy.h), names of
`SSLError.reason`.
"""

from typing import Final

CERT_NOT_YET_VALID: Final = 9
CERT_HAS_EXPIRED: Final = 10
UNTRUSTED: Final = frozenset({18, 19, 20, 21})
"""Self-signed, by itself or in the chain; no issuer found; no signature that can be verified."""
NAME_MISMATCHES: Final = frozenset({62, 64})
"""For a host name, and for an IP address."""

UNRECOGNIZED_NAME: Final = "TLSV1_UNRECOGNIZED_NAME"
"""The alert of a derper that is asked for a name which is not its own."""
INTERNAL_ERROR: Final = "TLSV1_ALERT_INTERNAL_ERROR"
"""The alert of a derper that waits for its certificate."""
