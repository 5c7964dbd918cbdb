"""What all connections of one relay share. Only the event loop touches it; there are no locks."""

import hmac
import random
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, Protocol

import attrs
import trio
from nacl.public import PrivateKey

from derp import log
from derp.admission.model import Admission
from derp.files.ratelimit import NO_LIMIT, RateConfig
from derp.metrics import Metrics
from derp.net.poller import Poller
from derp.net.prelogin import PreLoginScheduler
from derp.net.tcp import RECEIVE_SIZE, TCPTransport
from derp.relay.hub import Hub
from derp.relay.pending import PendingConnections
from derp.relay.queuememory import QueueMemory
from derp.relay.timerwheel import TimerWheel
from derp.relay.tokenbucket import TokenBucket
from derp.wire.frames import FORWARD_OVERHEAD, MAX_PACKET_SIZE

if TYPE_CHECKING:
    from derp.session.client import Client
    from derp.session.sender import Sender

KEEP_ALIVE: Final = 40.0
"""Seconds between keep-alives, at least (Go: derp.KeepAlive, 60).

With jitter and the timers' own lateness a client hears from the relay every 47 s: before a proxy
ends a connection on which nothing moves. That is, by default, HAProxy as Debian sets it up after 50
s; nginx, Apache httpd and AWS's application load balancer after 60 s; Cloudflare after 100 s; load
balancers of Azure and AWS (network), Envoy, and NAT of providers after minutes; Caddy and Traefik
never. Not much sooner, as each keep-alive wakes the radio of a phone. Google's HTTP load balancers
end an upgraded connection after 30 s whatever moves on it.
"""
KEEP_ALIVE_JITTER: Final = 5.0
PRIVILEGED_WRITE_TIMEOUT: Final = 30.0
"""Seconds for which a mesh peer may take nothing (Go: privilegedWriteTimeout)."""
ROUND_TRIP_EVERY: Final = 10.0
"""Seconds between samples of a client's round-trip time (Go: startStatsLoop)."""
EVENT_LINES: Final = 2.0
"""Lines a second about clients that come and go, in the long run."""
EVENT_LINES_BURST: Final = 1000
"""Lines about them at once: all clients of most relays come at a restart."""

# A frame's tail, a full read, and what OpenSSL may hold of a record from before.
_BUFFER_SIZE: Final = FORWARD_OVERHEAD + MAX_PACKET_SIZE + RECEIVE_SIZE + (64 << 10)


class Forwarder(Protocol):
    """A link to another relay, as the packet path knows it."""

    def forward(
        self, run: memoryview, packets: int, payload: int, destination: bytes, *, disco: bool
    ) -> None:
        """Send or queue a run of `packets` RecvPacket frames for `destination`, which is there.

        `payload` is the number of bytes that are not frame headers or keys. The run lies in the
        shared read buffer. Never raises.
        """


class Sibling(Forwarder, Protocol):
    """A link to another worker of this relay."""

    @property
    def frames(self) -> Mapping[bytes, bytes]:
        """For each key that is connected there, the PeerPresent frame that tells of it."""

    def send_control(self, frame: bytes, *, must: bool = False) -> bool:
        """Send or queue a frame that is no packet; False where it had to be let go."""


def _client_events() -> log.ClientEvents:
    return log.ClientEvents(TokenBucket(EVENT_LINES, EVENT_LINES_BURST, 0.0).allow)


