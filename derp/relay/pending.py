"""Pending connections, which have not logged in: what a network may have, and all of them together.

Until its login nobody knows who a peer is, and all that sets strangers apart is the network that
they come from (`derp.relay.networks`). Of each, these are limited:

    new connections a second     a token bucket of BURST_SECONDS
    pending connections          above it, the newest takes the place of the oldest

and of all together the memory: COST bytes for each connection, and what it has sent beyond SPARE.
Where that is used up, or the process has no descriptor left, somebody has to go for a newcomer:

1. The oldest of the site that holds the most, if that is HOARD times as much as the newcomer's
   site would hold with it. A site is a /48 of IPv6, as who has one /64 often has others; of IPv4
   it is the network.
2. Else, where the newcomer's own site is one of those that hold the most, its oldest,
3. or the oldest of all; either only if it has had GRACE seconds. A login takes less, so that many
   who come at once, as after a restart, don't drive each other out.

Otherwise the newcomer is refused. A connection that is in and wants more memory than there is, is
ended itself: no ordinary login needs more than it was given at first.

So whoever has few sites never keeps out those of others. It takes so many that each need not hold
HOARD connections for there to be no room (248, where MEMORY is the limit), and that all of their
connections are made anew every GRACE seconds.

LOOPBACK and networks that are trusted have no limits of their own, as many clients come from there
by a proxy. Their connections count for the memory, of which a part is left for LOOPBACK: so a
health check has an answer even then.
"""

import math
from collections.abc import Callable, Sequence
from typing import Final

from derp.errors import ConnectionEnd, NoRoom, TooManyConnections, TooManyPending
from derp.relay.networks import LOOPBACK, Network, is_in, network_of, site_of
from derp.relay.tokenbucket import TokenBucket

MEMORY: Final = 128 << 20
"""Bytes that all pending connections may hold together."""
COST: Final = 64 << 10
"""Bytes that a connection counts for at first: what its task and its TLS take while they shake
hands, and SPARE."""
SPARE: Final = 16 << 10
"""Bytes that a peer may have sent, and that are kept for it, without its counting for more."""
RESERVE: Final = 32
"""One part in so many of the memory is for LOOPBACK alone."""
EVICTION_RATIO: Final = 8
GRACE: Final = 2.0
MAX_SCANNED: Final = 8
BURST_SECONDS: Final = 2.0
MAX_IDLE: Final = 4096
"""Networks without a pending connection that are remembered, the latest ones; each only until its
bucket is full again. To be forgotten early is no way round the rate for whoever has fewer."""


class Pending:
    """One connection until it has logged in or ended, and then no more than a mark."""

    __slots__ = ("abort", "cancel", "connections", "end", "held", "network", "room", "since")

    def __init__(
        self, connections: "PendingConnections", network: "_Network | None", now: float, room: int
    ) -> None:
        self.connections: PendingConnections | None = connections
        self.network = network
        self.since = now
        """When it came, or has shown its key."""
        self.room = room
        """Bytes that all may hold together for it to get more."""
        self.held = COST
        self.end: ConnectionEnd | None = None
        """Why it was ended for others."""
        self.abort: Callable[[], None] | None = None
        """Closes the connection at once."""
        self.cancel: Callable[[], None] | None = None
        """Ends a wait for something else than the connection."""

    def hold(self, size: int) -> None:
        """Note that `size` bytes from or for the peer are kept by now.

        Raises NoRoom where that is too much, and what has ended the connection if it has been.
        """
        if self.connections is not None:
            self.connections.hold(self, COST + max(0, size - SPARE))
        elif self.end is not None:
            raise self.end

    def wait_for_verdict(self, until: float) -> None:
        """Note that the peer has shown its key, and waits: until then it is no old one."""
        if self.connections is not None:
            self.connections.renew(self, until)

    def log_in(self) -> None:
        """Note that the peer has logged in. Raises what has ended the connection if it has been."""
        if self.end is not None:
            raise self.end
        self.done()

    def done(self) -> None:
        """Count no longer. May be called more than once."""
        if self.connections is not None:
            self.connections.leave(self)
            self.connections = self.network = self.abort = self.cancel = None


def _oldest(connections: dict[Pending, None], now: float) -> Pending:
    """Return the first that does not wait for a verdict, if there is one among the first few."""
    for _ in range(MAX_SCANNED):
        oldest = next(iter(connections))
        if oldest.since <= now:
            break
        del connections[oldest]
        connections[oldest] = None
    return oldest


class _Site:
    """What one site holds."""

    __slots__ = ("held", "name", "pending")

    def __init__(self, name: str) -> None:
        self.name = name
        self.held = 0
        self.pending: dict[Pending, None] = {}
        """The oldest first."""


class _Network:
    """What one network has."""

    __slots__ = ("bucket", "name", "pending", "site", "used")

    def __init__(self, name: str, bucket: TokenBucket | None) -> None:
        self.name = name
        self.bucket = bucket
        self.pending: dict[Pending, None] = {}
        """The oldest first."""
        self.site: _Site | None = None
        """As long as it has something pending."""
        self.used = -math.inf


