"""The counters of one process.

Each is a plain attribute, so that the hot path pays for an addition and nothing else:
`metrics.packets_received += n`. Fields have the Go derper's names (derpserver.Server.ExpVar)
without their `derp_`.
"""

import enum
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Final

import attrs

from derp.errors import ConnectionEnd
from derp.metrics.figures import Histogram, Untyped, counter, gauge, labelled, part

QUEUE_TIME_WEIGHT: Final = 0.1
"""The weight of the newest packet in average_queue_duration_ms."""

ORDERLY_END: Final = "closed"
"""The label of connections that the peer closed in good order."""

_TLS_LABELS: Final = {"TLSv1": "1.0", "TLSv1.1": "1.1", "TLSv1.2": "1.2", "TLSv1.3": "1.3"}

_RTT_BOUNDS: Final = (10, 20, 50, 100, 150, 250, 500)
"""Milliseconds."""
_FRAMES_PER_FLUSH: Final = partial(Histogram, *range(11), 15, 20, 25, 50, 100)
_PEERS_PER_BATCH: Final = partial(Histogram, 0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_BATCHES_PER_UPDATE: Final = partial(Histogram, 0, 1, 2, 5, 10, 20, 50, 100)

_RECEIVED_KIND: Final = "derp.counter_packets_received_kind"
_RECEIVED_HELP: Final = "Packets that clients have sent, by kind: disco or other."
_BY_REASON: Final = labelled("reason", "kind", kind="counter")


class DropReason(enum.StrEnum):
    """The reason why a packet was not delivered; the values are the Go derper's labels."""

    UNKNOWN_DEST = "unknown_dest"
    """No client has the destination key."""
    UNKNOWN_DEST_ON_FWD = "unknown_dest_on_fwd"
    """A mesh peer forwarded the packet, and no client has the destination key."""
    GONE_DISCONNECTED = "gone_disconnected"
    """The destination left while the packet waited for it."""
    QUEUE_HEAD = "queue_head"
    """The destination's queue was full, and the packet was its oldest."""
    QUEUE_TAIL = "queue_tail"
    """The destination's queue was full, and the packet found no room."""
    WRITE_ERROR = "write_error"
    """Writing to the destination failed."""
    DUP_CLIENT = "dup_client"
    """The key is connected more than once, and none of its connections may receive."""
    ISOLATED = "isolated"
    """The destination is of another group (-isolate); an addition to the Go derper's labels."""


def _no_drops() -> dict[tuple[DropReason, bool], int]:
    """Return zero for each of the Go derper's reasons."""
    reasons = [reason for reason in DropReason if reason is not DropReason.ISOLATED]
    return {(reason, disco): 0 for reason in reasons for disco in (True, False)}


def _no_ends() -> dict[str, int]:
    return dict.fromkeys((ORDERLY_END, *(end.reason for end in ConnectionEnd.__subclasses__())), 0)


class _Active(AbstractContextManager[None]):
    """A count of one in `counts`, as long as the block runs."""

    def __init__(self, counts: dict[str, int], label: str) -> None:
        self._counts = counts
        self._label = label

    def __enter__(self) -> None:
        self._counts[self._label] = self._counts.get(self._label, 0) + 1

    def __exit__(self, *_: object) -> None:
        self._counts[self._label] -= 1


@attrs.define(eq=False, kw_only=True)
class Metrics:
    """All counters of one process, at zero when made. Bytes are those of packets' payloads."""

    packets_received: int = counter(help="Packets that clients have sent.")
    bytes_received: int = counter(help="Payload bytes of the packets that clients have sent.")
    packets_received_disco: int = counter(
        _RECEIVED_KIND, show=part("kind", "disco"), help=_RECEIVED_HELP
    )
    packets_received_other: int = counter(
        _RECEIVED_KIND, show=part("kind", "other"), help=_RECEIVED_HELP
    )
    """See `derive`."""
    packets_sent: int = counter(help="Packets handed to clients' connections.")
    bytes_sent: int = counter(help="Payload bytes of the packets handed to clients' connections.")
    packets_forwarded_in: int = counter(
        help="Packets that mesh peers have forwarded to this relay."
    )
    packets_forwarded_out: int = counter(help="Packets forwarded to mesh peers.")
    buffered_write_frames: Histogram = counter(
        "derp.counter_{}", factory=_FRAMES_PER_FLUSH, help="Frames handed to the kernel at once."
    )
    average_queue_duration_ms: float = gauge(
        "derp.{}",
        default=0.0,
        show=Untyped,
        merge=None,
        help="Moving average of the milliseconds that packets wait in their destination's queue.",
    )
    """A moving average over delivered packets; see `queued`."""

    peer_gone_disconnected_frames: int = counter(
        help="PeerGone frames sent since a peer has disconnected."
    )
    peer_gone_not_here_frames: int = counter(
        help="PeerGone frames sent since a destination is not connected."
    )
    got_ping: int = counter(help="Ping frames received.")
    sent_pong: int = counter(help="Pong frames sent.")
    unknown_frames: int = counter(help="Frames received of unknown types.")
    home_moves_in: int = counter(
        help="Clients that made this server their home, other than right after login."
    )
    home_moves_out: int = counter(help="Clients that made another server their home.")
    rate_limit_per_client_waited: int = counter(
        needs="rate_limit_per_client_bytes_per_second",
        help="How often a client's reader was paused by its rate limit.",
    )

    accepts: int = counter(help="DERP connections, counted before login.")
    """DERP connections, counted before login; also the number of the newest one."""
    websocket_accepts: int = counter(
        "derp_websocket_accepts", help="DERP connections over websockets."
    )
    sclient_write_timeouts: int = counter(
        help="Connections ended since their clients read nothing."
    )

    mesh_update_batch_size: Histogram = counter(
        "derp.counter_{}",
        factory=_PEERS_PER_BATCH,
        help="Peer changes that a mesh peer was sent at once.",
    )
    mesh_update_loop_count: Histogram = counter(
        "derp.counter_{}",
        factory=_BATCHES_PER_UPDATE,
        help="Batches that one update of a mesh peer took.",
    )

    tls_accepted_connections: int = counter(
        "tls_listener.counter_accepted_connections",
        needs="serves_tls",
        help="Connections accepted on the HTTPS port.",
    )
    tls_rejected_connections: int = counter(
        "tls_listener.counter_rejected_connections",
        needs="serves_tls",
        help="Connections closed at once, above -accept-connection-limit.",
    )
    tls_requests: dict[str, int] = counter(
        "derper_tls_request_version",
        factory=dict,
        show=labelled("version"),
        help="HTTP requests over TLS, by TLS version.",
    )
    """HTTP requests over TLS, by TLS version ("1.3")."""
    tls_active: dict[str, int] = counter(
        "gauge_derper_tls_active_version",
        factory=dict,
        show=labelled("version"),
        final=lambda counts: dict.fromkeys(counts, 0),
        help="HTTP requests over TLS that have not ended, and DERP connections, by TLS version.",
    )

    tcp_rtt: dict[str, int] = counter(
        "derp.counter_{}",
        factory=dict,
        show=labelled("le"),
        help="Samples of the round-trip times of clients' connections, by upper bound.",
    )
    """Round-trip times of clients' connections by label; see `round_trip`."""
    packets_dropped: dict[tuple[DropReason, bool], int] = counter(
        "derp_packets_dropped",
        factory=_no_drops,
        show=_BY_REASON,
        help="Packets that were not delivered, by reason, and whether they are disco packets.",
    )
    """By reason, and whether they are disco packets."""
    bytes_dropped: dict[tuple[DropReason, bool], int] = counter(
        "derp_bytes_dropped",
        factory=_no_drops,
        show=_BY_REASON,
        help="Payload bytes that were not delivered, by reason, and whether of disco packets.",
    )
    connection_ends: dict[str, int] = counter(
        "derp.counter_{}",
        factory=_no_ends,
        show=labelled("reason"),
        help="Connections that have ended, by reason.",
    )
    """By the `reason` of a ConnectionEnd, or ORDERLY_END."""
    metrics_connection_ends: dict[str, int] = counter(
        "counter_derper_{}_total",
        factory=dict,
        show=labelled("reason"),
        needs="metrics_connection_ends",
        help="Connections to -metrics-addr that have ended, by reason.",
    )
    """By the same reasons as `connection_ends`."""
    admissions: dict[tuple[str, str], int] = counter(
        "counter_derper_{}",
        factory=dict,
        show=labelled("source", "outcome"),
        needs="admission_verdicts",
        help="Answers of the sources of admission, by source and outcome.",
    )
    admission_verdicts: dict[str, int] = counter(
        "counter_derper_{}",
        factory=dict,
        show=labelled("verdict"),
        needs="admission_verdicts",
        help="Verdicts on logins.",
    )

    def show_isolated(self) -> None:
        """Show drops between groups, of which the Go derper has none, from now on."""
        for disco in (True, False):
            self.packets_dropped[DropReason.ISOLATED, disco] = 0
            self.bytes_dropped[DropReason.ISOLATED, disco] = 0

    def derive(self) -> None:
        """Set the counters that the hot path leaves to be computed from others."""
        self.packets_received_other = self.packets_received - self.packets_received_disco

    def drop(self, reason: DropReason, disco: bool, packets: int, nbytes: int) -> None:
        """Count packets that will not be delivered."""
        key = (reason, disco)
        self.packets_dropped[key] += packets
        self.bytes_dropped[key] += nbytes

    def mesh_updates(self, changes: int) -> None:
        """Count connects and disconnects that a mesh peer is sent at once."""
        self.mesh_update_batch_size.observe(changes)
        self.mesh_update_loop_count.observe(1)

    def queued(self, milliseconds: float, packets: int = 1) -> None:
        """Count how long packets waited in their destination's queue (Go: recordQueueTime)."""
        before = self.average_queue_duration_ms
        kept = (1 - QUEUE_TIME_WEIGHT) ** packets
        self.average_queue_duration_ms = milliseconds + (before - milliseconds) * kept

    def round_trip(self, seconds: float) -> None:
        """Count the kernel's estimate for one connection (Go: startStatsLoop, every 10 s)."""
        label = next((f"{bound}ms" for bound in _RTT_BOUNDS if seconds <= bound / 1000), "inf")
        self._count(self.tcp_rtt, label)

    def no_round_trip(self, *, tcp: bool) -> None:
        """Count a connection without a round-trip time: an error, or no TCP at all."""
        self._count(self.tcp_rtt, "error" if tcp else "non-tcp")

    def monitor_ended(self, end: ConnectionEnd | None) -> None:
        """Count the end of a connection to -metrics-addr."""
        self._count(self.metrics_connection_ends, ORDERLY_END if end is None else end.reason)

    def ended(self, end: ConnectionEnd | None) -> None:
        """Count the end of a connection; None if the peer closed it in good order."""
        self._count(self.connection_ends, ORDERLY_END if end is None else end.reason)

    def admission(self, source: str, outcome: str) -> None:
        """Count one answer of a source of admission."""
        self.admissions[source, outcome] = self.admissions.get((source, outcome), 0) + 1

    def admission_verdict(self, verdict: str) -> None:
        """Count the checker's verdict on one login."""
        self._count(self.admission_verdicts, verdict)

    def tls_request(self, tls_version: str | None) -> None:
        """Count one HTTP request, if it came over TLS (`tls_version` as in Transport)."""
        if tls_version is not None:
            label = _TLS_LABELS.get(tls_version, "unknown")
            self._count(self.tls_requests, label)
            # After a request that is answered at once, the page shows 0.
            self.tls_active.setdefault(label, 0)

    def tls_active_while(self, tls_version: str | None) -> AbstractContextManager[None]:
        """Count a request, or the client that it became, as active while the block runs."""
        if tls_version is None:
            return nullcontext()
        return _Active(self.tls_active, _TLS_LABELS.get(tls_version, "unknown"))

    @staticmethod
    def _count(counts: dict[str, int], label: str) -> None:
        counts[label] = counts.get(label, 0) + 1
