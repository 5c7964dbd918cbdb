"""Looks at who asks on a socket, until it is clear whether something hides where clients are.

What the signs are is in `stun.proxied`. On most machines the first request from elsewhere ends the
look, so that it costs nothing afterwards.
"""

import contextlib
import logging
import socket
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import trio

from stun.proxied import Finding, Watch, ipv4_gateways, ipv6_gateways, is_loopback

PROC_NET: Final = Path("/proc/net")
_DISCARD: Final = 9
"""A port to look up the way to; nothing is sent there."""

logger = logging.getLogger("derper.stun")


class Lookout:
    """The look at one socket."""

    def __init__(self) -> None:
        self._watch: Watch | None = None
        self._whose = ""

    async def look(self, address: bytes, port: bytes) -> bool:
        """Take note of a request that was answered; return whether to go on looking.

        `address` has 4 or 16 bytes, `port` 2, as in the packet. Warns, once, if all clients are
        seen at one address that is not theirs.
        """
        if is_loopback(address):
            return True
        if self._watch is None:
            whose = await trio.to_thread.run_sync(whose_is, address, abandon_on_cancel=True)
            if whose is None:
                return False
            self._watch, self._whose = Watch(address), whose
        finding = self._watch.saw(address, port, trio.current_time())
        if finding is Finding.PROXIED:
            logger.warning(
                "STUN requests of different clients all come from %s, %s: what passes them on "
                "hides where they come from, so that clients are told this address and can't be "
                "reached directly; run the container in the host's network, or rootless with "
                "pasta (README: behind NAT)",
                ip_address(address),
                self._whose,
            )
        return finding is Finding.UNSURE


def whose_is(address: bytes) -> str | None:
    """Tell what an address is if it is one that a forwarder on this machine may have; blocks."""
    if _is_own(address):
        return "an address of this machine itself"
    name, gateways = (
        ("route", ipv4_gateways) if len(address) == 4 else ("ipv6_route", ipv6_gateways)
    )
    table = b""
    with contextlib.suppress(OSError):
        table = Path(PROC_NET, name).read_bytes()
    return "the default gateway of this machine" if address in gateways(table) else None


def _is_own(address: bytes) -> bool:
    """Tell whether the way to an address begins where it ends.

    Nothing is sent. To try and bind it would not tell where net.ipv4.ip_nonlocal_bind is set.
    """
    target = ip_address(address)
    family = socket.AF_INET if target.version == 4 else socket.AF_INET6
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.connect((str(target), _DISCARD))
        return ip_address(sock.getsockname()[0].partition("%")[0]) == target
    return False
