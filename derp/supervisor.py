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
import json
import math
import random
import signal
import socket
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final, NoReturn

import attrs
import trio
from nacl.public import PrivateKey

from certs.errors import CertificateError
from certs.metacert import make_metacert
from certs.pair import Pair
from derp import admission, keyfile, log, mapentry, rateconfig, timers
from derp.accept import Door
from derp.admit.gate import Gate
from derp.certificates.plan import make_plan
from derp.certificates.tasks import Certificates, load
from derp.config import Config
from derp.errors import ReloadError, StartError
from derp.http import routes
from derp.http.bootstrap_dns import BootstrapDNS
from derp.http.bootstrap_refresh import Refresher
from derp.mesh import plan as mesh_plan
from derp.metrics import Metrics
from derp.net.descriptors import Descriptors, raise_limit
from derp.net.listener import accept_forever, endpoint
from derp.rateconfig import NO_LIMIT, RateConfig
from derp.relay.ratelimit import TokenBucket
from derp.server import Server
from derp.site import make_site
from derp.sockets import Sockets, open_all, tcp_options
from derp.wire.frames import restarting
from stun import server as stun_server

DRAIN_SECONDS: Final = 3.0
"""How long stopping waits for what is queued to be sent."""
RECONNECT_SPREAD_MS: Final = 2000
RECONNECT_SPREAD_PER_CLIENT_MS: Final = 2
"""Clients are told to come back at a random moment within this time: the first, or if they are
many, as much for each as a login may take."""
RELAYS_RECONNECT_MS: Final = 1000
"""Mesh peers are few, and without them clients of different relays don't meet."""
TRY_FOR_MS: Final = 10_000
"""How long clients are told to go on trying."""

_EVENTS: Final = 8
_GC_THRESHOLDS: Final = (20_000, 10, 50)
_SUMMARY_EVERY: Final = 10.0

logger = log.get("server")


class Event(enum.Enum):
    """What the signal task asks of the supervisor."""

    STOP = enum.auto()
    RELOAD = enum.auto()


@attrs.frozen
class Prepared:
    """Everything that can fail at start, got ready before anything is served."""

    private_key: PrivateKey = attrs.field(repr=False)
    rate_limit: RateConfig
    metrics: Metrics
    gate: Gate | None
    mesh: mesh_plan.Plan
    certificates: Certificates | None
    sockets: Sockets


def run(config: Config) -> None:
    """Serve until SIGTERM or SIGINT. Raises StartError where this machine can't."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(log.start())
        sys.unraisablehook = _log_unraisable
        stack.callback(setattr, sys, "unraisablehook", sys.__unraisablehook__)
        prepared = _prepare(config, stack)
        _calm_garbage_collector()
        trio.run(serve, config, prepared)


def _calm_garbage_collector() -> None:
    """Look for cycles seldom, and never among what was loaded at start.

    A look at all that a thousand clients hold takes milliseconds, in which no packet moves.
    Relaying makes no cycles; ended connections make a few, found among the young objects.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)


def _prepare(config: Config, stack: contextlib.ExitStack) -> Prepared:
    """Read the files and open the sockets, which `stack` closes. Blocks: nothing runs yet."""
    raise_limit()
    mesh = mesh_plan.make_plan(config)
    sockets = open_all(config, stack)
    rate_limit = NO_LIMIT
    if config.rate_config is not None:
        rate_limit = rateconfig.load(config.rate_config)
    metrics = Metrics()
    gate = admission.make_gate(config, metrics)
    now = datetime.now(UTC)
    with _start_errors():
        plan = make_plan(config) if config.serve_tls else None
        found = [] if plan is None else load(plan, now)
    # Last, so that a start that fails for another reason leaves no new key behind.
    if config.key_path is None:
        private_key = PrivateKey.generate()
    else:
        private_key = PrivateKey(keyfile.load_or_make(config.key_path).raw)
    certificates = None
    if plan is not None:
        metacert = make_metacert(bytes(private_key.public_key), now)
        with _start_errors():
            certificates = Certificates(plan, found, metacert)
    return Prepared(
        private_key=private_key,
        rate_limit=rate_limit,
        metrics=metrics,
        gate=gate,
        mesh=mesh,
        certificates=certificates,
        sockets=sockets,
    )


