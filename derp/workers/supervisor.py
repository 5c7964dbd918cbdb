"""The supervisor: the parent process of the workers, which does what a relay does once.

    signals ──(memory channel)──► serve ──► pool ──► worker 0, 1, …   (processes)
    certificates: orders them                             │
    admission: asks the sources            ◄── RPC ──────┘
    pages: merges the workers' snapshots, also for monitors

It serves no client. It opens all sockets and keeps them; the kernel spreads connections over the
workers. If it dies, the workers' RPC connections end, and so the workers stop.
"""

import contextlib
import secrets
import socket
from collections.abc import Sequence
from functools import partial
from typing import Final

import trio

from derp import log
from derp.admission.listkeeper import ListRequest
from derp.admission.make import ask_in, opened
from derp.admission.policykeeper import PolicyRequest, policy_of
from derp.config import Config
from derp.errors import StartError
from derp.files.ratelimit import RateConfig
from derp.net import system
from derp.net.descriptors import Descriptors
from derp.net.resolver import Resolver
from derp.service import control
from derp.service.announce import announce, announce_node
from derp.service.control import ControlBackend
from derp.service.interpreter import logging_started, tune_garbage_collector
from derp.service.keybook import KeyBook
from derp.service.keylist import has_list, list_to_steer
from derp.service.monitoring import serve as serve_monitors
from derp.service.reload import reload_rate_limit
from derp.service.rootnursery import open_root_nursery
from derp.service.running import run_within
from derp.service.signals import Event, Receive, receive_signals
from derp.service.sockets import start_errors
from derp.service.standalone import run as run_standalone
from derp.service.startup import StartupResources, prepare
from derp.workers.accounts import SupervisorAccounts
from derp.workers.admission import SupervisorAdmission
from derp.workers.certificates import SupervisorCertificates
from derp.workers.clients import WorkerClients
from derp.workers.handover import Handover, this_code
from derp.workers.monitoring import supervisor_backend
from derp.workers.notices import SupervisorNotices
from derp.workers.pages import SupervisorPages
from derp.workers.policy import SupervisorPolicy
from derp.workers.pool import WorkerPool
from derp.workers.rpc import Handler
from derp.workers.steering import SupervisorSteering

_EVENTS: Final = 8
_PEER_BACKLOG: Final = 256

logger = log.get("workers")


def run(config: Config, arguments: Sequence[str]) -> None:
    """Serve with the workers that `config` asks for, until SIGTERM or SIGINT.

    The workers get the same `arguments`. Raises StartError where this machine can't.
    """
    count = config.limits.workers or (system.cores() if system.IS_LINUX else 1)
    if count == 1:
        run_standalone(config)
        return
    if not system.IS_LINUX:
        raise StartError(f"-workers {count}: only Linux shares a port among processes; leave it 1")
    with logging_started(), contextlib.ExitStack() as stack:
        resources = prepare(config, stack, count)
        peer_sockets = [stack.enter_context(listen_for_peers()) for _ in range(count)]
        tune_garbage_collector()

        async def serve() -> None:
            await Supervisor(config, resources, peer_sockets, arguments).serve()

        trio.run(serve)


def listen_for_peers() -> socket.socket:
    """Listen for workers on an abstract unix socket, named by the kernel. Raises StartError."""
    with contextlib.ExitStack() as undo, start_errors("no unix socket for the workers"):
        listener = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        listener.setblocking(False)
        listener.bind("")
        listener.listen(_PEER_BACKLOG)
        undo.pop_all()
    return listener


