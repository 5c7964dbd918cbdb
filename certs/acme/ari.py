"""ACME renewal information (RFC 9773): when the authority would like a certificate renewed."""

import base64
from datetime import datetime
from typing import Any, Final

import attrs
from cryptography import x509

ASK_AGAIN: Final = 6 * 3600.0
"""Seconds, where the authority does not say when (RFC 9773, 4.3.3)."""
_SOONEST: Final = 60.0
_LATEST: Final = 86400.0


@attrs.frozen
class RenewalInfo:
    """What the authority suggests. Times are timezone-aware."""

    start: datetime
    end: datetime
    """The window in which to renew; it may have passed, as for a certificate to be revoked."""
    ask_again_in: float
    """Seconds until it should be asked for again, from a minute to a day."""

    @property
    def window(self) -> tuple[datetime, datetime]:
        """For `renew_at`."""
        return self.start, self.end


def certificate_id(leaf_der: bytes) -> str | None:
    """Return how renewal information calls a certificate; None for one it has no name for.

    That is base64url(key identifier of the authority) "." base64url(serial number as in DER),
    without padding (RFC 9773, 4.1).
    """
    leaf = x509.load_der_x509_certificate(leaf_der)
    try:
        authority = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        return None
    if authority.key_identifier is None:
        return None
    serial = leaf.serial_number
    if serial < 0:
        return None
    # DER integers are signed: the top bit is free.
    serial_bytes = serial.to_bytes(serial.bit_length() // 8 + 1, "big")
    return f"{_base64url(authority.key_identifier)}.{_base64url(serial_bytes)}"


def parse_renewal_info(answer: Any, retry_after: float | None) -> RenewalInfo:
    """Return the RenewalInfo for an object of JSON (RFC 9773, 4.2).

    `retry_after` is from the answer's header, in seconds. Raises ValueError, TypeError or
    LookupError for anything else, such as a window that ends before it starts.
    """
    window = answer["suggestedWindow"]
    start, end = (_timestamp(window[edge]) for edge in ("start", "end"))
    if end < start:
        raise ValueError("the window ends before it starts")
    wait = ASK_AGAIN if retry_after is None else retry_after
    return RenewalInfo(
        start=start,
        end=end,
        ask_again_in=min(max(wait, _SOONEST), _LATEST),
    )


def _timestamp(text: str) -> datetime:
    """RFC 3339."""
    when = datetime.fromisoformat(text)
    if when.tzinfo is None:
        raise ValueError("a timestamp without a time zone")
    return when


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode("ascii").rstrip("=")
