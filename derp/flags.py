"""Flags in the syntax of Go's flag package, each with an environment variable beside it.

A table of `Flag` says which flags there are; `parse` turns arguments and environment into one
`Setting` for each of them, and `help_text` turns the same table into what -h prints. A setting
remembers how it was given, so that whoever finds its value unfit later can say so in the
operator's own words: `--stun-port=0x10000`, `DERP_STUN_PORT=x`.

As in Go, one dash or two, `-flag=value` or `-flag value`; a bool stands alone or takes its value
after `=` only; `--` ends the flags; of a repeated flag the last one counts, unless
the table says otherwise. Unlike in Go, an
argument that is no flag is an error: there it silently ends the flags, so that `-stun false -a :1`
loses its `-a`.
"""

import difflib
import math
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence

import attrs

from derp.errors import UsageError

Value = bool | int | float | str


def parse_bool(text: str) -> bool:
    """Read a bool in the forms of strconv.ParseBool. Raises ValueError."""
    if text in {"1", "t", "T", "true", "TRUE", "True"}:
        return True
    if text in {"0", "f", "F", "false", "FALSE", "False"}:
        return False
    raise ValueError("want true or false")


_INT = re.compile(
    r"(?P<sign>[+-]?)"
    r"(?P<digits>0[xX](_?[0-9a-fA-F])+|0[oO](_?[0-7])+|0[bB](_?[01])+|0(_?[0-7])*|[1-9](_?[0-9])*)"
)
_INT_DIGITS = 100


def parse_int(text: str) -> int:
    """Read a whole number of 64 bits as strconv.ParseInt does with base 0. Raises ValueError.

    That is decimal, 0x, 0o, 0b, and octal after a mere 0, with underscores between digits.
    """
    match = _INT.fullmatch(text)
    if match is None:
        raise ValueError("want a whole number")
    digits = match["digits"].replace("_", "")
    if len(digits) > _INT_DIGITS:
        raise ValueError("want a whole number of 64 bits")
    octal = digits.startswith("0") and digits.isdecimal()
    number = int(digits, 8 if octal else 0)
    if match["sign"] == "-":
        number = -number
    if not -(2**63) <= number < 2**63:
        raise ValueError("want a whole number of 64 bits")
    return number


_DIGITS = r"[0-9](?:_?[0-9])*"
_FLOAT = re.compile(rf"[+-]?(?:{_DIGITS}(?:\.(?:{_DIGITS})?)?|\.{_DIGITS})(?:[eE][+-]?{_DIGITS})?")
_INFINITY = re.compile(r"[+-]?inf(?:inity)?", re.IGNORECASE)


def parse_float(text: str) -> float:
    """Read a number as strconv.ParseFloat does, hexadecimal ones apart. Raises ValueError.

    Takes `Inf` and `Infinity` in any case with a sign before them. NaN is refused.
    """
    if _INFINITY.fullmatch(text):
        return float(text)
    if not _FLOAT.fullmatch(text):
        raise ValueError("want a number")
    number = float(text.replace("_", ""))
    if math.isinf(number):
        raise ValueError("want a number below 1.8e308")
    return number