@attrs.define(eq=False)
class RelayState:
    """One relay: its key, who is connected, what is counted, and the buffer for reading.

    `buffer` belongs to whichever task runs, from the end of one await to the beginning of its
    next; nothing in it outlives that.
    """

    private_key: PrivateKey = attrs.field(repr=False)
    nursery: trio.Nursery = attrs.field(repr=False)
    """Owns the tasks that send what is queued."""
    write_timeout: float
    """Seconds for which a client may take nothing; 0 is for ever."""
    rate_limit: RateConfig = NO_LIMIT
    admission: Admission | None = attrs.field(default=None, repr=False)
    """Says who may log in; None where everybody may."""
    unasked: set[bytes] = attrs.field(init=False, factory=set, repr=False)
    """Keys that were admitted since nobody could be asked; some of them may have left."""
    metrics: Metrics = attrs.field(factory=Metrics)
    mesh_key: bytes | None = attrs.field(default=None, repr=False)
    """What mesh peers show to be trusted, 32 bytes; None where there are none."""
    memory: QueueMemory = attrs.field(factory=QueueMemory, repr=False)
    """Bounds all that waits for clients and links."""
    shared_clock: Callable[[], int] = attrs.field(default=time.monotonic_ns, repr=False)
    """Nanoseconds, by a clock that is the same for all workers."""
    sibling_key: bytes | None = attrs.field(init=False, default=None, repr=False)
    """What the workers of one relay show each other, 32 bytes; None where there is one worker."""
    pending: PendingConnections = attrs.field(factory=PendingConnections, repr=False)
    """The connections that have not logged in."""
    client_events: log.ClientEvents = attrs.field(init=False, factory=_client_events, repr=False)
    public_key: bytes = attrs.field(init=False)
    hub: "Hub[Client, Forwarder, Sibling]" = attrs.field(init=False, factory=Hub)
    keep_alives: "TimerWheel[Client]" = attrs.field(init=False, factory=TimerWheel)
    round_trips: "TimerWheel[Client]" = attrs.field(init=False, factory=TimerWheel)
    watchers: "dict[Client, None]" = attrs.field(init=False, factory=dict)
    """The mesh peers that are told who comes and goes."""
    siblings: dict[Sibling, None] = attrs.field(init=False, factory=dict)
    """The links to other workers."""
    sibling_watchers: "dict[Client, None]" = attrs.field(init=False, factory=dict)
    """The other workers' connections here, on which they are told who comes and goes here."""
    sending: "dict[Sender, None]" = attrs.field(init=False, factory=dict)
    """The peers with something queued, each with a task that sends it."""
    stopping: bool = attrs.field(init=False, default=False)
    """Whether the relay has been told to stop: then nobody is dialled, and all clients leave."""
    awaited: dict[trio.Event, bytes] = attrs.field(init=False, factory=dict, repr=False)
    """What waits for relays to which a link is lost, each with the other relay's key."""
    poller: Poller = attrs.field(init=False, factory=Poller, repr=False)
    prelogin: PreLoginScheduler = attrs.field(init=False, factory=PreLoginScheduler, repr=False)
    _sent: trio.Event = attrs.field(init=False, factory=trio.Event, repr=False)
    buffer: bytearray = attrs.field(init=False, repr=False)
    view: memoryview = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self.public_key = bytes(self.private_key.public_key)
        self.buffer = bytearray(_BUFFER_SIZE)
        self.view = memoryview(self.buffer)

    async def all_sent(self) -> None:
        """Wait until nothing is queued for any connection."""
        while self.sending:
            self._sent = trio.Event()
            await self._sent.wait()

    def be_worker(self, number: int, sibling_key: bytes) -> None:
        """Become one of several workers, before anybody is connected. No two have one number."""
        self.hub.worker = number
        self.sibling_key = sibling_key

    def is_worth_a_line(self, event: str, client: str, host: str) -> bool:
        """Return whether to log that a client has "joined" or "left"; else it is counted."""
        network = self.pending.network_of(host)
        return self.client_events.admit(event, client, network, trio.current_time())

    def is_mesh_key(self, shown: bytes | None) -> bool:
        """Whether a client has shown the mesh key (Go: isMeshPeer)."""
        return _is_same(self.mesh_key, shown)

    def is_sibling_key(self, shown: bytes | None) -> bool:
        """Whether another process has shown what only workers of this relay know."""
        return _is_same(self.sibling_key, shown)

    def claim_time(self) -> int:
        """Return what a key is claimed with from other workers; 0 where there are none."""
        return 0 if self.sibling_key is None else self.shared_clock()

    def is_back(self, key: bytes) -> None:
        """Note that another relay is up, and so can be dialled again: it has logged in here."""
        for event, awaited in self.awaited.items():
            if awaited == key:
                event.set()

    def sent(self, sender: "Sender") -> None:
        """Note that nothing is queued for a peer any more."""
        del self.sending[sender]
        self.poller.busy_tasks -= 1
        if not self.sending:
            self._sent.set()

    def bucket(self, now: float) -> TokenBucket | None:
        """Make a client's bucket for what it may send; None where there is no limit."""
        limit = self.rate_limit
        if not limit.bytes_per_second:
            return None
        return TokenBucket(limit.bytes_per_second, limit.burst, now)

    def set_rate_limit(self, limit: RateConfig) -> None:
        """Apply a new limit to every client, now (Go: UpdateRateLimits)."""
        self.rate_limit = limit
        now = trio.current_time()
        for connection in self.hub.members:
            connection.bucket = None if connection.can_mesh else self.bucket(now)

    def schedule(self, connection: "Client", now: float) -> None:
        """Make the first keep-alive and the first round-trip sample of a connection due."""
        self.schedule_keep_alive(connection, now)
        if isinstance(connection.transport, TCPTransport):
            self.round_trips.set(connection, now + ROUND_TRIP_EVERY)
        else:
            self.metrics.no_round_trip(tcp=False)

    def schedule_keep_alive(self, connection: "Client", now: float) -> None:
        """Make a connection's next keep-alive due."""
        jitter = random.uniform(0, KEEP_ALIVE_JITTER)  # noqa: S311 -- spreads load, hides nothing
        self.keep_alives.set(connection, now + KEEP_ALIVE + jitter)

    def unschedule(self, connection: "Client") -> None:
        """Forget a connection's timers."""
        self.keep_alives.discard(connection)
        self.round_trips.discard(connection)


def _is_same(secret: bytes | None, shown: bytes | None) -> bool:
    return secret is not None and shown is not None and hmac.compare_digest(secret, shown)
