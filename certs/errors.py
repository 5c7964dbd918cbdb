"""The errors of this package, in one small tree.

    CertificateError
    ├── CertificateFileError   a file is missing, closed to us, or too open to others
    ├── OutOfDateError         a new certificate has expired already, or is not valid yet
    ├── IssueError             no certificate by ACME this time; says when to try again
    ├── UnusablePairError      what the files hold is no certificate and key that TLS can use
    └── WrongHostnameError     the certificate is sound, but for other names than ours

A message is one line: the file, what is wrong with it, and what would be right. It never holds
any part of a key.
"""

import enum
from collections.abc import Iterator


class CertificateError(Exception):
    """No certificate can be served."""


class CertificateFileError(CertificateError):
    """The file system stands between us and the certificate or its key."""


class OutOfDateError(CertificateError):
    """The new certificate is no better than none."""


class Failure(enum.Enum):
    """Why there is no certificate by ACME, as far as it decides what to do next."""

    TRANSIENT = enum.auto()
    """Network, clock or file system; an overloaded authority. Trying again costs nothing: no
    certificate has been asked for."""
    REFUSED = enum.auto()
    """The authority said no: wait long."""
    VALIDATION = enum.auto()
    """As REFUSED, because it could not validate a name: the other challenge may do."""
    SPENT = enum.auto()
    """An order was spent, and perhaps a certificate issued, of which authorities allow a few in a
    week: wait a day."""
    BUSY = enum.auto()
    """Another order is under way in this directory: no failure, come back in some seconds."""


class IssueError(CertificateError):
    """The authority issued no certificate, or it could not be stored."""

    def __init__(
        self, message: str, failure: Failure = Failure.TRANSIENT, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.failure = failure
        self.retry_after = retry_after
        """Seconds that the authority wants us to wait, where it said so."""


class UnusablePairError(CertificateError):
    """The contents are no certificate chain and private key that belong together."""


class WrongHostnameError(CertificateError):
    """The certificate does not name the host that the relay serves."""


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield `error` and every exception that led to it, the innermost last.

    Those in a group, as of several addresses that were tried side by side, are among them.
    """
    yield error
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from causes(part)
    # httpcore raises "from None", which leaves only the context.
    cause = error.__cause__ or error.__context__
    if cause is not None:
        yield from causes(cause)