@contextlib.contextmanager
def _start_errors() -> Iterator[None]:
    """Turn what is wrong with the operator's certificate into what ends the start."""
    try:
        yield
    except CertificateError as error:
        raise StartError(str(error)) from error


async def serve(config: Config, prepared: Prepared) -> None:
    """Serve on what was prepared, until the signal task says to stop."""
    to_supervisor, events = trio.open_memory_channel[Event](_EVENTS)
    look_at_list, looks = trio.open_memory_channel[None](1)
    async with admission.opened(prepared.gate), trio.open_nursery() as senders:
        server = Server(
            prepared.private_key,
            senders,
            config.tcp_write_timeout,
            prepared.rate_limit,
            prepared.gate,
            prepared.metrics,
            prepared.mesh.key,
        )
        # To the end, so that a second signal does not cut the drain short.
        await senders.start(_signals, to_supervisor)
        senders.start_soon(server.poller.run)
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as services:
                _start_services(config, prepared, server, services, connections, looks)
                _announce(config, prepared)
                async for event in events:
                    if event is Event.STOP:
                        break
                    if prepared.certificates is not None:
                        prepared.certificates.wake()
                    with contextlib.suppress(trio.WouldBlock):
                        look_at_list.send_nowait(None)
                    # On its own, so that a file that can't be read to its end delays no stop.
                    services.start_soon(_reload, config, server)
                services.cancel_scope.cancel()
            server.stopping = True
            stop_listening(server, prepared.sockets.all)
            await drain(server)
            connections.cancel_scope.cancel()
        senders.cancel_scope.cancel()
    logger.info("stopped")


def _start_services(
    config: Config,
    prepared: Prepared,
    server: Server,
    services: trio.Nursery,
    connections: trio.Nursery,
    looks: trio.MemoryReceiveChannel[None],
) -> None:
    stats = stun_server.Stats()
    names = BootstrapDNS()
    refusals = log.Coalescer()
    certificates = prepared.certificates
    links = mesh_plan.keepers(config, prepared.mesh, server, tcp_options(config))
    site = make_site(config, server, stats, names, certificates, links)
    limit = None
    if math.isfinite(config.accept_connection_limit):
        burst = config.accept_connection_burst
        limit = TokenBucket(config.accept_connection_limit, burst, trio.current_time())
    engine = None if certificates is None else certificates.engine
    door = Door(server, connections, partial(routes.route, site), engine, limit, refusals)
    plain_door = attrs.evolve(
        door, route=partial(routes.route_plain, site), engine=None, limit=None
    )
    descriptors = Descriptors()
    descriptors.tell_if_few_fit()
    for listener in prepared.sockets.main:
        services.start_soon(accept_forever, listener, door.admit, descriptors)
    for listener in prepared.sockets.plain:
        services.start_soon(accept_forever, listener, plain_door.admit, descriptors)
    for sock in prepared.sockets.all:
        server.poller.add_urgent(sock.fileno())
    for sock in prepared.sockets.stun:
        services.start_soon(stun_server.serve, sock, stats)
    if certificates is not None:
        services.start_soon(certificates.run, partial(_announce_node, config, prepared))
    if prepared.gate is not None:
        services.start_soon(admission.keep, server, prepared.gate, config.verify_again, looks)
    services.start_soon(timers.run, server)
    services.start_soon(_summarize_refusals, refusals)
    refresher = Refresher(names, config.bootstrap_dns_names, config.unpublished_bootstrap_dns_names)
    services.start_soon(refresher.run)
    for keeper in links:
        # As long as there are clients, packets are forwarded.
        connections.start_soon(keeper.run)


