"""The numbers that the tasks of one server count up.

Each is a plain attribute, so that the hot path pays for an addition and nothing else:
`metrics.packets_received += n`. The names are the Go derper's (derpserver.Server.ExpVar)
without their `derp_`, and `varz` puts them on its page under those.
"""

import enum
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import attrs

from derp.errors import ConnectionEnd

QUEUE_TIME_WEIGHT: Final = 0.1
"""What the newest packet weighs in average_queue_duration_ms."""

ORDERLY_END: Final = "closed"
"""The label of connections that the peer closed as the protocol has it."""

_TLS_LABELS: Final = {"TLSv1": "1.0", "TLSv1.1": "1.1", "TLSv1.2": "1.2", "TLSv1.3": "1.3"}

_RTT_LABELS: Final = (
    (0.010, "10ms"),
    (0.020, "20ms"),
    (0.050, "50ms"),
    (0.100, "100ms"),
    (0.150, "150ms"),
    (0.250, "250ms"),
    (0.500, "500ms"),
)


class DropReason(enum.Enum):
    """Why a packet was not delivered; the values are the Go derper's labels."""

    UNKNOWN_DEST = "unknown_dest"
    """No client has the destination key."""
    UNKNOWN_DEST_ON_FWD = "unknown_dest_on_fwd"
    """A mesh peer forwarded it here, and no client has the destination key."""
    GONE_DISCONNECTED = "gone_disconnected"
    """The destination left while the packet waited for it."""
    QUEUE_HEAD = "queue_head"
    """The destination's queue was full, and this was its oldest packet."""
    QUEUE_TAIL = "queue_tail"
    """The destination's queue was full, and this packet found no room."""
    WRITE_ERROR = "write_error"
    """Writing to the destination failed."""
    DUP_CLIENT = "dup_client"
    """The key is connected more than once, and none of its connections may receive."""


class Histogram:
    """How often each whole number was observed.

    Counts are kept by the number itself and are put into buckets only when rendered. Where a
    call is too dear, the two lines of `observe` may stand in its place.
    """

    __slots__ = ("bounds", "counts", "limit", "sum")

    def __init__(self, *bounds: int) -> None:
        self.bounds = bounds
        self.limit = bounds[-1]
        self.counts = [0] * (self.limit + 2)
        self.sum = 0

    def observe(self, value: int) -> None:
        """Count `value`, at least 0; the last cell is for all that exceed the last bound."""
        self.counts[value if value <= self.limit else -1] += 1
        self.sum += value

    def cumulative(self) -> list[tuple[str, int]]:
        """Return the buckets as Prometheus has them: (upper bound, observations up to it)."""
        buckets = [(str(bound), sum(self.counts[: bound + 1])) for bound in self.bounds]
        return [*buckets, ("+Inf", sum(self.counts))]


def _no_drops() -> dict[tuple[DropReason, bool], int]:
    return {(reason, disco): 0 for reason in DropReason for disco in (True, False)}


def _no_ends() -> dict[str, int]:
    return dict.fromkeys((ORDERLY_END, *(end.reason for end in ConnectionEnd.__subclasses__())), 0)


def _frames_per_flush() -> Histogram:
    return Histogram(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 20, 25, 50, 100)


