"""A worker: a relay in all but what its supervisor does for all of them.

It is told what to do on its control connection, and by nothing else: signals that a terminal or a
service manager sends to the whole group are for the supervisor. When that connection ends, it stops
as if it had been told to.
"""

import contextlib
import os
import socket
import stat
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial

import attrs
import trio
from nacl.public import PrivateKey

from certs.metacert import make_metacert
from derp.config import Config
from derp.config.certplan import make_plan
from derp.errors import ControlLost, StartError, UsageError
from derp.files.debugkey import DebugKey
from derp.files.ratelimit import RateConfig
from derp.http.routes import StatusSource
from derp.mesh import plan as mesh_plan
from derp.metrics import Metrics
from derp.net.descriptors import raise_limit
from derp.service.run import (
    Event,
    Events,
    Role,
    RunningRelay,
    calm_garbage_collector,
    serve,
    started,
)
from derp.service.startup import StartupResources
from derp.session import serverinfo
from derp.workers import links
from derp.workers.admission import Removals, WorkerAdmission
from derp.workers.certificates import WorkerCertificates, follow
from derp.workers.handover import Handover, adopt, this_code
from derp.workers.rpc import RPC, Json, receive_first
from derp.workers.workerpages import make_pages


def take_control(words: Sequence[str]) -> socket.socket:
    """Return the control connection that the word behind `worker` names. Raises UsageError."""
    with contextlib.suppress(OSError, ValueError, OverflowError):
        number = int("".join(words))
        if stat.S_ISSOCK(os.fstat(number).st_mode):
            return adopt(number)
    raise UsageError("worker: only derper itself starts workers; want -workers N")


def run(control: socket.socket, config: Config) -> None:
    """Serve until told to stop on the control connection. Raises StartError."""
    try:
        message = receive_first(control)
    except ControlLost as error:
        raise StartError(f"worker: {error}") from error
    if (theirs := message.get("code")) != this_code():
        # As after an update under a running relay: what they tell each other may have changed.
        raise StartError(
            f"worker: this is {this_code()}, and its supervisor {theirs}; restart derper"
        )
    handover = Handover.from_json(message)
    with started(worker=handover.index), contextlib.ExitStack() as stack:
        worker = _prepare(config, handover, RPC(control), stack)
        calm_garbage_collector()
        trio.run(serve, config, worker.resources, partial(WorkerRole, worker))


@attrs.frozen
class Worker:
    """What a worker has before it serves."""

    handover: Handover
    control: RPC
    resources: StartupResources
    certificates: WorkerCertificates | None


def _prepare(
    config: Config, handover: Handover, control: RPC, stack: contextlib.ExitStack
) -> Worker:
    """Get ready with what the supervisor has prepared; `stack` closes the sockets. Blocks."""
    raise_limit()
    sockets = handover.sockets()
    for sock in sockets.all:
        stack.enter_context(sock)
    private_key = PrivateKey(handover.node_key)
    certificates = None
    if handover.certificates is not None:
        now = datetime.now(UTC)
        metacert = make_metacert(bytes(private_key.public_key), now)
        plan = make_plan(config)
        certificates = follow(plan, handover.certificates, metacert, now, control.call)
    debug_key = DebugKey(config.debug.key_file)
    debug_key.look()
    resources = StartupResources(
        private_key=private_key,
        rate_limit=handover.rate_limit,
        metrics=Metrics(),
        admission=WorkerAdmission(control.call) if handover.is_gated else None,
        mesh=mesh_plan.join_plan(config, handover.mesh_key),
        certificates=None if certificates is None else certificates.certificates,
        sockets=sockets,
        debug_key=debug_key,
    )
    return Worker(handover, control, resources, certificates)


class WorkerRole(Role):
    """What a worker does beside serving."""

    def __init__(self, worker: Worker) -> None:
        super().__init__()
        self.workers = worker.handover.workers
        self.tells_of_limits = worker.handover.index == 0
        self._worker = worker
        self._control = worker.control
        self._begun = trio.Event()

    async def hear(
        self, events: Events, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Answer the supervisor until it has gone, which is a reason to stop."""

        async def stop(_: Json) -> None:
            await events.send(Event.STOP)

        self._control.handlers["worker.stop"] = stop
        task_status.started()
        # The other handlers are there from `start` on.
        await self._begun.wait()
        await self._control.run()
        await events.send(Event.STOP)

    def make_status_source(self, running: RunningRelay) -> StatusSource:
        """Make pages that show the whole relay."""
        certificates = running.resources.certificates
        challenges = None
        if certificates is not None and running.config.serve_acme:
            challenges = certificates.contexts.http_challenges
        pages = make_pages(
            *(running.config, running.state, running.stats, running.names),
            *(challenges, running.links, self._control.call),
        )
        self._control.handlers.update(pages.handlers)
        return pages.site

    def start(self, running: RunningRelay, services: trio.Nursery) -> None:
        """Mesh with the other workers, and do what the supervisor says."""
        state, connections = running.state, running.connections
        handover, certificates = self._worker.handover, self._worker.certificates
        told, asked = self._control.in_order, self._control.handlers
        state.be_worker(handover.index, handover.worker_key)

        async def set_rate_limit(body: Json) -> None:
            serverinfo.apply(state, services, RateConfig(*body))

        async def say_so(_: Json) -> None:
            """Answer whether this process is well."""

        told["worker.rate_limit"] = set_rate_limit
        asked["worker.well"] = say_so
        if certificates is not None:
            told.update(certificates.handlers)
            services.start_soon(certificates.run)
        if state.admission is not None:
            again = running.config.verification.recheck_every
            dismissals = Removals(state, state.admission, again, handover.workers)
            told.update(dismissals.handlers)
            services.start_soon(dismissals.run)
        # As long as there are clients, packets go from worker to worker.
        connections.start_soon(links.accept_workers, adopt(handover.door), state, connections)
        for keeper in links.keepers(state, handover.doors, handover.index):
            connections.start_soon(keeper.run)
        self._begun.set()

    async def serving(self, _: RunningRelay) -> None:
        """Tell the supervisor that all is served."""
        with contextlib.suppress(ControlLost):
            await self._control.call("worker.ready")