_UNITS = {
    "ns": 1,
    "us": 10**3,
    "\u00b5s": 10**3,  # with the micro sign
    "\u03bcs": 10**3,  # with the Greek letter
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_DURATION_PART = re.compile(
    r"(?=.)(?P<whole>[0-9]*)\.?(?P<fraction>[0-9]*)(?P<unit>[^0-9.]*)", re.DOTALL
)
_WHOLE_DIGITS = 30
_FRACTION_DIGITS = 18  # as many as can still change a nanosecond


def parse_duration(text: str) -> int:
    """Read a duration as time.ParseDuration does, and return nanoseconds. Raises ValueError.

    One or more numbers, each with its unit (h, m, s, ms, us, ns), with a sign before them all or
    none; or a mere 0.
    """
    rest = text.removeprefix("-") if text.startswith("-") else text.removeprefix("+")
    if rest == "0":
        return 0
    example = "want a duration, such as 2s, 1h10m or 300ms"
    if not rest:
        raise ValueError(example)
    total = 0
    for part in _DURATION_PART.finditer(rest):
        if not (part["whole"] or part["fraction"]):
            raise ValueError(example)
        if not part["unit"]:
            raise ValueError(f"want a duration with its unit, such as {shown(text + 's')}")
        if part["unit"] not in _UNITS:
            raise ValueError("want a duration in h, m, s, ms, us or ns, such as 1h10m")
        if len(part["whole"]) > _WHOLE_DIGITS:
            raise ValueError("want a duration below 292 years")
        unit = _UNITS[part["unit"]]
        fraction = part["fraction"][:_FRACTION_DIGITS]
        total += int(part["whole"] or "0") * unit
        total += int(fraction or "0") * unit // 10 ** len(fraction)
    if text.startswith("-"):
        total = -total
    if not -(2**63) <= total < 2**63:
        raise ValueError("want a duration below 292 years")
    return total


@attrs.frozen
class Kind:
    """What sort of value a flag takes."""

    placeholder: str
    """What stands for a value in the help."""
    read: Callable[[str], Value]
    """From text to value; raises ValueError whose message begins with "want"."""


BOOL = Kind("", parse_bool)
INT = Kind("N", parse_int)
FLOAT = Kind("N", parse_float)
DURATION = Kind("TIME", lambda text: parse_duration(text) / 1e9)
"""Its values are seconds."""
STRING = Kind("TEXT", str)


@attrs.frozen(kw_only=True)
class Flag:
    """One line of the table."""

    name: str
    kind: Kind
    default: str = ""
    """As an operator would write it."""
    usage: str
    group: str = ""
    """The heading in the help under which it stands."""
    variable: str = ""
    """The environment variable that stands in for the flag; empty if there is none."""
    placeholder: str = ""
    """Better than that of the kind, in the help."""
    default_words: str = ""
    """Better than the default itself, in the help."""
    want: str = ""
    """Better than the words of the kind, in the error line."""
    repeatable: bool = False
    """Whether each occurrence counts: their values are put together with spaces between them."""
    never_empty: bool = False
    """Whether an empty value is a mistake, such as that of a shell variable that is not set."""
    secret: bool = False
    """Whether its value must stand in no message."""
    refusal: str = ""
    """Not empty: the flag is known, but only its default can be had, and this says why."""

    @property
    def default_value(self) -> Value:
        """The default, read."""
        return self.kind.read(self.default)


@attrs.frozen
class Setting:
    """The value in force of one flag, and where it came from."""

    flag: Flag
    value: Value
    source: str
    """What the operator wrote to name it: `-a`, `--a`, `DERP_ADDR`; `-a` for a default."""
    given: str
    """The same with the value: `-a :80`, `--a=:80`, `DERP_ADDR=:80`, `-a :443 (the default)`."""

    def wrong(self, want: str) -> UsageError:
        """Give the error that says that this value is wrong, and what would be right."""
        return UsageError(f"{self.given}: {want}")


@attrs.frozen
class Parsed:
    """What the arguments and the environment say."""

    settings: Mapping[str, Setting]
    """One for each flag of the table, by the flag's name."""
    help: bool
    """-h or -help was among the arguments; what came after it was not looked at."""


def parse(flags: Iterable[Flag], argv: Sequence[str], environ: Mapping[str, str]) -> Parsed:
    """Read `argv` (without the program's name) and the variables of `flags` in `environ`.

    A flag beats its variable, a variable beats the default, and an empty variable is none.
    Raises UsageError.
    """
    table = {flag.name: flag for flag in flags}
    settings: dict[str, Setting] = {}
    help_wanted = _parse_arguments(table, argv, settings)
    if not help_wanted:
        for flag in table.values():
            text = environ.get(flag.variable, "") if flag.variable else ""
            if text and flag.name not in settings:
                settings[flag.name] = _read(flag, flag.variable, "=", text)
    for flag in table.values():
        if flag.name not in settings:
            name = f"-{flag.name}"
            given = f"{name} {flag.default} (the default)" if flag.default else name
            settings[flag.name] = Setting(flag, flag.default_value, name, given)
    return Parsed(settings, help_wanted)


def _parse_arguments(
    table: Mapping[str, Flag], argv: Sequence[str], settings: dict[str, Setting]
) -> bool:
    """Put what `argv` says into `settings`; return whether it asks for help."""
    position = 0
    while position < len(argv):
        argument = argv[position]
        position += 1
        if argument == "--" and position == len(argv):
            break
        dashes = "--" if argument.startswith("--") else "-"
        name, equals, text = argument.removeprefix(dashes).partition("=")
        source = dashes + name
        if (
            argument in {"-", "--"}
            or not argument.startswith("-")
            or name.startswith("-")
            or not name
        ):
            raise _not_a_flag(argument, argv[: position - 1], table)
        if name not in table:
            if name in {"h", "help"}:
                return True
            raise _unknown(source, name, table)
        flag = table[name]
        if equals:
            settings[name] = _read(flag, source, "=", _with_earlier(settings.get(name), text))
        elif flag.kind is BOOL:
            settings[name] = Setting(flag, True, source, source)
        elif position < len(argv):
            text = _with_earlier(settings.get(name), argv[position])
            settings[name] = _read(flag, source, " ", text)
            position += 1
        else:
            want = flag.want or "want a value"
            raise UsageError(f"{source}: nothing comes after it; {want}")
    return False


def _with_earlier(earlier: Setting | None, text: str) -> str:
    """Return the value of a flag together with those of its earlier occurrences."""
    if earlier is None or not earlier.flag.repeatable or not earlier.value:
        return text
    return f"{earlier.value} {text}"


def _read(flag: Flag, source: str, separator: str, text: str) -> Setting:
    given = source if flag.secret else f"{source}{separator}{shown(text)}"
    if flag.never_empty and not text:
        raise UsageError(f"{given}: {flag.want}")
    try:
        return Setting(flag, flag.kind.read(text), source, given)
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
    return UsageError(f"{shown(argument)}: not a flag{hint}")


def _unknown(source: str, name: str, table: Mapping[str, Flag]) -> UsageError:
    close = difflib.get_close_matches(name[:60], table, n=1)
    hint = f"did you mean -{close[0]}?" if close else "-h lists them all"
    return UsageError(f"{shown(source)}: no such flag; {hint}")


_SHOWN_LENGTH = 120


def shown(text: str) -> str:
    """Give `text` fit for an error line: on one line, not endless, in quotes if they help."""
    if len(text) > _SHOWN_LENGTH:
        text = f"{text[: _SHOWN_LENGTH - 1]}…"
    plain = text.isprintable() and not set(" '\"").intersection(text)
    return text if plain and text else repr(text)


_WIDTH = 80


def help_text(flags: Iterable[Flag], introduction: str) -> str:
    """Give what -h prints: `introduction`, then the flags under their groups, then the refused."""
    flags = list(flags)
    blocks = [introduction]
    for group in dict.fromkeys(flag.group for flag in flags if not flag.refusal):
        members = [flag for flag in flags if flag.group == group and not flag.refusal]
        blocks.append("\n".join([f"{group}:", *(_help_entry(flag) for flag in members)]))
    refused = ", ".join(f"-{flag.name}" for flag in flags if flag.refusal)
    if refused:
        names = textwrap.fill(
            refused,
            _WIDTH,
            initial_indent="  ",
            subsequent_indent="  ",
            break_on_hyphens=False,
        )
        blocks.append(f"Known but not supported yet:\n{names}")
    return "\n\n".join(blocks) + "\n"


def _help_entry(flag: Flag) -> str:
    head = f"  -{flag.name} {flag.placeholder or flag.kind.placeholder}".rstrip()
    notes = []
    if flag.default_words or flag.default not in {"", "false"}:
        notes.append(f"default {flag.default_words or flag.default}")
    if flag.variable:
        notes.append(f"variable {flag.variable}")
    if notes:
        head += f"   ({', '.join(notes)})"
    usage = textwrap.fill(
        flag.usage,
        _WIDTH,
        initial_indent="      ",
        subsequent_indent="      ",
        break_on_hyphens=False,
        break_long_words=False,
    )
    return f"{head}\n{usage}"
