"""The part of the configuration that says whether packets are relayed, and with which key."""

from pathlib import Path

import attrs

from derp.config.field import bool_option, file_option


@attrs.frozen(kw_only=True)
class General:
    """The relay's key, and whether it relays packets."""

    dev: bool = bool_option(
        "dev",
        default="false",
        usage="Development mode: a new key for each run, and :3340 in place of -a.",
    )
    key_file: Path | None = file_option(
        "c",
        variable="DERP_KEY_FILE",
        usage="The relay's key, in the Go derper's JSON; created if it does not exist. "
        "Required unless run by root or with -dev.",
    )
    """None in development mode only."""
    derp: bool = bool_option(
        "derp",
        default="true",
        usage="Relay packets. Without it, only STUN and the pages are served.",
    )
    poller: bool = bool_option(
        "poller",
        default="true",
        variable="DERP_POLLER",
        usage="Read for all idle clients in one task. With false each client's own task waits for "
        "its socket, which costs more with many clients.",
    )
