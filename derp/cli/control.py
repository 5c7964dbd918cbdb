"""The commands' side of the control socket: where it is, and what is asked there."""

import contextlib
import errno
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from derp.cli import command_flags, procfs
from derp.cli.command_flags import Arguments
from derp.config.control import Control
from derp.config.goflags import Flag
from derp.errors import ControlRefused, NotRunning, StartError, UsageError
from derp.net.oserrors import reason
from derp.wire.control import (
    CLIENTS,
    FILL,
    MAX_ANSWER,
    Lines,
    Request,
    parse_added,
    parse_done,
    parse_list,
)

TIMEOUT: Final = 30.0
"""Seconds for each part of an answer: a change of the policy may wait for a disk, and workers."""

_RECEIVE_SIZE: Final = 64 << 10
_CURE: Final = "name the relay with -of PID, or its socket with -control-socket"


def parse(
    argv: Sequence[str], environ: Mapping[str, str], own: Sequence[Flag], *, words: bool = False
) -> Arguments | None:
    """Read a command's arguments, as command_flags.parse; in a container, with -of by default."""
    places = ("c", "control-socket")
    return command_flags.parse(argv, environ, own, words=words, instead_of_relay=places)


def socket_path(arguments: Arguments) -> Path:
    """Return the path of the relay's control socket. Raises UsageError if it can have none."""
    settings = arguments.settings
    key_file = None if settings["dev"].value else Path(str(settings["c"].value))
    path = Control(socket=str(settings["control-socket"].value)).path(key_file)
    if path is None:
        raise UsageError(f"this relay has no control socket; start it with one, or {_CURE}")
    pid = settings["of"].value
    return path if path.is_absolute() or not pid else procfs.directory_of(int(pid)) / path


class Connection:
    """A connection to a relay's control socket. Its methods block, and raise StartError."""

    def __init__(self, path: Path) -> None:
        """Connect to the socket at `path`."""
        self.silent: Sequence[int] = ()
        """The numbers of the workers that did not answer, whose clients the last list lacks."""
        self._path = path
        self._lines = Lines(MAX_ANSWER)
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.settimeout(TIMEOUT)
        try:
            self._sock.connect(str(path))
        except OSError as error:
            self._sock.close()
            none_runs = error.errno in (errno.ENOENT, errno.ECONNREFUSED)
            failure = NotRunning if none_runs else StartError
            raise failure(f"{path}: {_explain(error)}") from error

    def close(self) -> None:
        """Close the connection."""
        self._sock.close()

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._sock.fileno()

    def clients(self) -> list[dict[str, Any]]:
        """Return the fields of each client; see ClientStatus."""
        return self.rows(CLIENTS)

    def rows(self, do: str) -> list[dict[str, Any]]:
        """Return the rows of one of LISTS."""
        found: list[dict[str, Any]] = []
        with self._errors():
            for line in self._ask(Request(do)):
                rows, more, self.silent = parse_list(line, do)
                found += rows
                if not more:
                    break
        return found

    def fill(self, keys: Mapping[str, str]) -> list[str]:
        """Add keys to the relay's list, with their labels; return those that it had not."""
        with self._errors():
            return parse_added(next(self._ask(Request(FILL, keys=keys))))

    def steer(self, request: Request) -> str:
        """Have something done to a client; return the sentence that says what was done."""
        with self._errors():
            return parse_done(next(self._ask(request)))

    def _ask(self, request: Request) -> Iterator[bytes]:
        """Send a request, and yield the lines of its answer."""
        self._sock.sendall(request.to_line())
        while True:
            while (line := self._lines.next()) is None:
                data = self._sock.recv(_RECEIVE_SIZE)
                if not data:
                    raise StartError(
                        f"{self._path}: the relay has closed the connection; look into its log"
                    )
                self._lines.feed(data)
            yield line

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Raise what is wrong with the connection or an answer as a StartError."""
        try:
            yield
        except OSError as error:
            raise StartError(f"{self._path}: {reason(error)}; look into the relay's log") from error
        except ControlRefused as error:
            raise StartError(str(error)) from None


@contextlib.contextmanager
def connected(arguments: Arguments) -> Iterator[Connection]:
    """Connect to the relay that the arguments name. Raises UsageError and StartError."""
    connection = Connection(socket_path(arguments))
    try:
        yield connection
    finally:
        connection.close()


def _explain(error: OSError) -> str:
    """Return what is wrong with the socket, with the cure."""
    if error.errno == errno.ENOENT:
        return f"no such socket; start the relay, or {_CURE}"
    if error.errno == errno.ECONNREFUSED:
        return f"its relay has ended; start it, or {_CURE}"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"user {os.geteuid()} may not use it; run this as root, or as the relay's user"
    return f"{reason(error)}; {_CURE}"
