"""The operating system's errors that caused an exception, from under a library's own."""

from collections.abc import Iterator


def os_errors(error: BaseException) -> Iterator[OSError]:
    """Yield every OSError that led to `error`, the innermost last.

    TLS errors are among them, and those of several addresses that were tried side by side.
    """
    if isinstance(error, OSError):
        yield error
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from os_errors(part)
    cause = error.__cause__ or error.__context__
    if cause is not None:
        yield from os_errors(cause)
