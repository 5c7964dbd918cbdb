"""The root of the tree of tasks: builds everything, then serves until it is told to stop.

    senders ── connections ── services ──┬── signals ──(memory channel)──► this function
    (what      (one task      (until     ├── accept loops ──► connections
    is         for each       stop)      ├── STUN
    queued)    connection,               ├── timers, refusal summaries
               and link to               ├── bootstrap DNS
               a relay)                  └── certificates ──(memory channel)──► listeners

The three nurseries are nested in the order in which they end: to stop, the services are cancelled
first, so that nobody new gets in; the clients are told, and what is queued for them is sent, with
a bound; then the connections are cancelled, and last whatever still sends.
"""

import contextlib
import enum
import gc
import logging
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final, NoReturn

import attrs
import trio

from derp import log
from derp.admission.make import opened
from derp.config import Config, environment
from derp.errors import ReloadError
from derp.files import ratelimit
from derp.files.debugkey import debug_access
from derp.files.ratelimit import RateConfig
from derp.http import routes
from derp.http.bootstrap_dns import BootstrapDNS
from derp.http.bootstrap_refresh import Refresher
from derp.http.routes import StatusSource
from derp.mesh import plan as mesh_plan
from derp.mesh.keeper import Keeper
from derp.metrics import process
from derp.net.descriptors import Descriptors
from derp.net.listener import accept_forever
from derp.net.resolver import Resolver
from derp.relay.pending import PendingConnections
from derp.relay.queuememory import QueueMemory
from derp.relay.tokenbucket import TokenBucket
from derp.service.accept import Acceptor, crowd_lines, try_lines
from derp.service.announce import announce, announce_node
from derp.service.drain import drain, stop_listening
from derp.service.memory import queue_limit
from derp.service.sockets import tcp_options
from derp.service.startup import StartupResources, prepare
from derp.service.status import make_status_source
from derp.session import recheck, serverinfo
from derp.session.state import RelayState
from stun import server as stun_server

_EVENTS: Final = 8
_GC_THRESHOLDS: Final = (5_000, 4, 500)
"""Objects after which the youngest are looked at, and so on: 20,000 at most, which takes some 8 ms,
until ten million more have been made than have gone."""
_SUMMARY_EVERY: Final = 10.0
_MORE: Final = {"joined": "joined more", "left": "left more"}

logger = log.get("server")


class Event(enum.Enum):
    """What a relay is told to do."""

    STOP = enum.auto()
    RELOAD = enum.auto()


Events = trio.MemorySendChannel[Event]


@attrs.frozen
class RunningRelay:
    """A relay that serves."""

    config: Config
    resources: StartupResources
    state: RelayState
    connections: trio.Nursery
    """Owns what ends when all clients have left."""
    stats: stun_server.Stats = attrs.field(factory=stun_server.Stats)
    names: BootstrapDNS = attrs.field(factory=BootstrapDNS)
    links: list[Keeper] = attrs.field(factory=list)
    """Those to other machines."""