class Supervisor:
    """The parent process of the workers."""

    def __init__(
        self,
        config: Config,
        resources: StartupResources,
        peer_sockets: Sequence[socket.socket],
        arguments: Sequence[str],
        receive: Receive = receive_signals,
    ) -> None:
        """`receive` takes signals, and sends the events to act on; the workers get `arguments`."""
        self._config = config
        self._resources = resources
        self._peer_sockets = peer_sockets
        self._receive = receive
        self._worker_key = secrets.token_bytes(32)
        self._rate_limit = resources.rate_limit
        checker, certificates = resources.own_checker, resources.certificates
        self._pool = pool = WorkerPool(
            len(resources.all_sockets), arguments, self._handover, config.limits.drain_time
        )
        source = policy_of(checker)
        self._book = book = KeyBook(source, checker)
        self._pages = SupervisorPages(config, resources.metrics, checker, certificates, pool, book)
        self._notices = SupervisorNotices()
        self._clients = WorkerClients(pool)
        self._to_list, self._list_requests = trio.open_memory_channel[ListRequest](1)
        self._to_policy, self._policy_requests = trio.open_memory_channel[PolicyRequest](1)
        self._policy = SupervisorPolicy(source, checker, pool)
        key_list = list_to_steer(checker, self._to_list)
        self._steering = SupervisorSteering(pool, self._to_policy, key_list)
        self._certificates = self._admission = self._accounts = None
        if certificates is not None:
            self._certificates = SupervisorCertificates(certificates, pool)
        if checker is not None:
            self._admission = SupervisorAdmission(checker, pool)
        if resources.accounts is not None:
            self._accounts = SupervisorAccounts(resources.accounts)
        self._orders = trio.CancelScope()
        self._failed = False

    async def serve(self) -> None:
        """Keep the workers serving until a signal says to stop. Raises StartError."""
        Resolver().install()
        pool = self._pool
        to_serve, events = trio.open_memory_channel[Event](_EVENTS)
        async with opened(self._resources.admission), open_root_nursery() as nursery:
            ask_in(nursery, self._resources.admission)
            await nursery.start(self._receive, to_serve)
            if self._admission is not None:
                nursery.start_soon(self._admission.keep, self._list_requests)
            nursery.start_soon(self._policy.keep, self._policy_requests, self._recheck)
            if self._accounts is not None:
                # The supervisor has no clients whose counts it could collect.
                nursery.start_soon(self._accounts.accounts.run, trio.lowlevel.checkpoint)
            for slot in pool.slots:
                nursery.start_soon(pool.keep, slot, self._handlers())
            nursery.start_soon(self._wait_for_start, to_serve, nursery)
            if self._resources.monitoring:
                nursery.start_soon(
                    serve_monitors,
                    self._resources.monitoring,
                    supervisor_backend(self._pages, pool, self._config.monitoring.max_keys),
                    self._resources.metrics,
                    Descriptors(),
                )
            if self._resources.control is not None:
                nursery.start_soon(
                    control.serve, self._resources.control, self._control_backend(), Descriptors()
                )
            async for event in events:
                if event is Event.STOP:
                    break
                self._reload(nursery)
            logger.info("stopping", workers=pool.size)
            # What an order leaves behind it is removed while the workers drain.
            self._orders.cancel()
            # Once the workers close theirs too, clients are refused, unless systemd keeps a socket.
            for sockets in self._resources.all_sockets:
                for sock in sockets.all:
                    sock.close()
            await pool.stop()
            if self._accounts is not None:
                await self._accounts.accounts.close()
            nursery.cancel_scope.cancel()
        if self._failed:
            raise StartError("not all workers have started; the lines above say why")
        logger.info("stopped")

    async def _wait_for_start(
        self, to_serve: trio.MemorySendChannel[Event], nursery: trio.Nursery
    ) -> None:
        """Announce what is served once all workers serve; if one can't start, stop.

        Certificates are ordered only then: a worker that starts would answer a challenge with 404.
        """
        pool = self._pool
        for slot in pool.slots:
            await slot.started.wait()
        if pool.stopping:
            return
        if not all(slot.has_served for slot in pool.slots):
            self._failed = True
            await to_serve.send(Event.STOP)
            return
        announce(self._config, self._resources)
        logger.info("workers share the work", workers=pool.size)
        if self._certificates is not None:
            announce_new = partial(announce_node, self._config, self._resources)
            keep = partial(self._certificates.run, announce_new)
            nursery.start_soon(run_within, self._orders, keep)

    def _control_backend(self) -> ControlBackend:
        return ControlBackend(
            self._clients.all,
            self._book,
            self._steering.steer,
            self._pages.refused,
            self._to_list if has_list(self._resources.own_checker) else None,
        )

    async def _recheck(self, removed: set[bytes]) -> None:
        if self._admission is not None:
            await self._admission.notify_removed(removed)

    def _handlers(self) -> dict[str, Handler]:
        """Return the handlers for every worker's calls."""
        handlers = self._pages.handlers | self._notices.handlers | self._clients.handlers
        handlers |= self._policy.handlers | self._steering.handlers
        for part in (self._certificates, self._admission, self._accounts):
            if part is not None:
                handlers |= part.handlers
        return handlers

    def _handover(self, index: int) -> Handover:
        """Return the Handover of a worker that starts now."""
        resources, certificates = self._resources, self._certificates
        sockets = resources.all_sockets[index]
        return Handover(
            code=this_code(),
            index=index,
            workers=self._pool.size,
            node_key=bytes(resources.private_key),
            mesh_key=resources.mesh.key,
            worker_key=self._worker_key,
            main=[sock.fileno() for sock in sockets.main],
            plain=[sock.fileno() for sock in sockets.plain],
            stun=[sock.fileno() for sock in sockets.stun],
            peer_socket=self._peer_sockets[index].fileno(),
            peer_addresses=[listener.getsockname() for listener in self._peer_sockets],
            rate_limit=self._rate_limit,
            has_admission=self._admission is not None,
            has_policy=self._policy.is_set,
            certificates=None if certificates is None else certificates.handover(),
        )

    def _reload(self, nursery: trio.Nursery) -> None:
        """Read all files again, and have the workers do so."""

        def apply(limit: RateConfig) -> None:
            self._rate_limit = limit
            body = [limit.bytes_per_second, limit.burst]
            nursery.start_soon(self._pool.call_all, "worker.rate_limit", body)

        if self._certificates is not None:
            nursery.start_soon(self._certificates.wake)
        with contextlib.suppress(trio.WouldBlock):
            self._to_list.send_nowait(None)
        with contextlib.suppress(trio.WouldBlock):
            # A change that waits instead has the file read, too.
            self._to_policy.send_nowait(None)
        nursery.start_soon(reload_rate_limit, self._config, apply)
