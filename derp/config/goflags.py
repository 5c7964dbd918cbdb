"""Flags in the syntax of Go's flag package, each with an environment variable beside it.

`parse` turns a table of `Flag`, arguments and environment into one `Setting` for each flag, which
keeps what the operator typed, for errors to quote: `--stun-port=0x10000`, `DERP_STUN_PORT=x`.
`help_text` turns the table into what -h prints.

As in Go, one dash or two, `-flag=value` or `-flag value`; a bool stands alone or takes its value
after `=`; `--` ends the flags; of a repeated flag the last one counts, or all, as the table says.
Unlike in Go, an argument that is not a flag does not silently end the flags: `true` or `false`
after a bool is taken as its value, with a warning, and any other argument is an error.
"""

import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Generic, TypeVar

import attrs

from derp.config.strconv import BOOLS, parse_bool, parse_duration, parse_float, parse_int, quoted
from derp.errors import UsageError

Value = bool | int | float | str
V_co = TypeVar("V_co", bound=Value, covariant=True)


@attrs.frozen
class Kind(Generic[V_co]):
    """The sort of value that a flag takes."""

    placeholder: str
    """The word for a value in the help."""
    read: Callable[[str], V_co]
    """The parser of a value; raises ValueError, whose message begins with "want"."""


BOOL = Kind("", parse_bool)
INT = Kind("N", parse_int)
FLOAT = Kind("N", parse_float)
DURATION = Kind("TIME", lambda text: parse_duration(text) / 1e9)
"""Its values are seconds."""
STRING = Kind("TEXT", str)
FILE = Kind("FILE", str)


@attrs.frozen(kw_only=True)
class Flag:
    """One row of the table."""

    name: str
    kind: Kind[Value]
    default: str = ""
    """As an operator would write it."""
    usage: str
    group: str = ""
    """Its heading in the help."""
    variable: str = ""
    """The environment variable of the flag; empty if there is none."""
    other_variable: str = ""
    """Tailscale's variable, read where `variable` is not set."""
    placeholder: str = ""
    """In place of the kind's, unless empty."""
    default_words: str = ""
    """In place of the default in the help, unless empty."""
    want: str = ""
    """In place of the message of the kind's parser, unless empty."""
    separator: str = ""
    """What joins the values of all occurrences; empty if the last one counts."""
    never_empty: bool = False
    """Whether an empty value, as of a shell variable that is not set, is an error."""
    secret: bool = False
    """Whether its value must not appear in a message."""
    unsupported: str = ""
    """The error for any value but the default; empty if the flag is supported."""

    @property
    def default_value(self) -> Value:
        """The default, parsed."""
        return self.kind.read(self.default)

    @property
    def shown_placeholder(self) -> str:
        """The word for its value in the help; empty for a bool."""
        return self.placeholder or self.kind.placeholder

    @property
    def shown_default(self) -> str:
        """The default as the help has it; empty where that says nothing."""
        return self.default_words or ("" if self.default == "false" else self.default)

    @property
    def shown_variable(self) -> str:
        """Its variables as the help has them; empty if there is none."""
        also = f" or {self.other_variable}" if self.other_variable else ""
        return f"{self.variable}{also}" if self.variable else ""


@attrs.frozen
class Setting:
    """The value of one flag, and what the operator wrote for it."""

    flag: Flag
    value: Value
    spelling: str
    """The name that the operator wrote: `-a`, `--a`, `DERP_ADDR`; `-a` for a default."""
    given: str
    """The same with the value: `-a :80`, `--a=:80`, `DERP_ADDR=:80`, `-a :443 (the default)`."""

    def wrong(self, want: str) -> UsageError:
        """Return an error that says that this value is wrong, and what would be right."""
        return UsageError(f"{self.given}: {want}")


@attrs.frozen
class Parsed:
    """The parsed arguments and environment."""

    settings: Mapping[str, Setting]
    """One for each flag of the table, by the flag's name."""
    help: bool
    """Whether -h or -help was among the arguments; those after it were not read."""
    warnings: Sequence[str] = ()
    """Lines for the log."""


def parse(
    flags: Iterable[Flag],
    argv: Sequence[str],
    environ: Mapping[str, str],
    replaced: Sequence[str] = (),
) -> Parsed:
    """Read `argv` (without the program's name) and the variables of `flags` in `environ`.

    A flag beats its variable, a variable beats the default, and an empty variable is none. A flag
    in `argv` takes the place of all its occurrences in the arguments `replaced`. Raises UsageError.
    """
    table = {flag.name: flag for flag in flags}
    settings: dict[str, Setting] = {}
    warnings: list[str] = []
    _parse_arguments(table, replaced, settings, warnings)
    given: dict[str, Setting] = {}
    help_wanted = _parse_arguments(table, argv, given, warnings)
    settings |= given
    for flag in table.values():
        if flag.name in settings:
            continue
        setting = None if help_wanted else _from_environment(flag, environ, warnings)
        settings[flag.name] = setting or _default(flag)
    return Parsed(settings, help_wanted, tuple(warnings))


def _from_environment(
    flag: Flag, environ: Mapping[str, str], warnings: list[str]
) -> Setting | None:
    for variable in filter(None, (flag.variable, flag.other_variable)):
        text = environ.get(variable, "")
        if text and not _is_service_link(variable, text):
            return _read(flag, variable, "=", text)
        if text:
            warnings.append(
                f"{variable}={text}: ignored, as Kubernetes sets it for a Service of that "
                f"name; {_default(flag).given} counts: give the flag, or enableServiceLinks: false"
            )
    return None


