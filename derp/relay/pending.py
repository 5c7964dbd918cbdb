"""Pending connections, which have not logged in: limits for each network, and for all together.

Before their login, strangers are told apart by their networks only (`derp.relay.networks`). Each
network has limits on:

    new connections a second     a token bucket, whose burst is that of BURST_SECONDS
    pending connections          above the limit, the oldest is evicted for the newest

and all together on memory: COST bytes for each connection, and what it has sent beyond SPARE; or
VERDICT_COST, and all that is buffered, for one that waits for a verdict.
Where that is used up, or the process has no descriptor left, one is evicted for a newcomer:

1. The oldest of the site (`derp.relay.sites`) that holds the most, if the site holds EVICTION_RATIO
   times what the newcomer's site would hold with the newcomer.
2. Else, where the newcomer's own site is among those that hold the most, its oldest,
3. or the oldest of all; either only if it is EVICTABLE_AFTER seconds old. A login takes less, so
   that many clients at once, as after a restart, don't evict each other.

Otherwise the newcomer is refused. A pending connection that needs more memory than there is, is
ended itself: no ordinary login needs more than COST.

So, to keep others out, an attacker needs as many sites as use up the memory with less than
EVICTION_RATIO * COST each (248 for MEMORY), and has to open all connections anew every
EVICTABLE_AFTER seconds.

LOOPBACK and proxies' networks have no limits of their own, as proxies connect from there for many
clients. Their connections count in the memory, of which LOOPBACK has a reserve, for health checks.
A connection of a proxy counts for the network of its client as soon as that is known.
"""

import math
from collections.abc import Callable, Sequence
from typing import Final

from derp.errors import ConnectionEnd, NoRoom, TooManyConnections, TooManyPending
from derp.relay.networks import LOOPBACK, PeerNetwork, is_in, network_of, site_of
from derp.relay.sites import Site, Sites
from derp.relay.tokenbucket import TokenBucket

MEMORY: Final = 128 << 20
"""Bytes that all pending connections may hold together."""
COST: Final = 64 << 10
"""Bytes that a connection counts for at first: its task, its TLS handshake, and SPARE."""
SPARE: Final = 16 << 10
"""Bytes that may be buffered from the peer at no further cost."""
VERDICT_COST: Final = 32 << 10
"""Bytes that a connection counts for while it waits for a verdict, besides all that is buffered:
its handshake and its login are done with. So a slow source leaves more room to those that have yet
to say who they are.
"""
RESERVE: Final = 32
"""The memory divided by this is reserved for LOOPBACK."""
EVICTION_RATIO: Final = 8
"""How many times as much as the newcomer's site another site holds when it has to give way."""
EVICTABLE_AFTER: Final = 2.0
"""Seconds from a connection's `since` until it may be evicted as the oldest."""
MAX_SCANNED: Final = 8
"""Connections looked at, at most, to find the oldest that waits for no verdict."""
BURST_SECONDS: Final = 2.0
"""The burst of a network: what its rate allows in so many seconds."""
MAX_IDLE: Final = 4096
"""Bound on the networks without a pending connection that are remembered, each until its bucket is
full again. Only an attacker with more networks can evade the rate."""


class Pending:
    """One connection until it has logged in or ended; afterwards it counts for nothing."""

    __slots__ = ("abort", "cancel", "connections", "end", "held", "limit", "network", "since")

    def __init__(self, connections: "PendingConnections", now: float, limit: int) -> None:
        self.connections: PendingConnections | None = connections
        self.network: _Network | None = None
        self.since = now
        """When it was accepted, or later for one that waits for a verdict (`begin_verdict`)."""
        self.limit = limit
        """Bound on the bytes of all pending connections when this one needs more."""
        self.held = COST
        self.end: ConnectionEnd | None = None
        """Why it was evicted or closed."""
        self.abort: Callable[[], None] | None = None
        """Closes the connection at once."""
        self.cancel: Callable[[], None] | None = None
        """Cancels the wait for a verdict."""

    def hold(self, size: int) -> None:
        """Count `size` bytes buffered from or for the peer. Raises NoRoom, and `end` if evicted."""
        if self.connections is not None:
            self.connections.hold(self, COST + max(0, size - SPARE))
        elif self.end is not None:
            raise self.end

    def identify(self, host: str, now: float) -> None:
        """Count a proxy's connection for the network of its client, as a new one there.

        Does nothing if it counts there already; a client that is a proxy, too, has no network.
        Raises TooManyConnections, TooManyPending and NoRoom, and `end` if it was evicted.
        """
        if self.connections is not None:
            self.connections.identify(self, host, now)
        if self.end is not None:
            raise self.end

    def begin_verdict(self, until: float, size: int) -> None:
        """Count the connection as accepted at `until`, so that others are evicted before it.

        `size`: the bytes that are buffered from or for the peer. Raises NoRoom.
        """
        if self.connections is not None:
            self.connections.make_newest(self, until)
            self.connections.hold(self, VERDICT_COST + size)

    def log_in(self) -> None:
        """Stop counting the connection: it has logged in. Raises `end` if it was evicted."""
        if self.end is not None:
            raise self.end
        self.done()

    def close(self, end: ConnectionEnd) -> None:
        """Close the connection, because of `end`, unless it has logged in or ended."""
        if self.connections is not None:
            self.connections.evict(self, end)

    def done(self) -> None:
        """Stop counting the connection. May be called more than once."""
        if self.connections is not None:
            self.connections.leave(self)
            self.connections = self.network = self.abort = self.cancel = None


