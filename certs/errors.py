"""The errors of this package: CertificateError and its subclasses.

A message is one line: the file, what is wrong, and how to mend it. It holds no part of a key.
"""

import enum
from collections.abc import Iterator
from typing import Final

DETAIL_LIMIT: Final = 300
"""Most characters of another program's text to show."""


class CertificateError(Exception):
    """No certificate can be served."""


class CertificateFileError(CertificateError):
    """A file is missing, can't be read or written, or is writable by others."""


class OutOfDateError(CertificateError):
    """A new certificate has expired, or is not valid yet."""


class Failure(enum.Enum):
    """The kind of an ACME failure, which decides when to try again."""

    TRANSIENT = enum.auto()
    """Network, clock or file system; an overloaded authority. No order was spent: retry soon."""
    REFUSED = enum.auto()
    """The authority refused: wait long."""
    VALIDATION = enum.auto()
    """A name could not be validated: the other challenge type may work, else wait long."""
    SPENT = enum.auto()
    """An order, and perhaps one of a week's few certificates, was spent: wait a day."""
    BUSY = enum.auto()
    """Another order is under way in this -certdir: no failure, retry in some seconds."""


class IssueError(CertificateError):
    """An ACME order failed: no certificate was issued, or it could not be stored."""

    def __init__(
        self, message: str, failure: Failure = Failure.TRANSIENT, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.failure = failure
        self.retry_after = retry_after
        """Seconds from the authority's Retry-After; None without one."""


class UnusablePairError(CertificateError):
    """TLS can't use the certificate chain and private key, or they don't belong together."""


class WrongHostnameError(CertificateError):
    """A certificate does not cover the names to serve."""


def printable(text: str, limit: int = DETAIL_LIMIT) -> str:
    """Return untrusted text on one line, of `limit` characters at most."""
    line = " ".join(text[: 10 * limit].split())
    line = "".join(char if char.isprintable() else "?" for char in line)
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield `error` and every exception that led to it, the innermost last.

    Members of groups are included: several addresses may have been tried side by side.
    """
    yield error
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from causes(part)
    # httpcore raises "from None", which leaves only the context.
    cause = error.__cause__ or error.__context__
    if cause is not None:
        yield from causes(cause)
