"""All that a configuration listens on. Sans-I/O."""

from collections.abc import Iterable, Mapping, Sequence

import attrs

from derp.config.addresses import check_apart
from derp.config.field import ConfigError
from derp.net.listenaddress import (
    Address,
    ListenAddress,
    UnixSocket,
    overlap,
    without_overlaps,
)


def at_port(addresses: Iterable[Address], port: int) -> list[Address]:
    """Return the hosts of `addresses` with another port, without those that others include."""
    return without_overlaps(attrs.evolve(address, port=port) for address in addresses)


def check(stream: Mapping[str, Sequence[ListenAddress]], stun_addresses: Sequence[Address]) -> None:
    """Check that no two listeners want the same port or path. Raises ConfigError.

    `stream` has the addresses of TCP and the unix sockets, by the names of the flags. Those of one
    flag don't overlap.
    """
    taken: dict[str, Sequence[ListenAddress]] = {}
    for flag, addresses in stream.items():
        for address in addresses:
            for other, theirs in taken.items():
                if any(overlap(address, each) for each in theirs):
                    what = "path" if isinstance(address, UnixSocket) else "port"
                    rest = ", or -1 for none" if flag == "http-port" else ""
                    want = f"the {what} of -{other}; want another one{rest}"
                    raise ConfigError(flag, address, want)
        taken[flag] = addresses
    try:
        check_apart(stun_addresses)
    except ValueError as error:
        raise ConfigError("stun-addr", ", ".join(map(str, stun_addresses)), str(error)) from error