def _oldest(connections: dict[Pending, None], now: float) -> Pending:
    """Return the first that waits for no verdict; after MAX_SCANNED, the last scanned."""
    for _ in range(MAX_SCANNED):
        oldest = next(iter(connections))
        if oldest.since <= now:
            break
        del connections[oldest]
        connections[oldest] = None
    return oldest


class _Network:
    """The pending connections of one network, and its rate."""

    __slots__ = ("bucket", "name", "pending", "site", "used")

    def __init__(self, name: str, bucket: TokenBucket | None) -> None:
        self.name = name
        self.bucket = bucket
        self.pending: dict[Pending, None] = {}
        """The oldest first."""
        self.site: Site[Pending] | None = None
        """None without a pending connection."""
        self.used = -math.inf
        """When the last connection came from it."""


class PendingConnections:
    """All pending connections of a process.

    `rate` (new connections a second) and `max_pending` are for each network; 0 is no limit. Times
    are in seconds of any monotonic clock.
    """

    def __init__(
        self,
        *,
        rate: float = 0,
        max_pending: int = 0,
        memory: int = MEMORY,
        proxies: Sequence[PeerNetwork] = (),
    ) -> None:
        self.held = 0
        """Bytes; never more than `memory`."""
        self._rate = rate
        self._burst = max(1.0, rate * BURST_SECONDS)
        # Seconds until an empty bucket is full again.
        self._refill_time = self._burst / rate if rate else 0.0
        self._max_pending = max_pending
        self._memory = memory
        # Bytes for all connections but those from LOOPBACK.
        self._room = memory - memory // RESERVE
        self._proxies = proxies
        self._pending: dict[Pending, None] = {}
        """The oldest first."""
        self._networks: dict[str, _Network] = {}
        self._sites: Sites[Pending] = Sites(memory)
        self._idle: dict[_Network, None] = {}
        """Networks without a pending connection, the longest idle first."""

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def is_nearly_full(self) -> bool:
        """Whether three quarters of the memory are used."""
        return 4 * self.held >= 3 * self._memory

    def network_of(self, host: str) -> str | None:
        """Return the network that an address counts for, if any."""
        if host in LOOPBACK or (self._proxies and is_in(host, self._proxies)):
            return None
        return network_of(host)

    def admit(self, host: str, now: float, *, no_descriptor: bool = False) -> Pending:
        """Admit a new connection, for which others may be evicted. The caller sets `abort`.

        `no_descriptor`: the process has none left for it. Raises TooManyConnections,
        TooManyPending and NoRoom; one may have been evicted even then, if two had to be.
        """
        network = self._network_at(host, now)
        if network is not None:
            no_descriptor = self._apply_limits(network, now) and no_descriptor
        room = self._memory if host in LOOPBACK else self._room
        most = max(room, self.held)
        if no_descriptor or self.held + COST > room:
            self._make_room(network, now)
        while self.held + COST > most:
            # One that waits for a verdict holds less than a newcomer.
            self._make_room(network, now)
        pending = Pending(self, now, room)
        self._pending[pending] = None
        self.held += COST
        if network is not None:
            self._enter(network, pending)
        return pending

    def identify(self, pending: Pending, host: str, now: float) -> None:
        """Count a proxy's connection for another network, or for none; see Pending."""
        if self._proxies and is_in(host, self._proxies):
            # a proxy before a proxy, or a request of the proxy's own
            self._leave_network(pending)
            pending.network = None
            return
        name = network_of(host)
        if pending.network is not None and pending.network.name == name:
            return
        network = self._network_named(name, now)
        self._apply_limits(network, now)
        self.make_newest(pending, now)
        # The reserve is for what comes from this machine itself.
        if pending.limit > self._room and self.held > self._room:
            self.evict(self._victim(network, now), NoRoom("it had to make room for others"))
        pending.limit = self._room
        self._leave_network(pending)
        self._enter(network, pending)

    def _network_at(self, host: str, now: float) -> _Network | None:
        name = self.network_of(host)
        return None if name is None else self._network_named(name, now)

    def _network_named(self, name: str, now: float) -> _Network:
        while self._idle and (oldest := next(iter(self._idle))).used + self._refill_time <= now:
            self._forget(oldest)
        network = self._networks.get(name)
        if network is None:
            bucket = TokenBucket(self._rate, self._burst, now) if self._rate else None
            network = self._networks[name] = _Network(name, bucket)
        network.used = now
        if not network.pending:
            self._idle_from_now(network)
        return network

    def _apply_limits(self, network: _Network, now: float) -> bool:
        """Apply a network's limits to a newcomer; return whether none was evicted for it."""
        if network.bucket is not None and not network.bucket.allow(now):
            raise TooManyConnections(
                f"more than {self._rate:g} new connections a second from {network.name}"
            )
        if not self._max_pending or len(network.pending) < self._max_pending:
            return True
        oldest = _oldest(network.pending, now)
        reason = f"{self._max_pending} connections from {network.name} have not logged in"
        if now - oldest.since < EVICTABLE_AFTER:
            raise TooManyPending(reason)
        self.evict(oldest, TooManyPending(f"{reason}, and this was the oldest"))
        return False

    def hold(self, pending: Pending, held: int) -> None:
        """Count `held` bytes for a connection from now on. Raises NoRoom."""
        change = held - pending.held
        if change > 0 and self.held + change > pending.limit:
            raise NoRoom("there is no more memory for connections that have not logged in")
        pending.held = held
        self.held += change
        network = pending.network
        if network is not None and network.site is not None:
            self._sites.count(network.site, change)

    def make_newest(self, pending: Pending, since: float) -> None:
        """Make a connection the newest, as if accepted at `since`."""
        pending.since = since
        network = pending.network
        by_age = [self._pending]
        if network is not None and network.site is not None:
            by_age += [network.pending, network.site.pending]
        for connections in by_age:
            del connections[pending]
            connections[pending] = None

    def leave(self, pending: Pending) -> None:
        """Stop counting a connection. Call it once."""
        del self._pending[pending]
        self.held -= pending.held
        self._leave_network(pending)

    def _make_room(self, network: _Network | None, now: float) -> None:
        """Evict a connection for a newcomer from `network`. Raises NoRoom."""
        self.evict(self._victim(network, now), NoRoom("it had to make room for others"))

    def _victim(self, network: _Network | None, now: float) -> Pending:
        """Return the connection to evict for a newcomer from `network`. Raises NoRoom."""
        site = None if network is None else self._sites.get(site_of(network.name))
        own = 0 if site is None else site.held
        largest = self._sites.largest()
        other = next(iter(largest), None)
        if other is not None and other.held >= EVICTION_RATIO * (own + COST):
            return next(iter(other.pending))
        candidates = site.pending if site is not None and site in largest else self._pending
        oldest = _oldest(candidates, now) if candidates else None
        if oldest is None or now - oldest.since < EVICTABLE_AFTER:
            raise NoRoom("there is no room for another connection that has not logged in")
        return oldest

    def evict(self, pending: Pending, end: ConnectionEnd) -> None:
        """Close a connection, because of `end`. Call it once."""
        pending.end = end
        abort, cancel = pending.abort, pending.cancel
        pending.done()
        for act in (abort, cancel):
            if act is not None:
                act()

    def _enter(self, network: _Network, pending: Pending) -> None:
        self._idle.pop(network, None)
        if network.site is None:
            network.site = self._sites.enter(site_of(network.name))
        network.pending[pending] = network.site.pending[pending] = None
        pending.network = network
        self._sites.count(network.site, pending.held)

    def _leave_network(self, pending: Pending) -> None:
        network = pending.network
        if network is not None and network.site is not None:
            self._sites.count(network.site, -pending.held)
            del network.pending[pending], network.site.pending[pending]
            if not network.pending:
                network.site = None
                self._idle_from_now(network)

    def _idle_from_now(self, network: _Network) -> None:
        """Remember a network without a pending connection until its bucket is full again."""
        self._idle.pop(network, None)
        self._idle[network] = None
        if len(self._idle) > MAX_IDLE:
            self._forget(next(iter(self._idle)))

    def _forget(self, network: _Network) -> None:
        del self._idle[network]
        del self._networks[network.name]
