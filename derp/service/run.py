"""The root of a process's tree of tasks: serves with what was prepared, until told to stop.

    root ──────── connections ── services ──┬── accept loops ──► connections
    (signals,     (one task      (until     ├── STUN
    the poller,   for each       stop)      ├── timers, reviews, log summaries
    senders of    connection,               ├── bootstrap DNS
    what is       and link to               ├── certificates ──(memory channel)──► listeners
    queued)       a relay)                  └── what the role adds

The nurseries end from the inside: at a stop the services are cancelled, so that no new connection
is accepted; each client gets a Restarting frame and what is queued for it, within a bound; then the
connections are cancelled, and last the root.
"""

import math
from functools import partial
from typing import Protocol

import attrs
import trio

from derp import log
from derp.admission.make import ask_in, opened
from derp.config import Config
from derp.http import routes
from derp.mesh import setup as mesh_setup
from derp.metrics import process
from derp.net.listener import accept_forever
from derp.net.poller import Poller
from derp.net.resolver import Resolver
from derp.net.socketoptions import SocketFactory
from derp.relay.clones import Clones
from derp.relay.pending import PendingConnections
from derp.relay.queuememory import QueueMemory
from derp.relay.tokenbucket import TokenBucket
from derp.service.accept import Acceptor, try_lines
from derp.service.backend import make_backend
from derp.service.drain import drain, stop_listening
from derp.service.live import Live
from derp.service.memory import queue_limit
from derp.service.proxies import Notices, Proxies
from derp.service.rootnursery import open_root_nursery
from derp.service.running import RunningRelay
from derp.service.sockets import tcp_options
from derp.service.startup import StartupResources
from derp.service.status import Pages
from derp.service.summaries import summarize
from derp.session import accounting, review
from derp.session.state import RelayState
from stun import server as stun_server

logger = log.get("server")


class Role(Protocol):
    """The differences between a relay's only process (Standalone) and one of several (Worker)."""

    @property
    def processes(self) -> int:
        """The number of processes that serve clients."""

    @property
    def is_first(self) -> bool:
        """Whether this process logs what holds for all processes."""

    async def is_first_to(self, what: str) -> bool:
        """Return whether no other process has asked this about `what` before."""

    async def start(self, relay: RunningRelay) -> Pages:
        """Start what the role adds, and what tells it to stop; return the pages of /debug/."""

    async def until_stop(self, relay: RunningRelay) -> None:
        """Announce that all is served; return when told to stop."""


async def serve(config: Config, resources: StartupResources, role: Role) -> None:
    """Serve with what was prepared, until told to stop."""
    Resolver().install()
    SocketFactory().install()
    async with opened(resources.admission), open_root_nursery() as root:
        ask_in(root, resources.admission)
        state = RelayState(
            private_key=resources.private_key,
            nursery=root,
            write_timeout=config.tcp.write_timeout,
            rate_limit=resources.rate_limit,
            admission=resources.admission,
            isolate=config.verification.isolate,
            metrics=resources.metrics,
            accounts=resources.accounts,
            usage=resources.accounts,
            tell_refused=config.verification.tell_refused,
            mesh_key=resources.mesh.key,
            pending=_pending_connections(config, role.processes),
            memory=QueueMemory(queue_limit(config.limits.queue_memory, role.processes)),
            poller=Poller(is_on=config.general.poller),
        )
        root.start_soon(state.poller.run)
        root.start_soon(state.prelogin.run)
        if state.accounts is not None:
            root.start_soon(state.accounts.run, partial(accounting.collect, state))
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as services:
                relay = RunningRelay(
                    config=config,
                    resources=resources,
                    state=state,
                    root=root,
                    connections=connections,
                    services=services,
                    proxies=Proxies(
                        config.proxies.trusted,
                        config.proxies.with_header,
                        Notices(connections, role.is_first_to),
                    ),
                )
                pages = await role.start(relay)
                _start_accepting(relay, role, pages)
                _start_services(relay)
                await role.until_stop(relay)
                services.cancel_scope.cancel()
                relay.orders.cancel()
            state.stopping = True
            stop_listening(state, resources.sockets.all)
            await drain(state, role.processes, config.limits.drain_time)
            connections.cancel_scope.cancel()
        if state.accounts is not None:
            await state.accounts.close()
        root.cancel_scope.cancel()
    logger.info("stopped")


