"""What the pages show of the running server: metrics, consistency, traffic."""

import json
import platform
import struct
import time
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime
from importlib import metadata
from typing import Final

import trio

from derp.admit.gate import Gate
from derp.certificates.served import Status
from derp.certificates.tasks import Certificates
from derp.config import Config
from derp.connection import Connection
from derp.http.bootstrap_dns import BootstrapDNS
from derp.http.routes import Site
from derp.mesh.keeper import Keeper
from derp.metrics import Certificate, Gauges, process, render
from derp.net.tcp import TCPTransport
from derp.server import Server
from derp.wire.keys import node_public_text, short
from stun.server import Stats

TRAFFIC_EVERY: Final = 2.0
"""Seconds between the looks of /debug/traffic (Go: minTimeBetweenLogs)."""

_BYTES = struct.Struct("=QQ")
_BYTES_OFFSET: Final = 120
"""Of tcpi_bytes_acked and tcpi_bytes_received in Linux's `struct tcp_info`."""


def make_site(
    config: Config,
    server: Server,
    stats: Stats,
    names: BootstrapDNS,
    certificates: Certificates | None,
    links: Sequence[Keeper] = (),
) -> Site:
    """Make the Site that the front end answers from."""
    started = time.time()
    clock_at_start = trio.current_time()
    version = metadata.version("trio-derper")
    # More may come, on demand.
    statuses = [] if certificates is None else certificates.statuses

    def gauges() -> Gauges:
        hub = server.hub
        known = hub.known
        return Gauges(
            version=version,
            started=started,
            uptime=trio.current_time() - clock_at_start,
            tasks=trio.lowlevel.current_statistics().tasks_living,
            process=process.read(),
            clients_total=known,
            clients_local=len(hub.active),
            clients_remote=known - len(hub.active),
            watchers=len(server.watchers),
            dup_client_keys=len(hub.duplicates),
            dup_client_conns=sum(len(d.members) for d in hub.duplicates.values()),
            total_dup_client_conns=hub.duplicate_logins,
            serves_tls=config.serve_tls,
            certificates=[_certificate(status) for status in statuses],
            rate_limit_bytes_per_second=(
                None if config.rate_config is None else server.rate_limit.bytes_per_second
            ),
            rate_limit_burst_bytes=server.rate_limit.burst,
        )

    def varz() -> str:
        metrics, members = server.metrics, server.hub.members
        # Counted afresh, so that they can't drift.
        metrics.current_connections = len(members)
        metrics.current_home_connections = sum(member.preferred for member in members)
        metrics.multiforwarder_created = server.hub.forwarders.created
        metrics.multiforwarder_deleted = server.hub.forwarders.deleted
        metrics.packet_forwarder_delete_other_value = server.hub.forwarders.delete_other
        metrics.current_notideal_connections = sum(member.not_ideal for member in members)
        return render(metrics, gauges(), stats, names)

    def facts() -> Sequence[tuple[str, str]]:
        return [
            ("Version", version),
            ("Uptime", f"{trio.current_time() - clock_at_start:.0f} s"),
            ("Machine", platform.node()),
            ("TLS hostname", config.hostname),
            ("Clients", str(len(server.hub.members))),
            *(_link_fact(keeper) for keeper in links),
            *(fact for status in statuses for fact in _certificate_facts(status)),
            *(() if server.gate is None else _gate_facts(server.gate)),
        ]

    def problems() -> Sequence[str]:
        troubles = {} if server.gate is None else server.gate.troubles
        asked = [f"can't ask {name} who belongs: {why}" for name, why in troubles.items()]
        return [*server.hub.check(), *asked]

    return Site(
        hostname=config.hostname,
        public_key=server.public_key,
        derp=config.derp,
        home=config.home,
        bootstrap_dns=names,
        facts=facts,
        varz=varz,
        problems=problems,
        traffic=lambda: _traffic(server),
        challenges=(
            certificates.contexts.http_challenges
            if certificates is not None and config.serve_acme
            else None
        ),
    )


def _certificate(status: Status) -> Certificate:
    return Certificate(
        name=status.certificate.names[0],
        not_after=0 if status.pair is None else int(status.pair.not_after.timestamp()),
        replaced=status.replaced,
        replaced_at=int(status.replaced_at or 0),
        failures=status.failures,
        failed_at=int(status.failed_at or 0),
        failure=status.failure,
    )


def _certificate_facts(status: Status) -> Sequence[tuple[str, str]]:
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


def _link_fact(keeper: Keeper) -> tuple[str, str]:
    link = keeper.link
    if link is None:
        return f"Mesh link to {keeper.name}", f"none: {keeper.trouble or 'not tried yet'}"
    there = f"{len(link.present)} clients there, key {short(link.key)}, {link.transport.remote}"
    return f"Mesh link to {keeper.name}", there


def _gate_facts(gate: Gate) -> Sequence[tuple[str, str]]:
    facts = []
    if gate.listing is not None:
        facts.append(("Listed node keys", str(len(gate.listing.keys))))
    facts += [(f"Can't ask {name}", reason) for name, reason in gate.troubles.items()]
    for refused in reversed(gate.refused.values()):
        times = f"{refused.count} times, last {_when(refused.last)}"
        facts.append((f"Refused {node_public_text(refused.key)}", f"{times}: {refused.reason}"))
    return facts


def _when(unix_time: float) -> str:
    return f"{datetime.fromtimestamp(unix_time, UTC):%Y-%m-%d %H:%M:%S} UTC"


async def _traffic(server: Server) -> AsyncGenerator[bytes, None]:
    """Yield, every TRAFFIC_EVERY seconds, a JSON line for each client whose bytes have changed.

    The lines are those of Go's ServeDebugTraffic; the figures come from the kernel, as there.
    """
    before: dict[Connection, tuple[int, int]] = {}
    while True:
        now = {member: _bytes(member) for member in server.hub.members}
        lines = [
            json.dumps(
                {
                    "Sent": sent,
                    "Recv": received,
                    "Key": node_public_text(member.key),
                    "UniqueSenders": len(member.heard_from),
                }
            )
            for member, (sent, received) in now.items()
            if before.get(member, (0, 0)) != (sent, received)
        ]
        before = now
        yield "".join(f"{line}\n" for line in [*lines, ""]).encode()
        await trio.sleep(TRAFFIC_EVERY)


def _bytes(connection: Connection) -> tuple[int, int]:
    """Return the bytes sent and received on a connection; zeros where that can't be known."""
    if not isinstance(connection.transport, TCPTransport):
        return 0, 0
    try:
        sent, received = _BYTES.unpack_from(connection.transport.tcp_info(), _BYTES_OFFSET)
    except (OSError, struct.error):
        return 0, 0
    return sent, received
