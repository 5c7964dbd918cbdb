"""A detector of proxies that hide the clients' addresses, by the signs in `stun.proxy_signs`.

On most machines the first request from another host ends the observation, which then costs nothing.
"""

import contextlib
import logging
import socket
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import trio

from stun.proxy_signs import Finding, Observation, ipv4_gateways, ipv6_gateways, is_loopback

PROC_NET: Final = Path("/proc/net")
CONTAINERS: Final = (Path("/.dockerenv"), Path("/run/.containerenv"))
"""Files that Docker and Podman put into each container."""
_DISCARD: Final = 9
"""A port for looking up a route; nothing is sent there."""

logger = logging.getLogger("derper.stun")


class ProxyDetector:
    """The detector for one socket."""

    def __init__(self) -> None:
        self._observation: Observation | None = None
        self._description = ""

    async def observe(self, address: bytes, port: bytes) -> bool:
        """Record an answered request; return whether to go on with further ones.

        `address` has 4 or 16 bytes, `port` 2, as in the packet. Logs a warning for PROXIED.
        """
        if is_loopback(address):
            return True
        if self._observation is None:
            chosen = await trio.to_thread.run_sync(
                choose_observation, address, abandon_on_cancel=True
            )
            if chosen is None:
                return False
            self._observation, self._description = chosen
        finding = self._observation.observe(address, port, trio.current_time())
        if finding is Finding.PROXIED:
            logger.warning(
                "STUN requests of different clients come from %s, %s: a proxy hides the clients' "
                "addresses, so that their peers can't reach them directly; run the container in "
                "the host's network, or rootless with pasta (README: behind NAT)",
                ip_address(self._observation.address),
                self._description,
            )
        return finding is Finding.UNSURE


def choose_observation(address: bytes) -> tuple[Observation, str] | None:
    """Return an Observation that fits the first sender's `address`, and its address in words.

    None if `address` is another host's own, unless in a container with a default gateway. Blocks.
    """
    if _is_own(address):
        return Observation(address), "an address of this machine itself"
    name, read = ("route", ipv4_gateways) if len(address) == 4 else ("ipv6_route", ipv6_gateways)
    table = b""
    with contextlib.suppress(OSError):
        table = Path(PROC_NET, name).read_bytes()
    gateways = read(table)
    in_container = any(sign.exists() for sign in CONTAINERS)
    if address in gateways:
        observed = address
    elif in_container and gateways:
        observed = min(gateways)
    else:
        return None
    return Observation(observed, ignores_others=in_container), "the default gateway of this machine"


def _is_own(address: bytes) -> bool:
    """Return whether an address is this machine's own: packets to it also have it as their source.

    Nothing is sent. bind would accept any address where net.ipv4.ip_nonlocal_bind is set.
    """
    target = ip_address(address)
    family = socket.AF_INET if target.version == 4 else socket.AF_INET6
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.connect((str(target), _DISCARD))
        return ip_address(sock.getsockname()[0].partition("%")[0]) == target
    return False
