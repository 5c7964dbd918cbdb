"""The part of the configuration that says what the relay is."""

from pathlib import Path

import attrs

from derp.config import checks
from derp.config.field import option
from derp.config.goflags import BOOL, STRING

# ruff: noqa: RUF009 - option is attrs.field with a check


@attrs.frozen(kw_only=True)
class General:
    """Its key, and whether it relays at all."""

    dev: bool = option(
        "dev",
        BOOL,
        "false",
        bool,
        usage="Development mode: a throw-away key, and :3340 in place of -a.",
    )
    key_file: Path | None = option(
        "c",
        STRING,
        "",
        checks.optional_path,
        variable="DERP_KEY_FILE",
        placeholder="FILE",
        usage="Key file, in the JSON of the Go derper; made if it does not exist. "
        "Required unless run by root or with -dev.",
    )
    """None in development mode only."""
    derp: bool = option(
        "derp",
        BOOL,
        "true",
        bool,
        usage="Relay packets. Without it, only STUN and the pages are served.",
    )
