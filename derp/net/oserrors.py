"""The operating system's errors: in words, and those that caused a library's exception."""

from collections.abc import Iterator

from certs.errors import causes


def os_errors(error: BaseException) -> Iterator[OSError]:
    """Yield every OSError among the causes of `error`, TLS errors included, the innermost last."""
    return (cause for cause in causes(error) if isinstance(cause, OSError))


def reason(error: OSError) -> str:
    """Return the system's text for an error, in lower case, to stand within a line."""
    return (error.strerror or str(error)).lower()
