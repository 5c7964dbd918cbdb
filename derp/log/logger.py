"""The interface for other modules: a standard logger that takes fields by keyword."""

import logging
import sys


class Logger:
    """Events of one part of the server; each call is one line."""

    __slots__ = ("_logger",)

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def debug(self, message: str, /, **fields: object) -> None:
        """Log what is of use when looking for a fault."""
        self._log(logging.DEBUG, message, fields)

    def info(self, message: str, /, **fields: object) -> None:
        """Log what the operator may want to know."""
        self._log(logging.INFO, message, fields)

    def warning(self, message: str, /, **fields: object) -> None:
        """Log what the operator should look into."""
        self._log(logging.WARNING, message, fields)

    def error(self, message: str, /, **fields: object) -> None:
        """Log what keeps the server, or a part of it, from working."""
        self._log(logging.ERROR, message, fields)

    def exception(self, message: str, /, **fields: object) -> None:
        """Log a bug of this program, with the traceback of the exception being handled."""
        self._log(logging.ERROR, message, fields, traceback=True)

    def _log(
        self,
        level: int,
        message: str,
        fields: dict[str, object],
        *,
        traceback: bool = False,
    ) -> None:
        if self._logger.isEnabledFor(level):
            # Not by `Logger.log`: it spends half of its time on the caller's line, which no format
            # shows.
            record = logging.LogRecord(
                self._logger.name,
                level,
                "",
                0,
                message,
                None,
                sys.exc_info() if traceback else None,
            )
            record.fields = fields
            self._logger.handle(record)


def get(name: str = "") -> Logger:
    """Return the logger `derper.NAME`, or `derper`."""
    return Logger(logging.getLogger(f"derper.{name}" if name else "derper"))
