"""The operating system's errors: in words, and as causes of other exceptions."""

from collections.abc import Iterator

from certs.errors import causes


def os_errors(error: BaseException) -> Iterator[OSError]:
    """Yield every OSError among the causes of `error`, TLS errors included, the innermost last."""
    return (cause for cause in causes(error) if isinstance(cause, OSError))


def reason(error: OSError) -> str:
    """Return the system's text for an error, in lower case."""
    return (error.strerror or str(error)).lower()


def plain_reason(error: Exception) -> str:
    """Return the system's text for an OSError, as it is; and any other error's own text."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
