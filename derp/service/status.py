"""What the pages show of the running server: metrics, consistency, traffic."""

import json
import platform
import struct
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

import attrs
import trio

import derp
from certs.tasks.manager import Certificates
from certs.tasks.status import Status
from derp.admission.checker import Checker
from derp.config import Config
from derp.http.bootstrap_dns import BootstrapDNS
from derp.http.routes import StatusSource
from derp.mesh.keeper import Keeper
from derp.metrics import Certificate, Gauges, Metrics, process, render, render_expvar
from derp.net import tcpinfo
from derp.net.tcp import TCPTransport
from derp.service.tls import ServerContexts
from derp.session.client import Client
from derp.session.state import RelayState
from derp.wire.keys import node_public_text, short_key
from stun.server import Stats

TRAFFIC_EVERY: Final = 2.0
"""Seconds between the looks of /debug/traffic (Go: minTimeBetweenLogs)."""

StatusRow = tuple[str, str]
"""A name and a value for /debug/."""

_MIB: Final = 1 << 20


class Traffic(NamedTuple):
    """How many bytes have gone to a client and come from it; zeros where that can't be known."""

    connection: str
    """Tells connections of one process apart, those that have ended included."""
    key: bytes
    sent: int
    received: int
    unique_senders: int
    """How many keys it has had packets from."""


@attrs.frozen
class Age:
    """Since when the program runs."""

    started: float = attrs.field(init=False, factory=time.time)
    """Unix time, in seconds."""
    memory: int = attrs.field(init=False, factory=process.resident_bytes)
    """Bytes that were in use then."""
    _clock_then: float = attrs.field(init=False, factory=trio.current_time)

    @property
    def seconds(self) -> float:
        """How long that is, by a clock that nobody sets."""
        return trio.current_time() - self._clock_then


@attrs.frozen
class StatusView:
    """What there is to see of one process that serves clients."""

    config: Config
    state: RelayState
    stats: Stats
    names: BootstrapDNS
    statuses: Sequence[Status] = ()
    """More may come, on demand."""
    links: Sequence[Keeper] = ()
    age: Age = attrs.field(init=False, factory=Age)

    def metrics(self) -> Metrics:
        """Return the counters; what others keep count of is counted afresh, so as not to drift."""
        metrics, members = self.state.metrics, self.state.hub.members
        metrics.current_connections = len(members)
        metrics.current_home_connections = sum(member.preferred for member in members)
        metrics.multiforwarder_created = self.state.hub.forwarders.created
        metrics.multiforwarder_deleted = self.state.hub.forwarders.deleted
        metrics.packet_forwarder_delete_other_value = self.state.hub.forwarders.delete_other
        metrics.pending_connections = len(self.state.pending)
        metrics.pending_bytes = self.state.pending.held
        metrics.current_notideal_connections = sum(member.not_ideal for member in members)
        return metrics

    def gauges(self) -> Gauges:
        """Return what the counters don't know."""
        config, state, hub = self.config, self.state, self.state.hub
        known = hub.known
        return Gauges(
            version=derp.__version__,
            started=self.age.started,
            uptime=self.age.seconds,
            tasks=tasks(),
            process=process.read(),
            clients_total=known,
            clients_local=len(hub.active),
            clients_remote=known - len(hub.active),
            watchers=len(state.presence.watchers),
            dup_client_keys=len(hub.duplicates),
            dup_client_conns=sum(len(d.members) for d in hub.duplicates.values()),
            total_dup_client_conns=hub.duplicate_logins,
            serves_tls=config.serve_tls,
            certificates=[certificate(status) for status in self.statuses],
            rate_limit_bytes_per_second=(
                None if config.limits.rate_config is None else state.rate_limit.bytes_per_second
            ),
            rate_limit_burst_bytes=state.rate_limit.burst,
            memory_at_start=self.age.memory,
            queue_bytes=state.memory.held,
            queue_limit_bytes=state.memory.limit,
        )

    def link_facts(self) -> list[StatusRow]:
        """Return what /debug/ says of each link to another relay."""
        return [_link_fact(keeper) for keeper in self.links]

    def traffic(self) -> list[Traffic]:
        """Return what each client has sent and received."""
        return [
            Traffic(
                f"{id(member):x} {member.connected_at}",
                member.key,
                *_bytes(member),
                len(member.saw_src),
            )
            for member in self.state.hub.members
        ]


def make_status_source(
    config: Config,
    state: RelayState,
    stats: Stats,
    names: BootstrapDNS,
    certificates: Certificates[ServerContexts] | None,
    links: Sequence[Keeper] = (),
) -> StatusSource:
    """Make the Site that the front end of the only process answers from."""
    statuses = () if certificates is None else certificates.statuses
    admission = state.admission if isinstance(state.admission, Checker) else None
    view = StatusView(config, state, stats, names, statuses, links)

    async def traffic() -> list[Traffic]:
        return view.traffic()

    return StatusSource(
        hostname=config.tls.hostname,
        public_key=state.public_key,
        derp=config.general.derp,
        home=config.pages.home,
        bootstrap_dns=names,
        facts=lambda: [
            *relay_facts(
                *(config, view.age, len(state.hub.members)),
                *(state.memory.held, state.memory.limit),
            ),
            *view.link_facts(),
            *certificate_facts(statuses),
            *admission_facts(admission),
        ],
        varz=lambda: render(view.metrics(), view.gauges(), stats, names),
        expvars=lambda: render_expvar(view.metrics(), view.gauges(), stats, names),
        problems=lambda: [*state.hub.check(), *admission_problems(admission)],
        traffic=lambda: traffic_lines(traffic),
        challenges=(
            certificates.contexts.http_challenges
            if certificates is not None and config.serve_acme
            else None
        ),
    )


