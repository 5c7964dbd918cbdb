"""The worker processes of a relay: started, called, stopped, and restarted when they end.

Each is started by exec, and shares nothing with the supervisor but inherited descriptors: its
sockets, and its end of an RPC connection. The supervisor keeps the sockets open, so that a
client that connects during a restart waits, and is not refused.
"""

import os
import signal
import site
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import attrs
import trio

import derp
from derp import log
from derp.errors import RPCFailed
from derp.net.backoff import Backoff
from derp.net.oserrors import reason
from derp.workers import watchdog
from derp.workers.handover import Handover
from derp.workers.rpc import RPC, Handler, Json, send_first

ANSWER_TIMEOUT: Final = 3.0
"""Seconds for which `call_all` waits; less than a worker waits for the supervisor's answer."""
STABLE_AFTER: Final = 10.0
"""Seconds of running after which a worker that ends is restarted at once."""
FIRST_DELAY: Final = 0.1
LONGEST_DELAY: Final = 5.0
"""Seconds until one that ends sooner is restarted; clients that connect to it wait as long."""
START_TIMEOUT: Final = 60.0
"""Seconds from the start of a worker until it serves."""
STOP_TIMEOUT: Final = 8.0
"""Seconds for a process to end after worker.stop, or the end of its RPC connection, besides
`drain_time`: some more than a drain takes."""

# -P: or else a `derp` in the working directory would be run.
_PROGRAM: Final = (sys.executable, "-P", "-m", "derp")

logger = log.get("workers")


class WorkerStatus(NamedTuple):
    """The state of a worker."""

    pid: int
    """Of the last process; 0 before there was one."""
    restarts: int
    alive: bool


@attrs.define(eq=False)
class Slot:
    """The place of one worker in the pool, for one process after another."""

    index: int
    pid: int = 0
    """Of the last process."""
    restarts: int = 0
    rpc: RPC | None = None
    """None while there is no process."""
    process: trio.Process | None = None
    hung: bool = False
    """Whether the last process was killed because it did not answer."""
    has_served: bool = False
    """Whether any process of this slot has served."""
    started: trio.Event = attrs.field(factory=trio.Event)
    """Set once a process serves, or the first one has ended."""
    ended: trio.Event = attrs.field(factory=trio.Event)
    """Set when there will be no further process."""


