"""The supervisor of the workers: all that a relay has once, and that serves nobody itself.

    signals ──(memory channel)──► this function ──► pool ──► worker 0, 1, …   (processes)
    certificates, which are ordered here                       │
    gate, which is asked here           ◄── control ──────────┘
    pages, which are put together here

It opens all sockets and keeps them; the kernel spreads what comes over the workers. Should it die,
the workers notice by their control connections, and end.
"""

import contextlib
import secrets
import socket
from collections.abc import Sequence
from functools import partial
from typing import Final

import trio

from derp import log
from derp.admission.make import opened
from derp.config import Config
from derp.errors import StartError
from derp.files.ratelimit import RateConfig
from derp.net.resolver import Resolver
from derp.service.announce import announce, announce_node
from derp.service.run import Event, calm_garbage_collector, hear_signals, reload_rate_limit, started
from derp.service.run import run as run_one_process
from derp.service.startup import StartupResources, prepare
from derp.workers.admission import SupervisorAdmission
from derp.workers.certificates import SupervisorCertificates
from derp.workers.handover import Handover, this_code
from derp.workers.pages import SupervisorPages
from derp.workers.pool import WorkerPool, cores
from derp.workers.rpc import Handler

_EVENTS: Final = 8
_BACKLOG: Final = 256

logger = log.get("workers")


def run(config: Config, arguments: Sequence[str]) -> None:
    """Serve with the workers that `config` asks for, until SIGTERM or SIGINT.

    They are started with the same `arguments`. Raises StartError where this machine can't.
    """
    count = config.limits.workers or cores()
    if count == 1:
        run_one_process(config)
        return
    with started(), contextlib.ExitStack() as stack:
        resources = prepare(config, stack, count)
        doors = [stack.enter_context(open_door()) for _ in range(count)]
        calm_garbage_collector()
        trio.run(serve, config, resources, doors, arguments)


async def serve(
    config: Config,
    resources: StartupResources,
    doors: Sequence[socket.socket],
    arguments: Sequence[str],
) -> None:
    """Keep the workers serving until a signal says to stop. Raises StartError."""
    await Supervisor(config, resources, doors, arguments).serve()


def open_door() -> socket.socket:
    """Listen on a unix socket of a name that the kernel makes up, in no directory."""
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        door.setblocking(False)
        door.bind("")
        door.listen(_BACKLOG)
    except OSError as error:
        door.close()
        raise StartError(f"no unix socket for the workers: {error.strerror or error}") from error
    return door


class Supervisor:
    """The one process that the workers have in common."""

    def __init__(
        self,
        config: Config,
        resources: StartupResources,
        doors: Sequence[socket.socket],
        arguments: Sequence[str],
    ) -> None:
        self._config = config
        self._resources = resources
        self._doors = doors
        self._worker_key = secrets.token_bytes(32)
        self._rate_limit = resources.rate_limit
        self._pool = WorkerPool(
            len(resources.shared), arguments, self._handover, config.limits.drain_time
        )
        self._pages = SupervisorPages(
            *(config, resources.metrics, resources.own_checker, resources.certificates),
            *(self._pool, self._pool.lives),
        )
        self._certificates = self._admission = None
        if resources.certificates is not None:
            self._certificates = SupervisorCertificates(resources.certificates, self._pool)
        if resources.own_checker is not None:
            self._admission = SupervisorAdmission(resources.own_checker, self._pool)
        self._failed = False
        self._check_at_list, self._checks = trio.open_memory_channel[None](1)

    async def serve(self) -> None:
        """Keep the workers serving until a signal says to stop. Raises StartError."""
        Resolver().install()
        pool = self._pool
        to_parent, events = trio.open_memory_channel[Event](_EVENTS)
        async with opened(self._resources.admission), trio.open_nursery() as nursery:
            await nursery.start(hear_signals, to_parent)
            self._start_services(nursery)
            for slot in pool.slots:
                nursery.start_soon(pool.keep, slot, self._handlers())
            nursery.start_soon(self._begin, to_parent)
            async for event in events:
                if event is Event.STOP:
                    break
                self._reload(nursery)
            logger.info("stopping", workers=pool.size)
            # Who comes now is refused at once, unless systemd keeps the sockets.
            for sockets in self._resources.shared:
                for sock in sockets.all:
                    sock.close()
            await pool.stop()
            nursery.cancel_scope.cancel()
        if self._failed:
            raise StartError("not all workers have started; the lines above say why")
        logger.info("stopped")

    async def _begin(self, to_parent: trio.MemorySendChannel[Event]) -> None:
        """Say what is served once it is; where a worker does not even start, stop."""
        pool = self._pool
        for slot in pool.slots:
            await slot.begun.wait()
        if pool.stopping:
            return
        if not all(slot.serves for slot in pool.slots):
            self._failed = True
            await to_parent.send(Event.STOP)
            return
        announce(self._config, self._resources)
        logger.info("workers share the work", workers=pool.size)

    def _start_services(self, nursery: trio.Nursery) -> None:
        if self._certificates is not None:
            tell = partial(announce_node, self._config, self._resources)
            nursery.start_soon(self._certificates.run, tell)
        if self._admission is not None:
            nursery.start_soon(self._admission.keep, self._checks)

    def _handlers(self) -> dict[str, Handler]:
        """Return what every worker may ask."""
        parts = [part for part in (self._certificates, self._admission) if part is not None]
        return {
            name: each for part in (self._pages, *parts) for name, each in part.handlers.items()
        }

    def _handover(self, index: int) -> Handover:
        """Return what a worker gets that starts now."""
        sockets = self._resources.shared[index]
        main, plain, stun = (
            [sock.fileno() for sock in group]
            for group in (sockets.main, sockets.plain, sockets.stun)
        )
        return Handover(
            code=this_code(),
            index=index,
            workers=self._pool.size,
            node_key=bytes(self._resources.private_key),
            mesh_key=self._resources.mesh.key,
            worker_key=self._worker_key,
            main=main,
            plain=plain,
            stun=stun,
            door=self._doors[index].fileno(),
            doors=[door.getsockname() for door in self._doors],
            rate_limit=self._rate_limit,
            is_gated=self._admission is not None,
            certificates=None if self._certificates is None else self._certificates.handover(),
        )

    def _reload(self, nursery: trio.Nursery) -> None:
        """Look at all files again."""

        def apply(limit: RateConfig) -> None:
            self._rate_limit = limit
            body = [limit.bytes_per_second, limit.burst]
            nursery.start_soon(self._pool.each, "worker.rate_limit", body)

        if self._certificates is not None:
            nursery.start_soon(self._certificates.wake)
        with contextlib.suppress(trio.WouldBlock):
            self._check_at_list.send_nowait(None)
        nursery.start_soon(reload_rate_limit, self._config, apply)
