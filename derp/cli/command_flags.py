"""A command's arguments: flags of its own, and all those of the relay."""

import sys
from collections.abc import Collection, Mapping, Sequence
from itertools import islice

import attrs

from derp.cli import procfs
from derp.config import Config, flag_table, goflags
from derp.config.goflags import BOOL, INT, Flag, Setting

OF = Flag(
    name="of",
    kind=INT,
    default="0",
    group="The relay",
    placeholder="PID",
    default_words="none",
    usage="Take the flags and variables of the running derper with this process ID, too.",
)

_ALL_OTHERS = (
    "The flags and variables of the relay itself are taken too: give those that it\n"
    "was started with. derper -h explains them.\n"
)


@attrs.frozen
class Arguments:
    """The parsed arguments of a command."""

    settings: Mapping[str, Setting]
    """By the flag's name, of the command's own flags and the relay's."""
    words: Sequence[str] = ()
    """Those that are neither flags nor values of flags."""

    @property
    def config(self) -> Config:
        """The relay's configuration. Raises UsageError for values that no relay can serve."""
        return Config.from_settings(self.settings)


def parse(
    argv: Sequence[str],
    environ: Mapping[str, str],
    own: Sequence[Flag],
    *,
    words: bool = False,
    instead_of_relay: Collection[str] = (),
) -> Arguments | None:
    """Read `argv` (without the command's name) and the variables; return None for -h.

    `words`: whether the command takes arguments that are no flags. Writes warnings to stderr, but
    none about what -of adds. Raises UsageError.

    `instead_of_relay`: the flags that say what the flags of the relay say. Where none of them is
    given, nor -of, a container's relay is asked for it: its first process.
    """
    if instead_of_relay:
        flags = [argument for argument in argv if argument.startswith("-")]
        given = {flag.lstrip("-").partition("=")[0] for flag in flags}
        if not given & {"of", *instead_of_relay} and (first := procfs.relay_of_container()):
            argv = [f"-of={first}", *argv]
    # A command reads no key file; with root=True, -c has a default and may be left out.
    table = [*own, OF, *flag_table(environ, root=True)]
    found: Sequence[str] = ()
    if words:
        found, argv = _separate(argv, table)
    parsed = goflags.parse(table, argv, environ)
    if parsed.help:
        return None
    for warning in parsed.warnings:
        sys.stderr.write(f"derper: {warning}\n")
    pid = parsed.settings["of"].value
    if isinstance(pid, int) and pid:
        of_relay = procfs.arguments_of(pid)
        parsed = goflags.parse(table, argv, {**environ, **procfs.variables_of(pid)}, of_relay)
    return Arguments(parsed.settings, found)


def _separate(argv: Sequence[str], table: Sequence[Flag]) -> tuple[list[str], list[str]]:
    """Return the words in `argv` that are no flags and no values of flags, and the others."""
    with_value = {flag.name for flag in table if flag.kind is not BOOL}
    words: list[str] = []
    flags: list[str] = []
    rest = iter(argv)
    for argument in rest:
        if argument == "--":
            words += rest
        elif not argument.startswith("-"):
            words.append(argument)
        else:
            flags.append(argument)
            if argument.lstrip("-") in with_value:
                flags += islice(rest, 1)
    return words, flags


def help_text(introduction: str, own: Sequence[Flag]) -> str:
    """Return what -h prints for a command."""
    return f"{goflags.help_text([*own, OF], introduction)}\n{_ALL_OTHERS}"
