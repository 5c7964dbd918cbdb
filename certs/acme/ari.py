"""ACME Renewal Information (RFC 9773): when the authority suggests renewing a certificate."""

import base64
from datetime import datetime
from typing import Any, Final

import attrs

ASK_AGAIN: Final = 6 * 3600.0
"""Seconds until the next request, without a Retry-After (RFC 9773, 4.3.3)."""
_MIN_WAIT: Final = 60.0
_MAX_WAIT: Final = 86400.0


@attrs.frozen
class RenewalInfo:
    """The authority's suggestion. Times are timezone-aware."""

    window: tuple[datetime, datetime]
    """Start and end of the time in which to renew; may be in the past, as before a revocation."""
    ask_again_in: float
    """Seconds until the next request, from a minute to a day."""


def certificate_id(leaf_der: bytes) -> str | None:
    """Return a certificate's identifier for renewal information (RFC 9773, 4.1).

    It is base64url(authority key identifier) "." base64url(serial number as in DER), without
    padding. None for a certificate without key identifier, or with a serial below 0.
    """
    from cryptography import x509  # noqa: PLC0415 - the rest of the module needs no library

    leaf = x509.load_der_x509_certificate(leaf_der)
    try:
        authority = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        return None
    serial = leaf.serial_number
    if authority.key_identifier is None or serial < 0:
        return None
    # DER integers are signed: the top bit must be 0.
    serial_bytes = serial.to_bytes(serial.bit_length() // 8 + 1, "big")
    return f"{_base64url(authority.key_identifier)}.{_base64url(serial_bytes)}"


def parse_renewal_info(answer: Any, retry_after: float | None) -> RenewalInfo:
    """Return the RenewalInfo in a decoded JSON object (RFC 9773, 4.2).

    `retry_after` is from the response's header, in seconds. Raises ValueError, TypeError or
    LookupError for a malformed object, such as one whose window ends before it starts.
    """
    window = answer["suggestedWindow"]
    start, end = (_timestamp(window[edge]) for edge in ("start", "end"))
    if end < start:
        raise ValueError("the window ends before it starts")
    wait = ASK_AGAIN if retry_after is None else retry_after
    return RenewalInfo((start, end), ask_again_in=min(max(wait, _MIN_WAIT), _MAX_WAIT))


def _timestamp(text: str) -> datetime:
    """Parse an RFC 3339 timestamp. Raises ValueError."""
    when = datetime.fromisoformat(text)
    if when.tzinfo is None:
        raise ValueError("a timestamp without a time zone")
    return when


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode("ascii").rstrip("=")
