"""derper.8: the manual page, made of the flag table and of what the commands say of themselves.

`python -m release.manpage` prints it. It is in the macros of man(7), which every system has.
"""

import importlib
import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from derp.cli import command_flags, main, steer
from derp.config import environment, flag_table
from derp.config.goflags import Flag
from release.project import VERSION, epoch

_MODULES: Final = {name: importlib.import_module(f"derp.cli.{name}") for name in main.MODULES}
COMMANDS: Final = {
    **{name: module._INTRODUCTION for name, module in _MODULES.items()},
    **steer._INTRODUCTIONS,
}
"""What each command says of itself, after a line with its usage."""

_DESCRIPTION: Final = """\
Relays packets between Tailscale clients (DERP), and tells them their addresses (STUN). It takes the
place of the Go derper (tailscale.com/cmd/derper): same flags, files, protocol and metrics.

A flag takes one dash or two, and its value as -flag=value or, unless it is true or false, as -flag
value. A flag beats its environment variable, a variable the default. The commands take the flags
and variables of the relay, too.
"""

_FILES: Final = (
    ("/etc/default/derper", "Variables for the service, and FLAGS for flags that have none."),
    ("/var/lib/derper/derper.key", "The relay's key, in the Go derper's JSON. Clients know it."),
    ("/var/lib/derper/certs", "Certificates and their keys, of the service."),
)
_SIGNALS: Final = (
    ("SIGTERM, SIGINT", "Stop: clients are told to reconnect, and get what is queued for them."),
    ("SIGHUP", "Read certificates, lists, the policy and the rate limit again."),
)
_EXIT: Final = (
    ("0", "An orderly end."),
    ("1", "This machine can't serve what is asked for; one line says why."),
    ("2", "A flag or a variable is wrong; one line says what would be right."),
)
_EXAMPLE: Final = "derper -hostname derp.example.com -certdir /var/lib/derper/certs"


def page(date: int) -> str:
    """Return the page; `date` is in seconds since 1970."""
    day = time.strftime("%Y-%m-%d", time.gmtime(date))
    table = [flag for flag in flag_table({"HOME": "~"}, root=True) if not flag.unsupported]
    parts = [
        f'.TH DERPER 8 "{day}" "derper {VERSION}" "System Manager\'s Manual"',
        # No word is broken: flags have hyphens of their own.
        ".nh\n.ad l",
        _section("NAME", ["derper \\- DERP relay and STUN responder for Tailscale clients"]),
        _section("SYNOPSIS", _synopsis()),
        _section("DESCRIPTION", _paragraphs(_DESCRIPTION)),
        _section("OPTIONS", _options(table)),
        _section("COMMANDS", _commands()),
        _section("ENVIRONMENT", _environment(table)),
        _section("FILES", _list(_FILES)),
        _section("SIGNALS", _list(_SIGNALS)),
        _section("EXIT STATUS", _list(_EXIT)),
        _section("EXAMPLES", [".nf", f".RS 4\n{escaped(_EXAMPLE)}", ".RE", ".fi"]),
        _section("SEE ALSO", [".BR tailscaled (8),", ".BR systemctl (1)"]),
    ]
    return "\n".join(parts) + "\n"


def _section(title: str, body: Iterable[str]) -> str:
    return "\n".join([f".SH {title}", *body])


def _synopsis() -> Iterator[str]:
    yield ".B derper\n[flags]"
    for command, introduction in COMMANDS.items():
        usage = introduction.partition("\n")[0].removeprefix(f"Usage: derper {command} ")
        yield f".br\n.B derper {command}\n{escaped(usage)}"


def _paragraphs(text: str) -> Iterator[str]:
    """Format paragraphs that empty lines part."""
    for number, paragraph in enumerate(re.split(r"\n\s*\n", text.strip())):
        if number:
            yield ".PP"
        yield prose(paragraph)


def _options(flags: Sequence[Flag]) -> Iterator[str]:
    for group in dict.fromkeys(flag.group for flag in flags):
        yield f".SS {escaped(group)}"
        for flag in flags:
            if flag.group == group:
                yield _option(flag)


def _option(flag: Flag) -> str:
    head = f"\\fB{escaped('-' + flag.name)}\\fR"
    if flag.shown_placeholder:
        head += f" \\fI{escaped(flag.shown_placeholder)}\\fR"
    notes = []
    if flag.shown_default:
        notes.append(f"Default: {flag.shown_default}.")
    if flag.shown_variable:
        notes.append(f"Variable: {flag.shown_variable}.")
    return "\n".join([".TP", head, prose(flag.usage), *(escaped(note) for note in notes)])


def _commands() -> Iterator[str]:
    for command, introduction in COMMANDS.items():
        yield f".SS derper {command}"
        yield from _paragraphs(introduction.partition("\n\n")[2])
        for flag in (*getattr(_MODULES.get(command), "_OWN", ()), command_flags.OF):
            yield _option(flag)


def _environment(flags: Sequence[Flag]) -> Iterator[str]:
    named = sum(bool(flag.variable) for flag in flags)
    yield prose(f"{named} flags have a variable, named with the flag. An empty one is none.")
    yield from _list([(environment.DEBUG_LOGS, "With true, the log says more. It is no flag's.")])


def _list(items: Iterable[tuple[str, str]]) -> Iterator[str]:
    for name, text in items:
        yield f".TP\n\\fB{escaped(name)}\\fR\n{prose(text)}"


def escaped(text: str) -> str:
    """Return text for a line of its own, to be shown as it is."""
    shown = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    return f"\\&{shown}" if shown.startswith(".") else shown


def prose(text: str) -> str:
    """Return text for a line of its own, with flags in bold."""
    parts = re.split(r"(?<![\w/-])(-[a-z]+(?:-[a-z]+)*)(?!\w)", " ".join(text.split()))
    shown = [f"\\fB{escaped(each)}\\fR" if n % 2 else escaped(each) for n, each in enumerate(parts)]
    return "".join(shown)


if __name__ == "__main__":
    sys.stdout.write(page(epoch()))
