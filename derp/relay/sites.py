"""The sites (`networks.site_of`) of pending connections, and which sites hold the most memory."""

from collections.abc import Mapping
from typing import Generic, TypeVar

C = TypeVar("C")


class Site(Generic[C]):
    """The pending connections of one site, and the bytes that they hold together."""

    __slots__ = ("held", "name", "pending")

    def __init__(self, name: str) -> None:
        self.name = name
        self.held = 0
        self.pending: dict[C, None] = {}
        """The oldest first."""


class Sites(Generic[C]):
    """The sites that have pending connections, which hold at most `memory` bytes together."""

    def __init__(self, memory: int) -> None:
        self._sites: dict[str, Site[C]] = {}
        # By the bit length of `held`: the largest are known to within a factor of two.
        self._by_size: list[dict[Site[C], None]] = [{} for _ in range(memory.bit_length() + 1)]

    def get(self, name: str) -> Site[C] | None:
        """Return the site with this name, if it has pending connections."""
        return self._sites.get(name)

    def enter(self, name: str) -> Site[C]:
        """Return the site with this name, made if there is none; the caller adds a connection."""
        if (site := self._sites.get(name)) is None:
            site = self._sites[name] = Site(name)
        return site

    def count(self, site: Site[C], change: int) -> None:
        """Add `change` to the bytes that a site holds; forget it if it holds none."""
        before = site.held.bit_length()
        site.held += change
        after = site.held.bit_length()
        if before != after:
            self._by_size[before].pop(site, None)
            if after:
                self._by_size[after][site] = None
            else:
                del self._sites[site.name]

    def largest(self) -> Mapping[Site[C], None]:
        """Return the sites that hold the most, all of about the same size; empty if none does."""
        return next((sites for sites in reversed(self._by_size) if sites), {})
