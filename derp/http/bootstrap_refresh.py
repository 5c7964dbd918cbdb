"""The task that looks up the names of /bootstrap-dns, at once and every INTERVAL.

Addresses come from getaddrinfo, percentages from TXT records. A name that can't be looked up keeps
its last result, and a log line says why; but a TXT record that is missing, or has no percentage,
means 0 %.
"""

import random
import socket
from collections.abc import Awaitable, Callable, Sequence

import attrs
import dns.asyncbackend
import dns.asyncresolver
import dns.exception
import dns.resolver
import trio

from derp import log
from derp.http.bootstrap_dns import BootstrapDNS, Name, Record, parse_percent

logger = log.get("bootstrap-dns")

INTERVAL = 600.0
"""Seconds between two refreshes."""
TIMEOUT = 60.0
"""Seconds that a refresh may take."""
CONCURRENCY = 8
"""Names looked up concurrently."""


async def look_up_addresses(name: str) -> tuple[str, ...]:
    """Return the addresses of `name`. Raises OSError, and UnicodeError for an invalid name."""
    infos = await trio.socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(sockaddr[0]).partition("%")[0] for *_, sockaddr in infos))


async def look_up_txt(name: str, resolver: dns.asyncresolver.Resolver | None = None) -> list[str]:
    """Return the strings of the TXT records of `name`, if any.

    Raises dns.exception.DNSException where no server answers.
    """
    if resolver is None:
        # In a thread, since it reads /etc/resolv.conf.
        resolver = await trio.to_thread.run_sync(dns.asyncresolver.Resolver)
    backend = dns.asyncbackend.get_backend("trio")
    try:
        answer = await resolver.resolve(name, "TXT", backend=backend)
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
        return []
    return [b"".join(record.strings).decode("latin-1") for record in answer]


@attrs.define
class Refresher:
    """The state of the task `run`, which keeps `records` up to date."""

    records: BootstrapDNS
    published: Sequence[Name]
    unpublished: Sequence[Name]
    addresses: Callable[[str], Awaitable[tuple[str, ...]]] = look_up_addresses
    txt: Callable[[str], Awaitable[list[str]]] = look_up_txt

    async def run(self) -> None:
        """Refresh at once and every INTERVAL; return at once without names."""
        while self.published or self.unpublished:
            await self.refresh()
            await trio.sleep(INTERVAL)

    async def refresh(self) -> None:
        """Look all names up once, within TIMEOUT; each is served as soon as it is known."""
        limiter = trio.CapacityLimiter(CONCURRENCY)
        with trio.move_on_after(TIMEOUT) as scope:
            async with trio.open_nursery() as nursery:
                for name in self.published:
                    nursery.start_soon(self._update_published, name, limiter)
                for name in self.unpublished:
                    nursery.start_soon(self._update_unpublished, name, limiter)
        if scope.cancelled_caught:
            logger.warning("name look-ups took too long", seconds=TIMEOUT)

    async def _update_published(self, name: Name, limiter: trio.CapacityLimiter) -> None:
        async with limiter:
            addresses = await self._addresses_of(name.name)
        if addresses:
            self.records.publish(name.name, Record(addresses))

    async def _update_unpublished(self, name: Name, limiter: trio.CapacityLimiter) -> None:
        known = self.records.unpublished.get(name.name, Record((), 0.0))
        share = 1.0
        async with limiter:
            addresses = await self._addresses_of(name.name) or known.addresses
            if name.percent_name:
                share = await self._share_of(name.percent_name, known.share)
        self.records.add_unpublished(name.name, Record(addresses, share))

    async def _addresses_of(self, name: str) -> tuple[str, ...]:
        try:
            addresses = await self.addresses(name)
        except (OSError, UnicodeError) as error:
            logger.warning("name look-up failed", name=name, reason=str(error))
            return ()
        # Shuffled, since clients try the first address first.
        return tuple(random.sample(addresses, len(addresses)))

    async def _share_of(self, name: str, known: float) -> float:
        try:
            return parse_percent(await self.txt(name))
        except (OSError, dns.exception.DNSException) as error:
            logger.warning("percentage look-up failed", name=name, reason=str(error))
            return known