class WorkerPool:
    """All workers. `handover` returns what the worker of an index gets when it starts."""

    def __init__(
        self,
        size: int,
        arguments: Sequence[str],
        handover: Callable[[int], Handover],
        drain_time: float = 0.0,
    ) -> None:
        self.slots = [Slot(index) for index in range(size)]
        self._stopping = trio.Event()
        self._arguments = arguments
        self._handover = handover
        self._stop_timeout = STOP_TIMEOUT + drain_time

    @property
    def stopping(self) -> bool:
        """Whether `stop` has been called."""
        return self._stopping.is_set()

    @property
    def size(self) -> int:
        """The number of workers, including any that are being restarted."""
        return len(self.slots)

    def statuses(self) -> list[WorkerStatus]:
        """Return the workers' statuses, by index."""
        return [WorkerStatus(slot.pid, slot.restarts, slot.rpc is not None) for slot in self.slots]

    async def call_all(self, what: str, body: Json = None) -> dict[int, Json]:
        """Call all workers concurrently; return the answers by index; late answers are missing."""
        answers: dict[int, Json] = {}

        async def ask(slot: Slot, rpc: RPC) -> None:
            try:
                answers[slot.index] = await rpc.call(what, body)
            except RPCFailed as error:
                logger.debug("a worker gave no answer", worker=slot.index, reason=str(error))

        with trio.move_on_after(ANSWER_TIMEOUT):
            async with trio.open_nursery() as nursery:
                for slot in self.slots:
                    if slot.rpc is not None:
                        nursery.start_soon(ask, slot, slot.rpc)
        return answers

    async def call_one(self, index: int, what: str, body: Json = None) -> Json:
        """Return one worker's answer. Raises RPCFailed if it gives none in ANSWER_TIMEOUT."""
        rpc = self.slots[index].rpc
        if rpc is None:
            raise RPCFailed(f"worker {index} is being restarted")
        with trio.move_on_after(ANSWER_TIMEOUT):
            return await rpc.call(what, body)
        raise RPCFailed(f"worker {index} does not answer")

    async def keep(self, slot: Slot, handlers: Mapping[str, Handler]) -> None:
        """Keep a worker running until the pool stops, or a process ends before any has served."""
        backoff = Backoff(first=FIRST_DELAY, longest=LONGEST_DELAY)
        try:
            while True:
                began = trio.current_time()
                reason = await self._run_process(slot, handlers)
                if self._stopping.is_set():
                    break
                if not slot.has_served:
                    logger.error("a worker did not start", worker=slot.index, reason=reason)
                    break
                wait = backoff.next()
                if trio.current_time() - began > STABLE_AFTER:
                    wait = 0.0
                    backoff.reset()
                logger.error(
                    "a worker ended, and is started anew",
                    worker=slot.index,
                    reason=reason,
                    seconds=round(wait, 1),
                )
                slot.restarts += 1
                with trio.move_on_after(wait):
                    await self._stopping.wait()
                    break
        finally:
            slot.started.set()
            slot.ended.set()

    async def stop(self) -> None:
        """Tell all workers to drain and end; kill those that take too long (STOP_TIMEOUT)."""
        self._stopping.set()
        with trio.move_on_after(self._stop_timeout):
            await self.call_all("worker.stop")
            for slot in self.slots:
                await slot.ended.wait()
        for slot in self.slots:
            if slot.process is not None:
                logger.warning("a worker does not end, and is killed", worker=slot.index)
                slot.process.kill()
            await slot.ended.wait()

    async def _run_process(self, slot: Slot, handlers: Mapping[str, Handler]) -> str:
        """Run one process from its start to its end; return how it ended."""
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            return _not_started(error)
        # Set before the handover is made, so that no call between the two is missed.
        slot.rpc = rpc = RPC(ours)
        slot.hung = False
        serves = trio.Event()

        async def ready(_: Json) -> None:
            slot.has_served = True
            slot.started.set()
            serves.set()

        rpc.handlers.update(handlers, **{"worker.ready": ready})
        try:
            with theirs:
                handover = self._handover(slot.index)
                # Sent before the start: a process may end without reading it.
                send_first(ours, handover.to_json())
                slot.process = process = await trio.lowlevel.open_process(
                    [*_PROGRAM, "worker", str(theirs.fileno()), *self._arguments],
                    pass_fds=[theirs.fileno(), *handover.descriptors],
                    stdin=subprocess.DEVNULL,
                    env=_environment(),
                )
            slot.pid = process.pid
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._serve_rpc, slot, rpc, process, serves)
                await process.wait()
                nursery.cancel_scope.cancel()
        except OSError as error:
            return _not_started(error)
        finally:
            slot.rpc = None
            # Without an RPC connection, a worker drains and ends.
            ours.close()
            if slot.process is not None:
                await _wait_for_end(slot.process, self._stop_timeout)
                slot.process = None
        return "it hung" if slot.hung else _describe_exit(process.returncode)

    async def _serve_rpc(
        self, slot: Slot, rpc: RPC, process: trio.Process, serves: trio.Event
    ) -> None:
        """Carry calls until the worker closes the connection; kill it if it doesn't end then."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._kill_if_hung, slot, rpc, process, serves)
            await rpc.run()
            nursery.cancel_scope.cancel()
        await trio.sleep(self._stop_timeout)
        process.kill()

    async def _kill_if_hung(
        self, slot: Slot, rpc: RPC, process: trio.Process, serves: trio.Event
    ) -> None:
        """Kill a process that does not serve in time, or hangs, unless the pool stops."""
        with trio.move_on_after(START_TIMEOUT):
            await serves.wait()
        if serves.is_set():
            ping = partial(rpc.call, "worker.ping")
            await watchdog.until_hung(ping, partial(watchdog.activity, process.pid))
        if not self._stopping.is_set():
            slot.hung = True
            process.kill()


async def _wait_for_end(process: trio.Process, seconds: float) -> None:
    """Wait for the end of a process without RPC connection; kill it after `seconds`."""
    with trio.CancelScope(shield=True):
        with trio.move_on_after(seconds):
            await process.wait()
            return
        process.kill()
        await process.wait()


def _environment() -> dict[str, str]:
    """Return our environment, with this code's path in PYTHONPATH unless it is installed."""
    home = str(Path(derp.__file__).resolve().parents[1])
    if home in site.getsitepackages():
        return dict(os.environ)
    more = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([home, *([more] if more else [])])}


def _not_started(error: OSError) -> str:
    return f"it can't be started ({reason(error)})"


def _describe_exit(code: int | None) -> str:
    """Describe the end of a process for the log."""
    if code is None or code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"
