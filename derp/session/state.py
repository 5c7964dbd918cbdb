"""The state that all connections of a process share, used by the event loop only."""

import hmac
import time
from collections.abc import Callable
from typing import Final

import attrs
import trio
from nacl.public import PrivateKey

from derp import log
from derp.accounts.keeper import Accounts
from derp.admission.model import Admission
from derp.admission.refusals import Refusals
from derp.files.ratelimit import NO_LIMIT, RateConfig
from derp.metrics import Metrics
from derp.net.poller import Poller
from derp.net.prelogin import PreLoginScheduler
from derp.net.tcp import RECEIVE_SIZE
from derp.policy.model import EMPTY, Policy, Usage
from derp.relay.groups import NO_GROUP, tag_of
from derp.relay.hub import Hub
from derp.relay.pending import PendingConnections
from derp.relay.queuememory import QueueMemory
from derp.relay.tokenbucket import TokenBucket
from derp.session.client import Client, ClientHub, WorkerForwarder
from derp.session.presence import Presence
from derp.session.reachable import Reachable
from derp.session.sender import SendTasks
from derp.session.timers import Timers
from derp.wire.frames import FORWARD_OVERHEAD, MAX_PACKET_SIZE

EVENT_LINES: Final = 2.0
"""Log lines a second about clients that joined or left, in the long run."""
EVENT_LINES_BURST: Final = 1000
"""Such log lines in a burst: after a restart, all clients come at once."""

# A partial frame, a full read, and what OpenSSL may hold of an earlier record.
_BUFFER_SIZE: Final = FORWARD_OVERHEAD + MAX_PACKET_SIZE + RECEIVE_SIZE + (64 << 10)


