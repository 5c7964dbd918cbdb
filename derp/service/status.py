"""The figures of a process: a snapshot of them, and the pages made of it."""

import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

import attrs
import trio

import derp
from certs.tasks.status import Status
from derp.http.liveview import StatusRow
from derp.metrics import Certificate, Gauges, Metrics, process, render_expvar, render_varz
from derp.metrics.history import Past
from derp.service.clients import Listing, listing
from derp.service.debugrows import (
    admission_problems,
    admission_rows,
    certificate_rows,
    link_row,
    refused_rows,
    relay_rows,
)
from derp.service.keybook import KeyBook
from derp.service.running import Age, RunningRelay
from derp.service.steering import Steer
from derp.service.traffic import Traffic, traffic


@attrs.frozen(kw_only=True)
class Snapshot:
    """The figures of one process at one moment."""

    pid: int
    taken: float
    """When, in seconds of a clock that all processes of the machine share."""
    metrics: Metrics
    gauges: Gauges
    repeated: Mapping[bytes, int] = attrs.field(factory=dict)
    """How many connections a key has here, if it has several in all processes together."""
    links: Sequence[StatusRow] = ()
    """The links to other relays."""


@attrs.frozen(kw_only=True)
class Pages:
    """The content of /debug/. Each call raises RPCFailed if another process can't be asked."""

    rows: Callable[[], Awaitable[Sequence[StatusRow]]]
    """Returns the names and values at the top of /debug/."""
    varz: Callable[[], Awaitable[str]]
    """Returns the figures in the Prometheus text format."""
    expvars: Callable[[], Awaitable[str]]
    """Returns the figures as JSON, as Go's expvar has them."""
    problems: Callable[[], Awaitable[Sequence[str]]]
    """Returns what is inconsistent or fails, a line each."""
    traffic: Callable[[], Awaitable[Sequence[Traffic]]]
    """Returns the bytes of each client."""
    clients: Callable[[], Awaitable[Listing]]
    """Returns the connected clients."""
    past: Callable[[], Awaitable[Sequence[Past]]]
    """Returns the traffic of each of SPANS."""
    steer: Steer
    """Does what an operator wants of them."""


def standalone_pages(relay: RunningRelay, steer: Steer, book: KeyBook) -> Pages:
    """Return the pages of a relay that is one process."""
    resources, checker = relay.resources, relay.resources.own_checker
    statuses = () if resources.certificates is None else resources.certificates.statuses

    async def rows() -> Sequence[StatusRow]:
        snapshot = capture(relay)
        return [
            *relay_rows(relay.config, snapshot.gauges),
            *snapshot.links,
            *certificate_rows(statuses),
            *admission_rows(checker),
            *refused_rows(relay.state.refusals.latest(), book),
        ]

    async def varz() -> str:
        snapshot = capture(relay, statuses)
        return render_varz(snapshot.metrics, snapshot.gauges)

    async def expvars() -> str:
        snapshot = capture(relay, statuses)
        return render_expvar(snapshot.metrics, snapshot.gauges)

    async def problems() -> Sequence[str]:
        return [*relay.state.hub.check(), *admission_problems(checker)]

    async def own_traffic() -> Sequence[Traffic]:
        return traffic(relay.state)

    async def past() -> Sequence[Past]:
        return relay.history.past()

    return Pages(
        rows=rows,
        varz=varz,
        expvars=expvars,
        problems=problems,
        traffic=own_traffic,
        clients=partial(listing, relay.state),
        past=past,
        steer=steer,
    )


def capture(relay: RunningRelay, statuses: Sequence[Status] = ()) -> Snapshot:
    """Return the figures of this process, and of the certificates with `statuses`."""
    config, state, hub = relay.config, relay.state, relay.state.hub
    known, members, local = hub.key_count, hub.members, len(hub.active)
    # Cheap without other workers: `best` is empty then, and nothing walks over all clients.
    repeated = dict.fromkeys(
        [*hub.passive, *(hub.active.keys() & hub.other_workers.best.keys())], 1
    )
    for key, duplicates in hub.duplicates.items():
        repeated[key] = len(duplicates.members)
    limit = None if config.limits.rate_config is None else state.rate_limit
    state.metrics.derive()
    gauges = attrs.evolve(
        process_gauges(relay.age),
        current_connections=len(members),
        current_home_connections=sum(member.preferred for member in members),
        current_notideal_connections=sum(member.not_ideal for member in members),
        accepting_processes=int(
            not state.stopping and relay.descriptors.accepts(trio.current_time())
        ),
        mesh_links=len(relay.links),
        mesh_links_up=sum(keeper.link is not None for keeper in relay.links),
        pending_connections=len(state.pending),
        pending_bytes=state.pending.held,
        clients_total=known,
        clients_local=local,
        clients_remote=known - local,
        watchers=len(state.presence.watchers),
        current_dup_client_keys=len(hub.duplicates),
        current_dup_client_conns=sum(len(d.members) for d in hub.duplicates.values()),
        total_dup_client_conns=hub.duplicate_logins,
        multiforwarder_created=hub.forwarders.created,
        multiforwarder_deleted=hub.forwarders.deleted,
        packet_forwarder_delete_other_value=hub.forwarders.delete_other,
        serves_tls=config.serve_tls,
        certificates=[certificate(status) for status in statuses],
        rate_limit_per_client_bytes_per_second=None if limit is None else limit.bytes_per_second,
        rate_limit_per_client_burst_bytes=None if limit is None else limit.burst,
        queue_bytes=state.memory.held,
        queue_limit_bytes=state.memory.limit,
        **_counts("stun_", relay.stun_stats),
        **_counts("bootstrap_dns_", relay.bootstrap_dns),
    )
    return Snapshot(
        pid=os.getpid(),
        taken=time.monotonic(),
        metrics=state.metrics,
        gauges=gauges,
        repeated=repeated,
        links=[link_row(keeper) for keeper in relay.links],
    )


def process_gauges(age: Age) -> Gauges:
    """Return the gauges that every process has, whether or not it serves clients."""
    return Gauges(
        version=derp.__version__,
        started=age.started,
        uptime=age.seconds,
        tasks=trio.lowlevel.current_statistics().tasks_living,
        process=process.read(),
        memory_at_start=age.memory,
    )


def certificate(status: Status) -> Certificate:
    """Return the figures of a certificate."""
    pair = status.pair
    return Certificate(
        name=status.certificate.names[0],
        not_after=0 if pair is None else int(pair.not_after.timestamp()),
        lifetime=0 if pair is None else int((pair.not_after - pair.not_before).total_seconds()),
        replaced=status.replaced,
        replaced_at=int(status.replaced_at or 0),
        failures=status.failures,
        failed_at=int(status.failed_at or 0),
        failure=status.failure,
    )


def _counts(prefix: str, counters: attrs.AttrsInstance) -> dict[str, Any]:
    """Return the counters among an object's attrs fields, under their names in Gauges."""
    names = [field.name for field in attrs.fields(type(counters)) if field.init]
    return {f"{prefix}{name}": getattr(counters, name) for name in names}
