"""The part of the configuration that says who may see /debug/.

The other variables are those of Go's tsweb (AllowDebugAccess), flags and variables are ours.
"""

from pathlib import Path
from typing import Final

import attrs

from certs.hostname import IPAddress
from derp.config import checks
from derp.config.field import option
from derp.config.goflags import STRING
from derp.relay.networks import Network

# ruff: noqa: RUF009 - option is attrs.field with a check

DEBUG: Final = "Who may see /debug/"


@attrs.frozen(kw_only=True, slots=False)
class DebugOptions:
    """Whom the operator lets see /debug/, beside loopback and the tailnet."""

    debug_allow_ip: tuple[IPAddress, ...] = option(
        "debug-allow-ip",
        STRING,
        "",
        checks.addresses,
        group=DEBUG,
        variable="DERP_DEBUG_ALLOW_IP",
        other_variable="TS_ALLOW_DEBUG_IP",
        placeholder="ADDRESSES",
        usage="IP addresses, with commas between them, that may see /debug/ as loopback and the "
        "tailnet may.",
    )
    debug_trusted_cidrs: tuple[Network, ...] = option(
        "debug-trusted-cidrs",
        STRING,
        "",
        checks.networks,
        group=DEBUG,
        variable="DERP_DEBUG_TRUSTED_CIDRS",
        other_variable="TS_DEBUG_TRUSTED_CIDRS",
        placeholder="NETWORKS",
        usage="The same for networks, such as 10.0.0.0/8.",
    )
    debug_key_file: Path | None = option(
        "debug-key-file",
        STRING,
        "",
        checks.path,
        group=DEBUG,
        variable="DERP_DEBUG_KEY_FILE",
        other_variable="TS_DEBUG_KEY_PATH",
        placeholder="FILE",
        usage="File with a key, read again when it changes: who asks for /debug/?debugkey=KEY sees "
        "that page, from wherever, through a proxy, too.",
    )
