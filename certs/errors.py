"""The errors of this package, in one tree.

    CertificateError
    ├── CertificateFileError   a file is missing, unreadable, or writable by others
    ├── OutOfDateError         a new certificate has expired, or is not valid yet
    ├── IssueError             an ACME order failed; says when to try again
    ├── UnusablePairError      no certificate and key that TLS can use
    └── WrongHostnameError     the certificate is for other names

A message is one line: the file, what is wrong, and how to mend it. It holds no part of a key.
"""

import enum
from collections.abc import Iterator


class CertificateError(Exception):
    """No certificate can be served."""


class CertificateFileError(CertificateError):
    """A file can't be read, written or trusted."""


class OutOfDateError(CertificateError):
    """The new certificate has expired, or is not valid yet."""


class Failure(enum.Enum):
    """The kind of an ACME failure, which decides when to try again."""

    TRANSIENT = enum.auto()
    """Network, clock or file system; an overloaded authority. No order was spent: retry soon."""
    REFUSED = enum.auto()
    """The authority refused: wait long."""
    VALIDATION = enum.auto()
    """REFUSED because a name could not be validated: the other challenge type may work."""
    SPENT = enum.auto()
    """An order, and perhaps one of a week's few certificates, was spent: wait a day."""
    BUSY = enum.auto()
    """Another order is under way in this directory: no failure, retry in some seconds."""


class IssueError(CertificateError):
    """The authority issued no certificate, or the certificate could not be stored."""

    def __init__(
        self, message: str, failure: Failure = Failure.TRANSIENT, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.failure = failure
        self.retry_after = retry_after
        """Seconds from the authority's Retry-After; None without one."""


class UnusablePairError(CertificateError):
    """No certificate chain and private key that belong together."""


class WrongHostnameError(CertificateError):
    """The certificate does not cover the names to serve."""


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield `error` and every exception that led to it, the innermost last.

    The members of groups are included, as of several addresses that were tried side by side.
    """
    yield error
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from causes(part)
    # httpcore raises "from None", which leaves only the context.
    cause = error.__cause__ or error.__context__
    if cause is not None:
        yield from causes(cause)
