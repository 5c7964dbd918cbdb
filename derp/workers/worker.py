"""A worker: a process that serves clients; its supervisor does what a relay does once.

It obeys its RPC connection only: signals that a terminal or a service manager sends to the
whole process group are for the supervisor. The end of that connection means stop.
"""

import contextlib
import os
import socket
import stat
from collections.abc import Sequence
from datetime import UTC, datetime

import attrs
import trio
from nacl.public import PrivateKey

from derp.accounts.keeper import FLUSH_EVERY, Accounts
from derp.config import Config
from derp.config.certplan import make_plan
from derp.errors import RPCFailed, StartError, UsageError
from derp.files.admintoken import AdminToken
from derp.files.debugkey import DebugKey
from derp.files.ratelimit import RateConfig
from derp.mesh import setup as mesh_setup
from derp.metrics import Metrics
from derp.net.descriptors import raise_limit
from derp.service import startup
from derp.service.interpreter import logging_started, tune_garbage_collector
from derp.service.keytraffic import KeyTraffic
from derp.service.run import serve
from derp.service.running import RunningRelay
from derp.service.startup import StartupResources
from derp.service.status import Pages
from derp.session import serverinfo
from derp.workers import clients, links, monitoring, steering
from derp.workers.accounts import WorkerSink
from derp.workers.admission import WorkerAdmission, WorkerRechecks
from derp.workers.certificates import WorkerCertificates, follow
from derp.workers.handover import Handover, adopt, this_code
from derp.workers.notices import FIRST
from derp.workers.pages import worker_handlers, worker_pages
from derp.workers.policy import WorkerPolicy
from derp.workers.rpc import RPC, Json, receive_first


def adopt_rpc_socket(words: Sequence[str]) -> socket.socket:
    """Return the RPC connection's socket: the argument is its descriptor. Raises UsageError."""
    with contextlib.suppress(OSError, ValueError, OverflowError):
        number = int("".join(words))
        if stat.S_ISSOCK(os.fstat(number).st_mode):
            return adopt(number)
    raise UsageError("worker: only derper itself starts workers; want -workers N")


def run(sock: socket.socket, config: Config) -> None:
    """Serve until told to stop on the RPC connection. Raises StartError."""
    try:
        message = receive_first(sock)
    except RPCFailed as error:
        raise StartError(f"worker: {error}") from error
    if (theirs := message.get("code")) != this_code():
        # The files were updated while the relay ran: the messages may have changed.
        raise StartError(
            f"worker: this is {this_code()}, and its supervisor {theirs}; restart derper"
        )
    handover = Handover.from_json(message)
    with logging_started(worker=handover.index), contextlib.ExitStack() as stack:
        worker = _prepare(config, handover, RPC(sock), stack)
        tune_garbage_collector()
        trio.run(serve, config, worker.resources, worker)


def _prepare(config: Config, handover: Handover, rpc: RPC, stack: contextlib.ExitStack) -> "Worker":
    """Prepare a worker before it serves; `stack` closes its sockets. Blocks."""
    raise_limit()
    sockets = handover.sockets()
    peer_socket = adopt(handover.peer_socket)
    for sock in (*sockets.all, peer_socket):
        stack.enter_context(sock)
    private_key = PrivateKey(handover.node_key)
    certificates = None
    if handover.certificates is not None:
        now = datetime.now(UTC)
        metacert = startup.metacert(config, private_key, now)
        plan = make_plan(config)
        certificates = follow(plan, handover.certificates, metacert, now, rpc.call)
    debug_key = DebugKey(config.debug.key_file)
    debug_key.read()
    admin_token = AdminToken(config.debug.admin_token_file)
    admin_token.read()
    accounts = None
    if config.counts_bytes:
        accounts = Accounts(WorkerSink(rpc.call, handover.index), FLUSH_EVERY / 2)
    resources = StartupResources(
        private_key=private_key,
        rate_limit=handover.rate_limit,
        metrics=Metrics(),
        admission=WorkerAdmission(rpc.call) if handover.has_admission else None,
        mesh=mesh_setup.auth_with_key(config, handover.mesh_key),
        certificates=None if certificates is None else certificates.certificates,
        sockets=sockets,
        debug_key=debug_key,
        admin_token=admin_token,
        accounts=accounts,
    )
    return Worker(handover, rpc, resources, certificates, peer_socket)


@attrs.define(eq=False)
class Worker:
    """The Role of a worker (derp.service.run), and what was prepared for it."""

    handover: Handover
    rpc: RPC
    resources: StartupResources
    certificates: WorkerCertificates | None
    peer_socket: socket.socket
    """The listening socket that the other workers connect to."""
    _stop: trio.Event = attrs.field(init=False, factory=trio.Event)

    @property
    def processes(self) -> int:
        """The number of processes that serve clients."""
        return self.handover.workers

    @property
    def is_first(self) -> bool:
        """Whether this process logs what holds for all workers."""
        return self.handover.index == 0

    async def start(self, relay: RunningRelay) -> Pages:
        """Link to the other workers, and answer the supervisor; return the pages of the relay."""
        state, handover = relay.state, self.handover
        state.become_worker(handover.index, handover.worker_key)

        async def set_rate_limit(body: Json) -> None:
            serverinfo.apply(state, relay.connections, RateConfig(*body))

        async def stop(_: Json) -> None:
            self._stop.set()

        async def ping(_: Json) -> None:
            """Show that the event loop turns."""

        self.rpc.in_order["worker.rate_limit"] = set_rate_limit
        self.rpc.handlers |= {"worker.stop": stop, "worker.ping": ping}
        self.rpc.handlers |= worker_handlers(relay) | clients.worker_handlers(state)
        self.rpc.handlers |= steering.worker_handlers(state)
        if max_keys := relay.config.monitoring.max_keys:
            self.rpc.handlers |= monitoring.worker_handlers(KeyTraffic(state, max_keys))
        if self.certificates is not None:
            self.rpc.in_order |= self.certificates.handlers
            relay.services.start_soon(self.certificates.run)
        if state.admission is not None:
            every = relay.config.verification.recheck_every
            rechecks = WorkerRechecks(state, state.admission, every, handover.workers)
            self.rpc.in_order |= rechecks.handlers
            relay.services.start_soon(rechecks.run)
        # In `connections`: calls come until the end, and `services` end before `state.stopping`.
        policy = WorkerPolicy(state, relay.connections, self.rpc.call)
        self.rpc.in_order |= policy.in_order
        # Not in `services`: packets go from worker to worker until the drain ends.
        relay.connections.start_soon(
            links.accept_workers, self.peer_socket, state, relay.connections
        )
        for keeper in links.keepers(state, handover.peer_addresses, handover.index):
            relay.connections.start_soon(keeper.run)
        # Last, since it calls the handlers.
        relay.root.start_soon(self._obey)
        if handover.has_policy:
            await policy.fetch(self._stop)
        return worker_pages(self.rpc.call, handover.workers)

    async def is_first_to(self, what: str) -> bool:
        """Return whether no worker has asked this about `what` before."""
        try:
            return bool(await self.rpc.call(FIRST, what))
        except RPCFailed:
            return False

    async def until_stop(self, _: RunningRelay) -> None:
        """Tell the supervisor that this worker serves; return when told to stop."""
        with contextlib.suppress(RPCFailed):
            await self.rpc.call("worker.ready")
        await self._stop.wait()

    async def _obey(self) -> None:
        """Answer the supervisor's calls; when their connection ends, stop."""
        await self.rpc.run()
        self._stop.set()
