"""The command `derper top`, which shows the clients of the running relay, live, at a terminal."""

import contextlib
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from certs.installing import how_to_install
from derp.cli import command_flags, control
from derp.cli.command_flags import Arguments
from derp.cli.control import Connection
from derp.config.goflags import DURATION, Flag, Kind
from derp.errors import StartError

_INTRODUCTION = """\
Usage: derper top [flags]

Shows the clients of the running relay with their rates, those that move most
at the moment first, until q or Ctrl-C. derper clients -h has the columns.\
"""

_SHORTEST: Final = 0.5
_LONGEST: Final = 60.0


def _every(text: str) -> float:
    seconds = DURATION.read(text)
    if not _SHORTEST <= float(seconds) <= _LONGEST:
        raise ValueError("want a duration from 500ms to 1m")
    return float(seconds)


_OWN: Final = (
    Flag(
        name="every",
        kind=Kind("TIME", _every),
        default="2s",
        group="Output",
        usage="Time from one look at the clients to the next.",
    ),
)


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Show the clients until the operator leaves; return the exit code.

    Raises UsageError, and StartError where there is no terminal, no rich or no relay.
    """
    arguments = control.parse(argv, environ, _OWN)
    if arguments is None:
        sys.stdout.write(command_flags.help_text(_INTRODUCTION, _OWN))
        return 0
    try:
        import rich  # noqa: F401, PLC0415
    except ImportError as error:
        raise StartError(
            "top: needs rich, unlike derper clients, which prints a list; "
            f"{how_to_install('rich>=13.7')}"
        ) from error
    if not sys.stdout.isatty():
        raise StartError("top: want a terminal; derper clients prints a list")
    control.socket_path(arguments)  # raises now, not on the screen
    with contextlib.suppress(KeyboardInterrupt), contextlib.closing(_Relay(arguments)) as relay:
        relay.clients()
        _show(relay, float(arguments.settings["every"].value))
    return 0


class _Relay:
    """The relay, connected to anew after it was restarted."""

    def __init__(self, arguments: Arguments) -> None:
        self._arguments = arguments
        self._connection: Connection | None = None

    def clients(self) -> tuple[list[dict[str, Any]], Sequence[int]]:
        """Return the clients, and the workers whose clients are missing. Raises StartError."""
        if self._connection is None:
            self._connection = Connection(control.socket_path(self._arguments))
        try:
            return self._connection.clients(), self._connection.silent
        except StartError:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _show(relay: _Relay, every: float) -> None:
    from rich.console import Console  # noqa: PLC0415 - `main` has looked whether it is there
    from rich.live import Live  # noqa: PLC0415

    from derp.cli.topview import TopView  # noqa: PLC0415

    console, view = Console(), TopView()
    wait = min(every, 1.0)
    with _keys() as is_left_within, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            try:
                view.sampled(*relay.clients(), time.monotonic())
            except StartError as error:
                view.failed(str(error))
            live.update(view.render(*console.size), refresh=True)
            if is_left_within(wait):
                return
            wait = every


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[float], bool]]:
    """Have keys come at once and unseen; yield a wait that returns whether q was pressed."""
    stdin = sys.stdin.fileno()
    if not os.isatty(stdin):

        def sleep(seconds: float) -> bool:
            time.sleep(seconds)
            return False

        yield sleep
        return
    before = termios.tcgetattr(stdin)

    def is_left_within(seconds: float) -> bool:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([stdin], [], [], left)[0]:
                keys = os.read(stdin, 64)
                if not keys or b"q" in keys.lower():
                    return True
        return False

    try:
        tty.setcbreak(stdin)
        yield is_left_within
    finally:
        termios.tcsetattr(stdin, termios.TCSADRAIN, before)