def _peers_per_batch() -> Histogram:
    return Histogram(0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


def _batches_per_update() -> Histogram:
    return Histogram(0, 1, 2, 5, 10, 20, 50, 100)


@attrs.define(eq=False, kw_only=True)
class Metrics:
    """All counters of one server, at zero when made. Bytes are those of packets' payloads."""

    packets_received: int = 0
    bytes_received: int = 0
    packets_received_disco: int = 0
    packets_received_other: int = 0
    packets_sent: int = 0
    bytes_sent: int = 0
    packets_forwarded_in: int = 0
    packets_forwarded_out: int = 0
    buffered_write_frames: Histogram = attrs.field(factory=_frames_per_flush)
    """Frames handed to the kernel at once."""
    average_queue_duration_ms: float = 0.0
    """A moving average over delivered packets; see `queued`."""

    peer_gone_disconnected_frames: int = 0
    peer_gone_not_here_frames: int = 0
    got_ping: int = 0
    sent_pong: int = 0
    unknown_frames: int = 0
    home_moves_in: int = 0
    """Clients that made this server their home, other than right after login."""
    home_moves_out: int = 0
    rate_limit_per_client_waited: int = 0
    """How often a client's reader was paused by its rate limit."""

    accepts: int = 0
    """DERP connections, counted before login; also the number of the newest one."""
    websocket_accepts: int = 0
    current_connections: int = 0
    current_home_connections: int = 0
    current_notideal_connections: int = 0
    """Clients that said they would rather be on another node of the region."""
    sclient_write_timeouts: int = 0

    pending_connections: int = 0
    """Connections that have not logged in, and the bytes that they count for."""
    pending_bytes: int = 0

    mesh_update_batch_size: Histogram = attrs.field(factory=_peers_per_batch)
    """Peer changes that were told to a mesh peer at once."""
    mesh_update_loop_count: Histogram = attrs.field(factory=_batches_per_update)
    """Batches that one update of a mesh peer took."""
    multiforwarder_created: int = 0
    """Keys that came to be reachable through a second mesh peer."""
    multiforwarder_deleted: int = 0
    packet_forwarder_delete_other_value: int = 0
    """Forwarders taken back by a mesh peer that was not the one in use."""

    tls_accepted_connections: int = 0
    tls_rejected_connections: int = 0
    """Connections closed at once because the accept limit was reached."""
    tls_requests: dict[str, int] = attrs.field(init=False, factory=dict)
    """HTTP requests over TLS, by TLS version ("1.3")."""
    tls_active: dict[str, int] = attrs.field(init=False, factory=dict)
    """Those of `tls_requests` that are not over yet; a DERP connection is one."""

    tcp_rtt: dict[str, int] = attrs.field(init=False, factory=dict)
    """Round-trip times of clients' connections by label; see `round_trip`."""
    packets_dropped: dict[tuple[DropReason, bool], int] = attrs.field(init=False, factory=_no_drops)
    """By reason and whether they were disco packets."""
    bytes_dropped: dict[tuple[DropReason, bool], int] = attrs.field(init=False, factory=_no_drops)
    connection_ends: dict[str, int] = attrs.field(init=False, factory=_no_ends)
    """By the `reason` of a ConnectionEnd, or ORDERLY_END."""
    admissions: dict[tuple[str, str], int] = attrs.field(init=False, factory=dict)
    """Answers to whether a client belongs, by source and outcome."""
    admission_verdicts: dict[str, int] = attrs.field(init=False, factory=dict)
    """What came of logins where clients are checked."""

    def drop(self, reason: DropReason, disco: bool, packets: int, nbytes: int) -> None:
        """Count packets that will not be delivered."""
        key = (reason, disco)
        self.packets_dropped[key] += packets
        self.bytes_dropped[key] += nbytes

    def mesh_updates(self, changes: int) -> None:
        """Count changes of who is connected that a mesh peer is told at once."""
        self.mesh_update_batch_size.observe(changes)
        self.mesh_update_loop_count.observe(1)

    def queued(self, milliseconds: float, packets: int = 1) -> None:
        """Count how long packets waited in their destination's queue (Go: recordQueueTime)."""
        before = self.average_queue_duration_ms
        kept = (1 - QUEUE_TIME_WEIGHT) ** packets
        self.average_queue_duration_ms = milliseconds + (before - milliseconds) * kept

    def round_trip(self, seconds: float) -> None:
        """Count the kernel's estimate for one connection (Go: startStatsLoop, every 10 s)."""
        label = next((label for bound, label in _RTT_LABELS if seconds <= bound), "inf")
        self._count(self.tcp_rtt, label)

    def no_round_trip(self, *, tcp: bool) -> None:
        """Count a connection whose round-trip time can't be had: an error, or no TCP at all."""
        self._count(self.tcp_rtt, "error" if tcp else "non-tcp")

    def ended(self, end: ConnectionEnd | None) -> None:
        """Count the end of a connection; None if the peer closed it in good order."""
        self._count(self.connection_ends, ORDERLY_END if end is None else end.reason)

    def admission(self, source: str, outcome: str) -> None:
        """Count one answer to whether a client belongs."""
        self.admissions[source, outcome] = self.admissions.get((source, outcome), 0) + 1

    def admission_verdict(self, verdict: str) -> None:
        """Count what came of one login where clients are checked."""
        self._count(self.admission_verdicts, verdict)

    def tls_request(self, tls_version: str | None) -> None:
        """Count one HTTP request.

        `tls_version` is as `ssl` names it ("TLSv1.3"); None, without TLS, counts nothing.
        """
        if tls_version is not None:
            self._count(self.tls_requests, _TLS_LABELS.get(tls_version, "unknown"))

    @contextmanager
    def tls_active_while(self, tls_version: str | None) -> Iterator[None]:
        """Count a request, or the client that came of it, as active while the block runs."""
        if tls_version is None:
            yield
            return
        label = _TLS_LABELS.get(tls_version, "unknown")
        self._count(self.tls_active, label)
        try:
            yield
        finally:
            self.tls_active[label] -= 1

    @staticmethod
    def _count(counts: dict[str, int], label: str) -> None:
        counts[label] = counts.get(label, 0) + 1
