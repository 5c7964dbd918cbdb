"""The options of DNS challenges."""

from pathlib import Path
from typing import Final

import attrs

RFC2136: Final = "rfc2136"
"""The provider that takes dynamic updates; all others are dns-lexicon's."""
DNS_PORT: Final = 53
REMOVE_TIMEOUT: Final = 60.0
"""Seconds to remove all records of an order."""


@attrs.frozen
class Resolver:
    """A recursive name server."""

    host: str
    """An IP address."""
    port: int = DNS_PORT


@attrs.frozen(kw_only=True)
class DNSOptions:
    """The options of one relay: a provider, or a program, that sets records."""

    provider: str = ""
    """RFC2136, or a provider of dns-lexicon's; "" with a program."""
    program: Path | None = None
    cleanup_program: Path | None = None
    """The program that removes records; None if that is `program`."""
    credentials: Path | None = None
    """A file with variables; None if all are in the environment."""
    resolvers: tuple[Resolver, ...] = ()
    """Empty for those of /etc/resolv.conf."""
    wait: float
    """Seconds for all records of an order, from the first call until all name servers show them."""

    @property
    def longest(self) -> float:
        """The seconds that an order's records take at most, with those of an earlier order."""
        return self.wait + 2 * REMOVE_TIMEOUT

    @property
    def name(self) -> str:
        """The flag and its value, for messages."""
        return f"-acme-dns {self.provider}" if self.provider else f"-acme-dns-exec {self.program}"