async def _signals(
    to_supervisor: trio.MemorySendChannel[Event],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Turn signals into events."""
    wanted = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    with trio.open_signal_receiver(*wanted) as signals:
        task_status.started()
        async for number in signals:
            await to_supervisor.send(Event.RELOAD if number == signal.SIGHUP else Event.STOP)


async def _reload(config: Config, server: Server) -> None:
    """Read the rate limit again; what can't be read leaves the old one in force."""
    if config.rate_config is None:
        logger.info("SIGHUP: looking at certificates and lists; there is no -rate-config")
        return
    try:
        limit = await trio.to_thread.run_sync(
            rateconfig.load, config.rate_config, ReloadError, abandon_on_cancel=True
        )
    except ReloadError as error:
        logger.error("the old rate limit stays in force", reason=str(error))  # noqa: TRY400
        return
    server.set_rate_limit(limit)
    logger.info("rate limit applied", bytes_per_second=limit.bytes_per_second, burst=limit.burst)


async def _summarize_refusals(refusals: log.Coalescer) -> NoReturn:
    """Log, from time to time, how many refusals were not logged one by one."""
    try:
        while True:
            await trio.sleep(_SUMMARY_EVERY)
            _log_summaries(refusals.due(trio.current_time()))
    finally:
        _log_summaries(refusals.drain(trio.current_time()))


def _log_summaries(summaries: Sequence[log.Summary]) -> None:
    for summary in summaries:
        logger.info(
            "refused more",
            reason=summary.key,
            connections=summary.count,
            networks=summary.sources,
            seconds=round(summary.seconds),
        )


def _log_unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    """Log what was raised where nobody can catch it."""
    error = unraisable.exc_value
    if isinstance(error, UnicodeDecodeError):
        # From `ssl`, for a server name that is not ASCII. The handshake itself fails in good order.
        return
    logger.warning("ignored", reason=repr(error), where=unraisable.err_msg)


def stop_listening(server: Server, listeners: Iterable[socket.socket]) -> None:
    """Close sockets, once the poller has forgotten them: others get their numbers."""
    for sock in listeners:
        server.poller.drop_urgent(sock.fileno())
        sock.close()


async def drain(server: Server) -> None:
    """Tell the clients that the server goes, and give what is queued a moment to be sent."""
    clients = len(server.hub.members)
    logger.info("stopping", clients=clients)
    spread = max(RECONNECT_SPREAD_MS, clients * RECONNECT_SPREAD_PER_CLIENT_MS)
    for connection in list(server.hub.members):
        reconnect_in = RELAYS_RECONNECT_MS
        if not connection.can_mesh:
            reconnect_in = random.randrange(spread)  # noqa: S311 -- only spreads load
        connection.send_control(restarting(reconnect_in, spread + TRY_FOR_MS))
    with trio.move_on_after(DRAIN_SECONDS):
        await server.all_sent()


def _announce(config: Config, prepared: Prepared) -> None:
    """Say what is served where and to whom, and what to put into the DERP map."""
    kind = "HTTPS" if prepared.certificates is not None else "HTTP"
    served = (("HTTP", prepared.sockets.plain), ("STUN", prepared.sockets.stun))
    for what, opened in ((kind, prepared.sockets.main), *served):
        for sock in opened:
            logger.info("serving", what=what, address=str(endpoint(sock.getsockname())))
    if config.derp and prepared.certificates is None and not config.dev:
        logger.warning(
            "clients want HTTPS, and this is HTTP: have a proxy serve it, or take port 443, "
            "-certmode manual or -acme-directory",
            address=str(config.addr),
        )
    if config.derp:
        admission.announce(config, prepared.gate)
        mesh_plan.announce(config, prepared.mesh)
    if prepared.certificates is not None and config.hostname_is_ip:
        pair = prepared.certificates.statuses[0].pair
        # One that is renewed every few days must not be pinned.
        _announce_node(config, prepared, None if config.serve_acme else pair)


def _announce_node(config: Config, prepared: Prepared, pair: Pair | None) -> None:
    """Print the node for the DERP map of a relay that is reached by its address."""
    if not config.derp and not config.stun:
        return
    node = mapentry.make_node(
        config,
        None if pair is None else mapentry.pin_for(config, pair),
        derp_port=prepared.sockets.main[0].getsockname()[1],
        stun_port=prepared.sockets.stun[0].getsockname()[1] if prepared.sockets.stun else None,
    )
    # On standard output, to be copied as it is: in the log its quotes would be escaped.
    sys.stdout.write(f"Put this node into your DERP map:\n  {json.dumps(node.fields())}\n")
    sys.stdout.flush()