@attrs.define(eq=False)
class RelayState:
    """The state of one relay, or of one of its workers: keys, clients, metrics.

    `buffer` is the shared read buffer, and `view` a view of it. The buffer belongs to the running
    task until its next await; then others may overwrite it.
    """

    private_key: PrivateKey = attrs.field(repr=False)
    nursery: trio.Nursery = attrs.field(repr=False, on_setattr=attrs.setters.frozen)
    """Owns the send tasks."""
    write_timeout: float = attrs.field(on_setattr=attrs.setters.frozen)
    """Seconds for which a client may take no byte; 0 is for ever."""
    rate_limit: RateConfig = NO_LIMIT
    """That of -rate-config, for all keys of which the policy sets none."""
    policy: Policy = attrs.field(default=EMPTY, repr=False)
    usage: Usage | None = attrs.field(default=None, repr=False)
    """Counts the bytes of each key; without it, no quota of the policy holds."""
    isolate: bool = False
    """Whether clients of different groups can't reach each other."""
    tell_refused: bool = False
    """Whether clients that are refused are told why."""
    admission: Admission | None = attrs.field(default=None, repr=False)
    """Decides which clients may log in; None where all may."""
    metrics: Metrics = attrs.field(factory=Metrics, on_setattr=attrs.setters.frozen)
    accounts: Accounts | None = attrs.field(default=None, repr=False)
    """What each key moves, by day; None where nothing is counted."""
    mesh_key: bytes | None = attrs.field(default=None, repr=False)
    """The 32 bytes that mesh peers show; None without a mesh."""
    memory: QueueMemory = attrs.field(
        factory=QueueMemory, repr=False, on_setattr=attrs.setters.frozen
    )
    on_leave: Callable[[Client], None] | None = attrs.field(default=None, repr=False)
    """Called as a client leaves, before its connection is closed; None for nothing to be done."""
    pending: PendingConnections = attrs.field(factory=PendingConnections, repr=False)
    shared_clock: Callable[[], int] = attrs.field(default=time.monotonic_ns, repr=False)
    """Returns nanoseconds of a clock that all workers share."""
    worker_key: bytes | None = attrs.field(init=False, default=None, repr=False)
    """The 32 bytes that the workers of one relay show each other; None without other workers."""
    stopping: bool = attrs.field(init=False, default=False)
    """Whether the relay is stopping: then it dials no other relay, and ends all clients."""
    cloned: set[bytes] = attrs.field(init=False, factory=set, repr=False)
    """Keys that are connected from two addresses at once, when last looked at."""
    refusals: Refusals = attrs.field(init=False, factory=Refusals, repr=False)
    """The keys that this process has refused last."""
    unverified: set[bytes] = attrs.field(init=False, factory=set, repr=False)
    """Keys admitted while the sources couldn't be asked, of clients that may have left."""
    public_key: bytes = attrs.field(init=False)
    hub: ClientHub = attrs.field(init=False, factory=Hub)
    worker_links: dict[WorkerForwarder, None] = attrs.field(init=False, factory=dict)
    """The links to the other workers, while they are up."""
    poller: Poller = attrs.field(factory=Poller, repr=False, on_setattr=attrs.setters.frozen)
    prelogin: PreLoginScheduler = attrs.field(init=False, factory=PreLoginScheduler, repr=False)
    reachable: Reachable = attrs.field(init=False, factory=Reachable, repr=False)
    client_events: log.ClientEvents = attrs.field(init=False, repr=False)
    send_tasks: SendTasks = attrs.field(init=False, repr=False)
    timers: Timers = attrs.field(init=False, repr=False)
    presence: Presence = attrs.field(init=False, repr=False)
    buffer: bytearray = attrs.field(init=False, repr=False)
    view: memoryview = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self.public_key = bytes(self.private_key.public_key)
        if self.isolate:
            self.metrics.show_isolated()
        self.send_tasks = SendTasks(
            self.nursery, self.poller, self.memory, self.metrics, self.write_timeout
        )
        self.timers = Timers(self.send_tasks)
        self.presence = Presence(self.hub, self.metrics)
        event_lines = TokenBucket(EVENT_LINES, EVENT_LINES_BURST, 0.0)
        self.client_events = log.ClientEvents(event_lines.allow)
        self.buffer = bytearray(_BUFFER_SIZE)
        self.view = memoryview(self.buffer)

    def become_worker(self, number: int, worker_key: bytes) -> None:
        """Become worker `number` of several. Call it before any client is connected."""
        self.hub.worker = number
        self.worker_key = worker_key

    def is_mesh_key(self, shown: bytes | None) -> bool:
        """Return whether a client has shown the mesh key (Go: isMeshPeer)."""
        return _is_same(self.mesh_key, shown)

    def is_worker_key(self, shown: bytes | None) -> bool:
        """Return whether a peer has shown the worker key."""
        return _is_same(self.worker_key, shown)

    def claim_time(self) -> int:
        """Return the time for a claim to a key; 0 where there are no other workers."""
        return 0 if self.worker_key is None else self.shared_clock()

    def group_of(self, key: bytes, source: str) -> bytes:
        """Return the tag of the group of a client that `source` admits; NO_GROUP if there are none.

        The policy may put it into another group than that of the source.
        """
        return tag_of(self.policy.of(key).group or source) if self.isolate else NO_GROUP

    def limit_of(self, key: bytes) -> RateConfig:
        """Return the rate limit of a key: the policy's, or else that of -rate-config."""
        return self.policy.of(key).limit_for(key, self.usage, self.rate_limit)

    def make_bucket(self, key: bytes, now: float) -> TokenBucket | None:
        """Make the bucket that limits what a client with `key` sends; None for no limit."""
        limit = self.limit_of(key)
        if not limit.bytes_per_second:
            return None
        return TokenBucket(limit.bytes_per_second, limit.burst, now)

    def should_log(self, event: str, client: str, host: str) -> bool:
        """Return whether to log that a client has "joined" or "left"; if not, count it."""
        network = self.pending.network_of(host)
        return self.client_events.should_log(event, client, network, trio.current_time())


def _is_same(secret: bytes | None, shown: bytes | None) -> bool:
    return secret is not None and shown is not None and hmac.compare_digest(secret, shown)
