"""The key of -debug-key-file, and the access to /debug/ with and without it.

The Go derper reads the file for each request with a key (allowDebugAccessWithKey of tsweb). Here it
is read every READ_EVERY seconds, so that requests can't make the relay read files.
"""

import ipaddress
from pathlib import Path
from typing import Final

import attrs
import trio

from derp import log
from derp.config import Config
from derp.errors import StartError
from derp.files.secret import read_secret
from derp.http.access import DebugAccess

READ_EVERY: Final = 5.0
"""Seconds between reads of the file."""

_MAX_SIZE: Final = 4096

logger = log.get("http")


@attrs.define
class DebugKey:
    """The key in the file as it was last read."""

    path: Path | None
    value: bytes = attrs.field(init=False, default=b"", repr=False)
    """Without white space around it; empty for none."""
    _trouble: str = attrs.field(init=False, default="")

    def read(self) -> None:
        """Read the file, if there is one; a failure leaves no key, and is logged once. Blocks."""
        if self.path is None:
            return
        try:
            self.value, trouble = self._read(self.path), ""
        except (OSError, ValueError, StartError) as error:
            reason = error.strerror if isinstance(error, OSError) else None
            self.value, trouble = b"", reason or str(error)
        if trouble and trouble != self._trouble:
            event = "no key opens /debug/, as its file can't be used"
            logger.warning(event, path=str(self.path), reason=trouble)
        self._trouble = trouble

    async def watch(self) -> None:
        """Read the file every READ_EVERY seconds, if there is one."""
        while self.path is not None:
            await trio.sleep(READ_EVERY)
            await trio.to_thread.run_sync(self.read, abandon_on_cancel=True)

    def _read(self, path: Path) -> bytes:
        content, _ = read_secret(path, "-debug-key-file", _MAX_SIZE)
        if len(content) > _MAX_SIZE:
            raise ValueError(f"want a key of at most {_MAX_SIZE} bytes")
        if not (key := content.strip()):
            raise ValueError("it is empty")
        return key


def debug_access(config: Config, key: DebugKey) -> DebugAccess:
    """Return who may see /debug/: whom `config` allows, and who has the current `key`."""
    single = map(ipaddress.ip_network, config.debug.addresses)
    return DebugAccess(
        names=config.tls.hostnames,
        networks=(*single, *config.debug.networks),
        proxies=config.limits.trusted_proxies,
        key=lambda: key.value,
    )
