"""Why an HTTP exchange failed: the operating system's errors, from under the library's."""

from collections.abc import Iterator

from certs.errors import causes


def os_errors(error: BaseException) -> Iterator[OSError]:
    """Yield every OSError that led to `error`, the innermost last; TLS errors are among them."""
    return (cause for cause in causes(error) if isinstance(cause, OSError))
