"""Hosts, ports and IP addresses in text. Sans-I/O."""

import ipaddress
import re
from typing import Final

import attrs

from derp.relay.networks import UNIX

WILDCARDS: Final = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 -- recognised, not bound to
"""Hosts that stand for every address of the machine; Go listens on IPv4 and IPv6 for each."""

_LABEL: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")


@attrs.frozen
class Endpoint:
    """One end of a connection: an IP address without brackets or zone, and a port."""

    host: str
    """UNIX at either end of a unix socket."""
    port: int

    @property
    def ip(self) -> str:
        """The IP address; empty at a unix socket."""
        return "" if self.host == UNIX else self.host

    def __str__(self) -> str:
        return UNIX if self.host == UNIX else host_port(self.host, self.port)


def endpoint(address: tuple[str, int] | tuple[str, int, int, int] | str | bytes) -> Endpoint:
    """Return the Endpoint of a socket address, without a zone.

    The address of a unix socket is a path, a name in bytes, or empty.
    """
    if isinstance(address, str | bytes):
        return Endpoint(UNIX, 0)
    return Endpoint(address[0].partition("%")[0], address[1])


def host_port(host: str, port: int) -> str:
    """Return `host:port`, with brackets around an IPv6 address (Go: net.JoinHostPort)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_ip(text: str) -> bool:
    """Return whether `text` is an IP address without brackets; IPv6 may have a zone."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_dns_name(text: str) -> bool:
    """Return whether `text` is a DNS name in ASCII without a final dot.

    A name whose last label is a number is none, but a mistyped IP address.
    """
    labels = text.split(".")
    return (
        len(text) <= 253
        and all(_LABEL.fullmatch(label) for label in labels)
        and not labels[-1].isdecimal()
    )