def tasks() -> int:
    """Return how many Trio tasks there are in this process."""
    return trio.lowlevel.current_statistics().tasks_living


def certificate(status: Status) -> Certificate:
    """Return what the metrics say of a certificate."""
    return Certificate(
        name=status.certificate.names[0],
        not_after=0 if status.pair is None else int(status.pair.not_after.timestamp()),
        replaced=status.replaced,
        replaced_at=int(status.replaced_at or 0),
        failures=status.failures,
        failed_at=int(status.failed_at or 0),
        failure=status.failure,
    )


def relay_facts(config: Config, age: Age, clients: int, held: int, limit: int) -> list[StatusRow]:
    """Return what /debug/ says of the relay as a whole; its queues hold so many bytes."""
    return [
        ("Version", derp.__version__),
        ("Uptime", f"{age.seconds:.0f} s"),
        ("Machine", platform.node()),
        ("TLS hostname", config.tls.hostname),
        ("Clients", str(clients)),
        ("Queues", f"{held / _MIB:.1f} of {limit / _MIB:.1f} MiB"),
    ]


def certificate_facts(statuses: Sequence[Status]) -> list[StatusRow]:
    """Return what /debug/ says of the certificates."""
    return [fact for status in statuses for fact in _certificate_facts(status)]


def admission_facts(admission: Checker | None) -> list[StatusRow]:
    """Return what /debug/ says of who may use the relay."""
    if admission is None:
        return []
    facts = []
    if admission.allowlist is not None:
        facts.append(("Listed node keys", str(len(admission.allowlist.keys))))
    facts += [(f"Can't ask {name}", reason) for name, reason in admission.troubles.items()]
    for refused in reversed(admission.refused.values()):
        times = f"{refused.count} times, last {_when(refused.last)}"
        facts.append((f"Refused {node_public_text(refused.key)}", f"{times}: {refused.reason}"))
    return facts


def admission_problems(admission: Checker | None) -> list[str]:
    """Return what /debug/check says of those who are asked who may use the relay."""
    troubles = {} if admission is None else admission.troubles
    return [f"can't ask {name} who belongs: {why}" for name, why in troubles.items()]


async def traffic_lines(
    look: Callable[[], Awaitable[Sequence[Traffic]]],
) -> AsyncGenerator[bytes, None]:
    """Yield, every TRAFFIC_EVERY seconds, a JSON line for each client whose bytes have changed.

    The lines are those of Go's ServeDebugTraffic; the figures come from the kernel, as there.
    """
    before: dict[str, tuple[int, int]] = {}
    while True:
        now = await look()
        lines = [
            json.dumps(
                {
                    "Sent": each.sent,
                    "Recv": each.received,
                    "Key": node_public_text(each.key),
                    "UniqueSenders": each.unique_senders,
                }
            )
            for each in now
            if before.get(each.connection, (0, 0)) != (each.sent, each.received)
        ]
        before = {each.connection: (each.sent, each.received) for each in now}
        yield "".join(f"{line}\n" for line in [*lines, ""]).encode()
        await trio.sleep(TRAFFIC_EVERY)


def _certificate_facts(status: Status) -> list[StatusRow]:
    pair = status.pair
    expires = "none yet" if pair is None else f"{pair.not_after:%Y-%m-%d %H:%M} UTC"
    facts = [
        ("Certificate", " ".join(status.certificate.names if pair is None else pair.names)),
        ("It expires", expires),
    ]
    if status.replaced_at is not None:
        facts.append(("Last replaced", _when(status.replaced_at)))
    if status.failed_at is not None:
        facts.append(("Last failure", f"{_when(status.failed_at)}: {status.failure}"))
    return facts


def _link_fact(keeper: Keeper) -> StatusRow:
    link = keeper.link
    if link is None:
        return f"Mesh link to {keeper.name}", f"none: {keeper.trouble or 'not tried yet'}"
    there = f"{len(link.present)} clients there, key {short_key(link.key)}, {link.transport.remote}"
    return f"Mesh link to {keeper.name}", there


def _when(unix_time: float) -> str:
    return f"{datetime.fromtimestamp(unix_time, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _bytes(connection: Client) -> tuple[int, int]:
    """Return the bytes sent and received on a connection; zeros where that can't be known."""
    if not isinstance(connection.transport, TCPTransport):
        return 0, 0
    try:
        return tcpinfo.sent_and_received(connection.transport.tcp_info())
    except (OSError, struct.error):
        return 0, 0
