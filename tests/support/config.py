"""A configuration for a test, of the flags that the test is about."""

from typing import Any

from derp.config import Config, flag_table

_FLAGS = {flag.name for flag in flag_table({}, root=False)}


def make_config(**flags: Any) -> Config:
    """Return the configuration with these flags, named with underscores: `verify_clients=True`.

    A value is what the flag's text says, or what it is read as: a path or its text.
    """
    values = {name.replace("_", "-"): value for name, value in flags.items()}
    assert values.keys() <= _FLAGS, f"no such flags: {values.keys() - _FLAGS}"
    return Config.from_values(values)
