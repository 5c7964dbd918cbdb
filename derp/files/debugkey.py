"""The key of -debug-key-file, and the access to /debug/ with and without it.

The Go derper reads the file for each request with a key (allowDebugAccessWithKey of tsweb).
"""

import ipaddress
from typing import ClassVar

from derp.config import Config
from derp.files.watched import WatchedSecret
from derp.http.access import DebugAccess


class DebugKey(WatchedSecret):
    """The key that opens /debug/ to whoever shows it."""

    flag: ClassVar = "-debug-key-file"
    unusable: ClassVar = "no key opens /debug/, as its file can't be used"


def debug_access(config: Config, key: DebugKey) -> DebugAccess:
    """Return who may see /debug/: whom `config` allows, and who has the current `key`."""
    single = map(ipaddress.ip_network, config.debug.addresses)
    return DebugAccess(
        names=config.tls.hostnames,
        networks=(*single, *config.debug.networks),
        key=lambda: key.value,
    )