def _start_services(relay: RunningRelay) -> None:
    config, resources, state = relay.config, relay.resources, relay.state
    services = relay.services
    for sock in resources.sockets.stun:
        services.start_soon(stun_server.serve, sock, relay.stun_stats, relay.proxies)
    services.start_soon(state.timers.run)
    services.start_soon(review.run, state, Clones(review.grace(config.tcp.user_timeout)))
    services.start_soon(resources.debug_key.watch)
    services.start_soon(resources.admin_token.watch)
    pages = config.pages
    names, unpublished = pages.bootstrap_dns_names, pages.unpublished_bootstrap_dns_names
    if names or unpublished:
        from derp.http.bootstrap_refresh import Refresher  # noqa: PLC0415 - loads dnspython

        services.start_soon(Refresher(relay.bootstrap_dns, names, unpublished).run)
    relay.links.extend(mesh_setup.keepers(config, resources.mesh, state, tcp_options(config)))
    for keeper in relay.links:
        # Not in `services`: packets are forwarded until the drain ends.
        relay.connections.start_soon(keeper.run)


def _start_accepting(relay: RunningRelay, role: Role, pages: Pages) -> None:
    config, resources, state = relay.config, relay.resources, relay.state
    live = Live(relay, pages)
    relay.services.start_soon(live.keep)
    backend = make_backend(relay, pages, live)
    main = Acceptor(
        state,
        relay.connections,
        route=partial(routes.route, backend),
        engine=None if resources.certificates is None else resources.certificates.contexts.engine,
        limit=_accept_limit(config, role.processes),
        refusals=log.Coalescer(),
        tries=try_lines(role.processes),
        proxies=relay.proxies,
    )
    in_clear = backend.in_clear()
    plain = attrs.evolve(main, route=partial(routes.route_plain, in_clear), engine=None, limit=None)
    if config.pages.is_hidden:
        from derp.service.hiding import hide  # noqa: PLC0415 - most relays don't

        main, plain = hide(main, backend), hide(plain, in_clear, plain=True)
    # In `connections`, not `services`: a drain may last longer than a handshake may.
    relay.connections.start_soon(main.handshakes.run)
    if relay.proxies.expects_headers:
        relay.connections.start_soon(main.headers.run)
    if role.is_first:
        relay.descriptors.log_if_few_fit()
    for acceptor, listeners in ((main, resources.sockets.main), (plain, resources.sockets.plain)):
        for listener in listeners:
            accept = partial(accept_forever, is_behind=acceptor.is_behind)
            relay.services.start_soon(accept, listener, acceptor.accept, relay.descriptors)
    for sock in resources.sockets.all:
        state.poller.add_urgent(sock.fileno())
    state.poller.add_urgent(state.prelogin.fileno())
    relay.services.start_soon(summarize, (main.refusals, main.crowded), state.client_events)


def _accept_limit(config: Config, processes: int) -> TokenBucket | None:
    """Return the limit for each of `processes` processes; None for no limit."""
    if not math.isfinite(config.limits.accept_limit):
        return None
    burst = max(1, config.limits.accept_burst // processes)
    return TokenBucket(config.limits.accept_limit / processes, burst, trio.current_time())


def _pending_connections(config: Config, processes: int) -> PendingConnections:
    """Return the bounds on the pending connections of each of `processes` processes."""
    most = config.limits.per_network_pending_limit
    if most:
        # The kernel spreads connections by chance, so a process needs more than its even share.
        most = max(1, min(max(most // processes, min(most, 64)), process.max_fds() // 4))
    return PendingConnections(
        rate=config.limits.per_network_accept_limit / processes,
        max_pending=most,
        proxies=config.proxies.all,
    )
