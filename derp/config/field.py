"""Fields of the configuration: flags, and parts that have flags."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import attrs

from derp.config import checks
from derp.config.goflags import BOOL, FILE, Flag, Kind, Value
from derp.config.strconv import quoted
from derp.errors import UsageError

V = TypeVar("V", bound=Value)
T = TypeVar("T")


class ConfigError(UsageError):
    """A wrong value, under the flag's plain name; `Config.from_settings` says what was typed."""

    def __init__(self, flag: str, value: object, want: str) -> None:
        super().__init__(f"-{flag} {quoted(str(value))}: {want}")
        self.flag = flag
        self.want = want
        """What would be right."""


def option(
    name: str, kind: Kind[V], check: Callable[[V], T], *, default: str = "", **more: Any
) -> T:
    """Return the field of flag `name`; `more` goes to Flag. A wrong value raises ConfigError."""

    def convert(value: V) -> T:
        try:
            return check(value)
        except ValueError as error:
            shown_value = "" if flag.secret else value
            raise ConfigError(name, shown_value, str(error)) from None

    flag = Flag(name=name, kind=kind, default=default, **more)
    field = attrs.field(
        default=flag.default_value,
        converter=convert,
        repr=not flag.secret,
        metadata={"flag": flag},
    )
    return cast("T", field)


def bool_option(name: str, *, default: str, **more: Any) -> bool:
    """Return the field of a flag that is true or false."""
    return option(name, BOOL, bool, default=default, **more)


def file_option(name: str, **more: Any) -> Path | None:
    """Return the field of a flag that takes a file's path; None for the empty string."""
    return option(name, FILE, checks.optional_path, **more)


def part(heading: str, kind: type[T]) -> T:
    """Return the field of a part, whose flags are under `heading` in the help."""
    return attrs.field(factory=kind, metadata={"heading": heading, "part": kind})


def flags_of(kind: type) -> dict[str, Flag]:
    """Return the flags of a part's fields, by the names of the fields."""
    return {field.name: field.metadata["flag"] for field in attrs.fields(kind)}