class Role:
    """What a relay does beside serving, and who tells it what to do: here, as the only process.

    A worker, which shares a relay with others, has another one (derp.workers.worker).
    """

    workers = 1
    """How many processes the relay has."""
    tells_of_limits = True
    """Whether this process says what is the same for all."""

    def __init__(self) -> None:
        self._look_at_list, self._looks = trio.open_memory_channel[None](1)

    async def hear(
        self, events: Events, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Pass on what it is told, to the very end."""
        await hear_signals(events, task_status=task_status)

    def make_status_source(self, running: RunningRelay) -> StatusSource:
        """Make what the pages are answered from."""
        certificates = running.resources.certificates
        return make_status_source(
            *(running.config, running.state, running.stats, running.names),
            *(certificates, running.links),
        )

    def start(self, running: RunningRelay, services: trio.Nursery) -> None:
        """Start what a relay has once; `services` ends when it is told to stop."""
        config, resources = running.config, running.resources
        if resources.certificates is not None:
            services.start_soon(
                resources.certificates.run, partial(announce_node, config, resources)
            )
        if resources.own_checker is not None:
            again = config.verification.recheck_every
            services.start_soon(
                recheck.keep, running.state, resources.own_checker, again, self._looks
            )

    async def serving(self, running: RunningRelay) -> None:
        """Take note that all is served."""
        announce(running.config, running.resources)

    def reload(self, running: RunningRelay, services: trio.Nursery) -> None:
        """Look at all files again."""
        if running.resources.certificates is not None:
            running.resources.certificates.wake()
        with contextlib.suppress(trio.WouldBlock):
            self._look_at_list.send_nowait(None)
        # On its own, so that a file that can't be read to its end delays no stop.
        apply = partial(serverinfo.apply, running.state, services)
        services.start_soon(reload_rate_limit, running.config, apply)


def run(config: Config) -> None:
    """Serve until SIGTERM or SIGINT. Raises StartError where this machine can't."""
    with started(), contextlib.ExitStack() as stack:
        resources = prepare(config, stack)
        calm_garbage_collector()
        trio.run(serve, config, resources, Role)


@contextlib.contextmanager
def started(**fields: object) -> Iterator[None]:
    """Log as long as the block runs, also what is raised where nobody can catch it.

    `fields` are in each line.
    """
    level = logging.DEBUG if environment.debug_logs(os.environ) else logging.INFO
    with log.start(level, also=fields):
        sys.unraisablehook = _log_unraisable
        try:
            yield
        finally:
            sys.unraisablehook = sys.__unraisablehook__


def calm_garbage_collector() -> None:
    """Look for cycles seldom, and never among what was loaded at start.

    A look at all that a thousand clients hold takes milliseconds, in which no packet moves.
    Relaying makes no cycles; ended connections make a few, found among the young objects.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)


async def serve(config: Config, resources: StartupResources, make_role: Callable[[], Role]) -> None:
    """Serve on what was prepared, until told to stop."""
    Resolver().install()
    to_supervisor, events = trio.open_memory_channel[Event](_EVENTS)
    role = make_role()
    async with opened(resources.admission), trio.open_nursery() as senders:
        state = RelayState(
            resources.private_key,
            senders,
            config.tcp.write_timeout,
            resources.rate_limit,
            resources.admission,
            resources.metrics,
            resources.mesh.key,
            pending=_pending_connections(config, role.workers),
            memory=QueueMemory(queue_limit(config.limits.queue_memory, role.workers)),
        )
        # To the end, so that a second signal does not cut the drain short.
        await senders.start(role.hear, to_supervisor)
        senders.start_soon(state.poller.run)
        senders.start_soon(state.prelogin.run)
        async with trio.open_nursery() as connections:
            running = RunningRelay(config, resources, state, connections)
            async with trio.open_nursery() as services:
                _start_services(running, role, services)
                await role.serving(running)
                async for event in events:
                    if event is Event.STOP:
                        break
                    role.reload(running, services)
                services.cancel_scope.cancel()
            state.stopping = True
            stop_listening(state, resources.sockets.all)
            await drain(state, role.workers, config.limits.drain_time)
            connections.cancel_scope.cancel()
        senders.cancel_scope.cancel()
    logger.info("stopped")


def _start_services(running: RunningRelay, role: Role, services: trio.Nursery) -> None:
    config, resources, state = running.config, running.resources, running.state
    running.links.extend(mesh_plan.keepers(config, resources.mesh, state, tcp_options(config)))
    refusals, crowded = log.Coalescer(), crowd_lines()
    access = debug_access(config, resources.debug_key)
    site = attrs.evolve(role.make_status_source(running), debug_access=access)
    engine = None if resources.certificates is None else resources.certificates.contexts.engine
    limit = _accept_limit(config, role.workers)
    route = partial(routes.route, site)
    tries = try_lines(role.workers)
    acceptor = Acceptor(state, running.connections, route, engine, limit, refusals, crowded, tries)
    plain_door = attrs.evolve(
        acceptor, route=partial(routes.route_plain, site), engine=None, limit=None
    )
    descriptors = Descriptors()
    if role.tells_of_limits:
        descriptors.log_if_few_fit()
    for listener in resources.sockets.main:
        services.start_soon(accept_forever, listener, acceptor.admit, descriptors)
    for listener in resources.sockets.plain:
        services.start_soon(accept_forever, listener, plain_door.admit, descriptors)
    for sock in resources.sockets.all:
        state.poller.add_urgent(sock.fileno())
    state.poller.add_urgent(state.prelogin.fileno())
    for sock in resources.sockets.stun:
        services.start_soon(stun_server.serve, sock, running.stats)
    role.start(running, services)
    services.start_soon(state.timers.run)
    services.start_soon(_summarize, (refusals, crowded), state.client_events)
    services.start_soon(resources.debug_key.watch)
    pages = config.pages
    refresher = Refresher(
        running.names, pages.bootstrap_dns_names, pages.unpublished_bootstrap_dns_names
    )
    services.start_soon(refresher.run)
    for keeper in running.links:
        # As long as there are clients, packets are forwarded.
        running.connections.start_soon(keeper.run)


def _accept_limit(config: Config, workers: int) -> TokenBucket | None:
    """Make the limit for one of so many processes; None where there is none."""
    if not math.isfinite(config.limits.accept_limit):
        return None
    burst = max(1, config.limits.accept_burst // workers)
    return TokenBucket(config.limits.accept_limit / workers, burst, trio.current_time())


def _pending_connections(config: Config, workers: int) -> PendingConnections:
    """Make the account of what has not logged in, for one of so many processes."""
    most = config.limits.per_network_pending_limit
    if most:
        # The kernel shares connections out by chance: a small part of a small limit is too little.
        most = max(1, min(max(most // workers, min(most, 64)), process.max_fds() // 4))
    return PendingConnections(
        rate=config.limits.per_network_accept_limit / workers,
        most=most,
        trusted=config.limits.trusted_proxies,
    )


async def hear_signals(
    events: Events, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Turn signals into events."""
    wanted = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    with trio.open_signal_receiver(*wanted) as signals:
        task_status.started()
        async for number in signals:
            await events.send(Event.RELOAD if number == signal.SIGHUP else Event.STOP)


async def reload_rate_limit(config: Config, apply: Callable[[RateConfig], object]) -> None:
    """Read the rate limit again; what can't be read leaves the old one in force."""
    if config.limits.rate_config is None:
        logger.info("SIGHUP: looking at certificates and lists; there is no -rate-config")
        return
    try:
        limit = await trio.to_thread.run_sync(
            ratelimit.load, config.limits.rate_config, ReloadError, abandon_on_cancel=True
        )
    except ReloadError as error:
        logger.error("the old rate limit stays in force", reason=str(error))  # noqa: TRY400
        return
    apply(limit)
    logger.info("rate limit applied", bytes_per_second=limit.bytes_per_second, burst=limit.burst)


async def _summarize(refusals: Sequence[log.Coalescer], events: log.ClientEvents) -> NoReturn:
    """Log, from time to time, how many refusals, joins and leaves were not logged one by one."""
    try:
        while True:
            await trio.sleep(_SUMMARY_EVERY)
            now = trio.current_time()
            _log_refusals([summary for each in refusals for summary in each.due(now)])
            _log_events(events.due(now))
    finally:
        now = trio.current_time()
        _log_refusals([summary for each in refusals for summary in each.drain(now)])
        _log_events(events.drain(now))


def _log_refusals(summaries: Sequence[log.Summary]) -> None:
    for summary in summaries:
        logger.info(
            "refused more",
            reason=summary.key,
            connections=summary.count,
            networks=summary.sources or None,
            seconds=round(summary.seconds),
        )


def _log_events(summaries: Sequence[log.ClientSummary]) -> None:
    for summary in summaries:
        logger.info(
            _MORE[summary.event],
            connections=summary.count,
            clients=summary.clients,
            networks=summary.networks or None,
            seconds=round(summary.seconds),
        )


def _log_unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    """Log what was raised where nobody can catch it."""
    error = unraisable.exc_value
    if isinstance(error, UnicodeDecodeError):
        # From `ssl`, for a server name that is not ASCII. The handshake itself fails in good order.
        return
    logger.warning("ignored", reason=repr(error), where=unraisable.err_msg)
