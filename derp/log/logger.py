"""The loggers that other modules use: they take fields by keyword, and log to `logging`."""

import logging
import sys


class Logger:
    """A logger of one part of the relay; each call writes one line."""

    __slots__ = ("_logger",)

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def debug(self, message: str, /, **fields: object) -> None:
        """Log what helps to find a fault."""
        self._log(logging.DEBUG, message, fields)

    def info(self, message: str, /, **fields: object) -> None:
        """Log what the operator may want to know."""
        self._log(logging.INFO, message, fields)

    def warning(self, message: str, /, **fields: object) -> None:
        """Log what the operator should look into."""
        self._log(logging.WARNING, message, fields)

    def error(self, message: str, /, **fields: object) -> None:
        """Log what keeps the relay, or a part of it, from working."""
        self._log(logging.ERROR, message, fields)

    def exception(self, message: str, /, **fields: object) -> None:
        """Log a bug, with the traceback of the exception being handled."""
        self._log(logging.ERROR, message, fields, traceback=True)

    def _log(
        self, level: int, message: str, fields: dict[str, object], *, traceback: bool = False
    ) -> None:
        if self._logger.isEnabledFor(level):
            # `logging.Logger.log` is slow: it looks up the caller's line, which no format shows.
            info = sys.exc_info() if traceback else None
            record = logging.LogRecord(self._logger.name, level, "", 0, message, None, info)
            record.fields = fields
            self._logger.handle(record)


def get(name: str = "") -> Logger:
    """Return the logger `derper.NAME`, or `derper`."""
    return Logger(logging.getLogger(f"derper.{name}" if name else "derper"))
