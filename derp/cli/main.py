"""The command `derper`, from arguments and environment to a running relay, or an exit code.

Exit codes: 0 for an orderly end, for -h and for -version; 2 for a wrong flag or variable, with
nothing bound or written; 1 if this machine can't serve the configuration. 1 and 2 print one line.
"""

import os
import platform
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Final, NoReturn

import derp
from derp import log
from derp.config import Config, environment, flag_table, goflags
from derp.errors import StartError, UsageError
from derp.wire.control import STEERING

_INTRODUCTION = """\
Usage: derper [flags]
       derper derpmap [flags]       print this relay's entry for a DERP map
       derper healthcheck [flags]   ask the running relay whether it serves
       derper accounts [flags]      print who has moved how much
       derper clients [flags]       list who is connected (derper top: live)
       derper kick KEY [flags]      disconnect a client (or deny, allow, limit)
       derper keys [flags]          list which keys are allowed, denied, refused

Relays packets between Tailscale clients (DERP) and tells them their addresses
(STUN). A flag takes one dash or two, and its value as -flag=value or, unless it
is true or false, as -flag value; a flag beats its environment variable. The
commands take the same flags and variables; -h after a command explains it.\
"""

MODULES: Final = ("derpmap", "healthcheck", "accounts", "clients", "top", "keys")
"""The subcommands that are a module of this package each, with a `main`; `steer` has the others."""


def script() -> NoReturn:
    """Run `main`, and end the process with its exit code.

    Python's finalization is skipped while there is another thread: one that waits for an ACME
    server would crash after the finalization of OpenSSL.
    """
    if os.getpid() == 1:
        # The kernel drops signals that process 1 does not handle. The parent may have blocked
        # SIGTERM until now.
        signal.signal(signal.SIGTERM, _stop_at_once)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.stderr.flush()
    if threading.active_count() > 1:
        os._exit(code)
    sys.exit(code)


def _stop_at_once(number: int, _: object) -> NoReturn:
    """End the process at once: at start there is nothing to clean up."""
    sys.exit(128 + number)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `derper` with `argv`, by default the process's own arguments; return the exit code."""
    try:
        return _run(sys.argv[1:] if argv is None else argv, os.environ)
    except UsageError as error:
        return _fail(error, 2)
    except StartError as error:
        return _fail(error, 1)


def _run(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    command = argv[0] if argv else ""
    # Imported only now, to keep -h, and each command, from loading what it does not need.
    if command in MODULES:
        return int(import_module(f"derp.cli.{command}").main(argv[1:], environ))
    if command in STEERING:
        from derp.cli import steer  # noqa: PLC0415

        return steer.main(command, argv[1:], environ)
    rpc_socket = None
    if command == "worker":
        # A terminal or a service manager signals all processes; only the supervisor reacts.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        from derp.workers import worker  # noqa: PLC0415

        rpc_socket, argv = worker.adopt_rpc_socket(argv[1:2]), argv[2:]
    table = flag_table(environ, root=os.getuid() == 0)
    parsed = goflags.parse(table, argv, environ)
    if parsed.help:
        sys.stdout.write(goflags.help_text(table, _INTRODUCTION))
        return 0
    if parsed.settings["version"].value:
        sys.stdout.write(f"{version_text()}\n")
        return 0
    config = Config.from_settings(parsed.settings)
    environment.debug_logs(environ)  # raises now, not after the start
    if rpc_socket is None:
        _warn([*parsed.warnings, *environment.warnings(environ)])
    if rpc_socket is not None:
        worker.run(rpc_socket, config)
    elif config.limits.workers != 1:
        from derp.workers.supervisor import run as run_workers  # noqa: PLC0415

        run_workers(config, argv)
    else:
        from derp.service.standalone import run  # noqa: PLC0415

        run(config)
    return 0


def _warn(warnings: Sequence[str]) -> None:
    if warnings:
        with log.start():
            for warning in warnings:
                log.get("flags").warning(warning)


def version_text() -> str:
    """Return one line with the versions of this program (first, as in Go), Python and OpenSSL."""
    import ssl  # noqa: PLC0415

    openssl = " ".join(ssl.OPENSSL_VERSION.split()[:2])
    return f"{derp.__version__} (trio-derper, Python {platform.python_version()}, {openssl})"


def _fail(error: Exception, code: int) -> int:
    sys.stderr.write(f"derper: {error}\n")
    return code
