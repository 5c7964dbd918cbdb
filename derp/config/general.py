"""The part of the configuration that says whether packets are relayed, and with which key."""

from pathlib import Path

import attrs

from derp.config import checks
from derp.config.field import option
from derp.config.goflags import BOOL, FILE


@attrs.frozen(kw_only=True)
class General:
    """The relay's key, and whether it relays packets."""

    dev: bool = option(
        "dev",
        BOOL,
        bool,
        default="false",
        usage="Development mode: a throw-away key, and :3340 in place of -a.",
    )
    key_file: Path | None = option(
        "c",
        FILE,
        checks.optional_path,
        variable="DERP_KEY_FILE",
        usage="Key file, in the JSON of the Go derper; made if it does not exist. "
        "Required unless run by root or with -dev.",
    )
    """None in development mode only."""
    derp: bool = option(
        "derp",
        BOOL,
        bool,
        default="true",
        usage="Relay packets. Without it, only STUN and the pages are served.",
    )
    poller: bool = option(
        "poller",
        BOOL,
        bool,
        default="true",
        variable="DERP_POLLER",
        usage="One task reads for all idle clients. false has each client's own task wait for its "
        "socket, which costs more with many clients.",
    )
