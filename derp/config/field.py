"""How a field of the configuration says that it is a flag, and what is wrong with its value."""

from collections.abc import Callable
from typing import Any

import attrs

from derp.config.goflags import Flag, Kind
from derp.config.strconv import shown
from derp.errors import UsageError


class ConfigError(UsageError):
    """A field can't have the value it was given.

    The message gives the flag its plain name; `Config.from_settings` says what the operator typed.
    """

    def __init__(self, flag: str, value: object, want: str) -> None:
        super().__init__(f"-{flag} {shown(str(value))}: {want}")
        self.flag = flag
        self.want = want
        """What would be right."""


def option(name: str, kind: Kind, default: str, check: Callable[[Any], object], **more: Any) -> Any:
    """Make the field of flag `name`; `more` goes to Flag. A wrong value raises ConfigError."""

    def convert(value: object) -> object:
        try:
            return check(value)
        except ValueError as error:
            shown_value = "" if flag.secret else value
            raise ConfigError(name, shown_value, str(error)) from None

    flag = Flag(name=name, kind=kind, default=default, **more)
    return attrs.field(
        default=flag.default_value,
        converter=convert,
        repr=not flag.secret,
        metadata={"flag": flag},
    )


def flag_of(field: "attrs.Attribute[Any]") -> Flag:
    """Return the flag that a field made by `option` stands for."""
    flag: Flag = field.metadata["flag"]
    return flag