class PendingConnections:
    """All pending connections of a process.

    `rate` is the number of new connections a second that a network may make, `most` of pending
    ones that it may have; 0 is no limit. Times are in seconds of any monotonic clock.
    """

    def __init__(
        self,
        *,
        rate: float = 0,
        most: int = 0,
        memory: int = MEMORY,
        trusted: Sequence[Network] = (),
    ) -> None:
        self.held = 0
        """Bytes; never more than `memory`."""
        self._rate = rate
        self._burst = max(1.0, rate * BURST_SECONDS)
        # Seconds until a bucket is full again.
        self._refill = self._burst / rate if rate else 0.0
        self._most = most
        self._memory = memory
        self._room = memory - memory // RESERVE
        self._trusted = trusted
        self._pending: dict[Pending, None] = {}
        """The oldest first."""
        self._networks: dict[str, _Network] = {}
        self._sites: dict[str, _Site] = {}
        self._idle: dict[_Network, None] = {}
        """Those without a pending connection, the longest idle first."""
        # By the bit length of the bytes they hold: so whoever holds about the most is found
        # without a look at all.
        self._by_size: list[dict[_Site, None]] = [{} for _ in range(memory.bit_length() + 1)]

    def __len__(self) -> int:
        return len(self._pending)

    def network_of(self, host: str) -> str | None:
        """Name the network that an address counts for; None where it counts for none."""
        if host in LOOPBACK or (self._trusted and is_in(host, self._trusted)):
            return None
        return network_of(host)

    def admit(self, host: str, now: float, *, full: bool = False) -> Pending:
        """Admit a new connection; another one may be ended for it. The caller sets `abort`.

        `full` is where the process has no room for it unless another one goes. Raises
        TooManyConnections, TooManyPending and NoRoom.
        """
        network = self._find(host, now)
        if network is not None:
            full = self._limit(network, now) and full
        room = self._memory if host in LOOPBACK else self._room
        if full or self.held + COST > room:
            self._evict(self._victim(network, now), NoRoom("it had to make room for others"))
        pending = Pending(self, network, now, room)
        self._pending[pending] = None
        if network is not None:
            self._enter(pending, network)
        self._count(network, COST)
        return pending

    def _enter(self, pending: Pending, network: _Network) -> None:
        self._idle.pop(network, None)
        if network.site is None:
            name = site_of(network.name)
            network.site = self._sites.get(name)
            if network.site is None:
                network.site = self._sites[name] = _Site(name)
        network.pending[pending] = network.site.pending[pending] = None

    def _find(self, host: str, now: float) -> _Network | None:
        while self._idle and (oldest := next(iter(self._idle))).used + self._refill <= now:
            self._forget(oldest)
        name = self.network_of(host)
        if name is None:
            return None
        network = self._networks.get(name)
        if network is None:
            bucket = TokenBucket(self._rate, self._burst, now) if self._rate else None
            network = self._networks[name] = _Network(name, bucket)
        network.used = now
        if not network.pending:
            self._rest(network)
        return network

    def _limit(self, network: _Network, now: float) -> bool:
        """Apply the limits of one network; return whether nobody was ended for it."""
        if network.bucket is not None and not network.bucket.allow(now):
            raise TooManyConnections(
                f"more than {self._rate:g} new connections a second from {network.name}"
            )
        if not self._most or len(network.pending) < self._most:
            return True
        oldest = _oldest(network.pending, now)
        reason = f"{self._most} connections from {network.name} have not logged in"
        if now - oldest.since < GRACE:
            raise TooManyPending(reason)
        self._evict(oldest, TooManyPending(f"{reason}, and this was the oldest"))
        return False

    def hold(self, pending: Pending, held: int) -> None:
        """Count so many bytes for a connection from now on. Raises NoRoom."""
        change = held - pending.held
        if change > 0 and self.held + change > pending.room:
            raise NoRoom("there is no more memory for connections that have not logged in")
        pending.held = held
        self._count(pending.network, change)

    def renew(self, pending: Pending, since: float) -> None:
        """Take a connection for the newest, which came at `since`."""
        pending.since = since
        network = pending.network
        known = [self._pending]
        if network is not None and network.site is not None:
            known += [network.pending, network.site.pending]
        for connections in known:
            del connections[pending]
            connections[pending] = None

    def leave(self, pending: Pending) -> None:
        """Count a connection no longer; to be called once."""
        network = pending.network
        del self._pending[pending]
        self._count(network, -pending.held)
        if network is not None and network.site is not None:
            del network.pending[pending], network.site.pending[pending]
            if not network.site.pending:
                del self._sites[network.site.name]
            if not network.pending:
                network.site = None
                self._rest(network)

    def _victim(self, network: _Network | None, now: float) -> Pending:
        """Return who is to go for a newcomer from `network`. Raises NoRoom."""
        site = None if network is None else self._sites.get(site_of(network.name))
        mine = 0 if site is None else site.held
        largest = next((sites for sites in reversed(self._by_size) if sites), {})
        hoarder = next(iter(largest), None)
        if hoarder is not None and hoarder.held >= EVICTION_RATIO * (mine + COST):
            return next(iter(hoarder.pending))
        among = site.pending if site is not None and site in largest else self._pending
        oldest = _oldest(among, now) if among else None
        if oldest is None or now - oldest.since < GRACE:
            raise NoRoom("there is no room for another connection that has not logged in")
        return oldest

    def _evict(self, pending: Pending, end: ConnectionEnd) -> None:
        pending.end = end
        abort, cancel = pending.abort, pending.cancel
        pending.done()
        for act in (abort, cancel):
            if act is not None:
                act()

    def _count(self, network: _Network | None, change: int) -> None:
        self.held += change
        if network is None or (site := network.site) is None:
            return
        before = site.held.bit_length()
        site.held += change
        after = site.held.bit_length()
        if before != after:
            self._by_size[before].pop(site, None)
            if site.held:
                self._by_size[after][site] = None

    def _rest(self, network: _Network) -> None:
        """Remember a network without a pending connection until its bucket is full again."""
        self._idle.pop(network, None)
        self._idle[network] = None
        if len(self._idle) > MAX_IDLE:
            self._forget(next(iter(self._idle)))

    def _forget(self, network: _Network) -> None:
        del self._idle[network]
        del self._networks[network.name]