def _default(flag: Flag) -> Setting:
    name = f"-{flag.name}"
    given = f"{name} {flag.default} (the default)" if flag.default else name
    return Setting(flag, flag.default_value, name, given)


_SERVICE_LINK: Final = re.compile(r"(?:tcp|udp|sctp)://[!-~]+")


def _is_service_link(variable: str, text: str) -> bool:
    """Return whether Kubernetes set the variable, for a Service.

    For a Service `derp-stun`, all other pods have DERP_STUN_PORT=udp://10.0.0.1:3478.
    """
    return variable.endswith("_PORT") and _SERVICE_LINK.fullmatch(text) is not None


def _parse_arguments(
    table: Mapping[str, Flag],
    argv: Sequence[str],
    settings: dict[str, Setting],
    warnings: list[str],
) -> bool:
    """Parse `argv` into `settings` and `warnings`; return whether it asks for help."""
    position = 0
    while position < len(argv):
        argument = argv[position]
        position += 1
        if argument == "--" and position == len(argv):
            break
        dashes = "--" if argument.startswith("--") else "-"
        name, equals, text = argument.removeprefix(dashes).partition("=")
        spelling = dashes + name
        if not name or name.startswith("-") or not argument.startswith("-"):
            raise _not_a_flag(argument, argv[: position - 1], table)
        if name not in table:
            if name in {"h", "help"}:
                return True
            raise _unknown(spelling, name, table)
        flag = table[name]
        if equals:
            settings[name] = _read(flag, spelling, "=", _with_earlier(settings.get(name), text))
        elif flag.kind is BOOL and position < len(argv) and argv[position] in BOOLS:
            settings[name] = _read(flag, spelling, " ", argv[position])
            position += 1
            warnings.append(_two_words(settings[name], argv[position - 1], argv[position:]))
        elif flag.kind is BOOL:
            settings[name] = Setting(flag, True, spelling, spelling)
        elif position < len(argv):
            text = _with_earlier(settings.get(name), argv[position])
            settings[name] = _read(flag, spelling, " ", text)
            position += 1
        else:
            want = flag.want or "want a value"
            raise UsageError(f"{spelling}: nothing comes after it; {want}")
    return False


def _two_words(setting: Setting, word: str, after: Sequence[str]) -> str:
    """Return the warning about a bool that takes the next argument as its value, unlike in Go."""
    spelling = setting.spelling
    text = f"{setting.given}: read as {spelling}={word}, which is how to write it"
    ignored_by_go = list(after) not in ([], ["--"])
    if ignored_by_go or not setting.value:
        text += f"; the Go derper reads {spelling} alone, as true"
    return f"{text}, and ignores the flags after it, which count here" if ignored_by_go else text


def _with_earlier(earlier: Setting | None, text: str) -> str:
    """Return the value of a flag together with those of its earlier occurrences."""
    if earlier is None or not earlier.flag.separator or not earlier.value:
        return text
    return f"{earlier.value}{earlier.flag.separator}{text}"


def _read(flag: Flag, spelling: str, separator: str, text: str) -> Setting:
    given = spelling if flag.secret else f"{spelling}{separator}{quoted(text)}"
    if flag.never_empty and not text:
        raise UsageError(f"{given}: {flag.want}")
    try:
        return Setting(flag, flag.kind.read(text), spelling, given)
    except ValueError as error:
        raise UsageError(f"{given}: {flag.want or error}") from None


def _not_a_flag(argument: str, before: Sequence[str], table: Mapping[str, Flag]) -> UsageError:
    if argument == "--":
        return UsageError("--: nothing may come after it; want flags only")
    previous = table.get(before[-1].lstrip("-")) if before else None
    if previous is not None and previous.kind is BOOL and not argument.startswith("-"):
        hint = f"; want -{previous.name}=true or -{previous.name}=false, with the equals sign"
    else:
        hint = "; want -flag, -flag=value or -flag value"
    return UsageError(f"{quoted(argument)}: not a flag{hint}")


def _unknown(spelling: str, name: str, table: Mapping[str, Flag]) -> UsageError:
    import difflib  # noqa: PLC0415 - only a mistake needs it

    close = difflib.get_close_matches(name[:60], table, n=1)
    hint = f"did you mean -{close[0]}?" if close else "-h lists them all"
    return UsageError(f"{quoted(spelling)}: no such flag; {hint}")


_WIDTH = 80


def help_text(flags: Iterable[Flag], introduction: str) -> str:
    """Return what -h prints: `introduction`, the flags by group, then the refused flags."""
    flags = list(flags)
    blocks = [introduction]
    for group in dict.fromkeys(flag.group for flag in flags if not flag.unsupported):
        members = [flag for flag in flags if flag.group == group and not flag.unsupported]
        blocks.append("\n".join([f"{group}:", *(_help_entry(flag) for flag in members)]))
    refused = ", ".join(f"-{flag.name}" for flag in flags if flag.unsupported)
    if refused:
        blocks.append(f"Known but not supported yet:\n{_filled(refused, '  ')}")
    return "\n\n".join(blocks) + "\n"


def _help_entry(flag: Flag) -> str:
    head = f"  -{flag.name} {flag.shown_placeholder}".rstrip()
    notes = []
    if flag.shown_default:
        notes.append(f"default {flag.shown_default}")
    if flag.shown_variable:
        notes.append(f"variable {flag.shown_variable}")
    if notes:
        head += f"   ({', '.join(notes)})"
    return f"{head}\n{_filled(flag.usage, '      ')}"


def _filled(text: str, indent: str) -> str:
    wrapper = textwrap.TextWrapper(_WIDTH, break_on_hyphens=False, break_long_words=False)
    wrapper.initial_indent = wrapper.subsequent_indent = indent
    return wrapper.fill(text)
