"""The workers of a relay: started, asked, stopped, and started anew when they die.

Each is a process of its own, by exec, so that nothing is shared with it but what it is given: the
sockets that it serves on and its end of a control connection. Its sockets stay open here, too: who
connects while it is being started anew waits, and is not refused.
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
from typing import Final

import attrs
import trio

import derp
from derp import log
from derp.errors import ControlLost
from derp.net.backoff import Backoff
from derp.workers import watchdog
from derp.workers.handover import Handover
from derp.workers.pages import WorkerStatus
from derp.workers.rpc import RPC, Handler, Json, send_first

ANSWER_WITHIN: Final = 3.0
"""Seconds that a worker has to answer in: whoever asks the supervisor waits longer for that."""
LASTED: Final = 10.0
"""Seconds after which a worker has gone well, so that the next one is started at once."""
FIRST: Final = 0.1
LONGEST: Final = 5.0
"""Seconds until a worker is started anew that has not lasted: who connects to it waits so long."""
STARTING: Final = 60.0
"""Seconds within which a worker serves."""
CLOSING: Final = 8.0
"""Seconds that a worker has to end in when it is told to, or has lost its control connection:
some more than a drain takes where all connections are ended at once."""

# Not from the working directory, whatever lies there under the same name.
_PROGRAM: Final = (sys.executable, "-P", "-m", "derp")

logger = log.get("workers")


@attrs.define(eq=False)
class Slot:
    """A place in the pool, and the process that has it at the moment."""

    index: int
    pid: int = 0
    """Of the last process."""
    restarts: int = 0
    control: RPC | None = None
    """None while there is no process."""
    process: trio.Process | None = None
    hangs: bool = False
    """Whether the process was ended because it did not answer."""
    serves: bool = False
    """Whether a process of this place has ever served."""
    begun: trio.Event = attrs.field(factory=trio.Event)
    """Set once it has, or the first one has ended."""
    gone: trio.Event = attrs.field(factory=trio.Event)
    """Set when it has ended for good."""


class WorkerPool:
    """All workers. `handover` says what the worker of an index gets when it starts."""

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
        self._closing = CLOSING + drain_time

    @property
    def stopping(self) -> bool:
        """Whether all have been told to stop."""
        return self._stopping.is_set()

    @property
    def size(self) -> int:
        """How many there are to be."""
        return len(self.slots)

    def lives(self) -> list[WorkerStatus]:
        """Tell how each is."""
        return [
            WorkerStatus(slot.pid, slot.restarts, slot.control is not None) for slot in self.slots
        ]

    async def each(self, what: str, body: Json = None) -> dict[int, Json]:
        """Call all workers side by side; return the answers of those that gave one, by index.

        It takes ANSWER_WITHIN seconds at most.
        """
        answers: dict[int, Json] = {}

        async def ask(slot: Slot, control: RPC) -> None:
            try:
                answers[slot.index] = await control.call(what, body)
            except ControlLost as error:
                logger.debug("a worker gave no answer", worker=slot.index, reason=str(error))

        with trio.move_on_after(ANSWER_WITHIN):
            async with trio.open_nursery() as nursery:
                for slot in self.slots:
                    if slot.control is not None:
                        nursery.start_soon(ask, slot, slot.control)
        return answers

    async def keep(self, slot: Slot, handlers: Mapping[str, Handler]) -> None:
        """Keep a worker running until the pool stops, or until its first process never served."""
        backoff = Backoff(first=FIRST, longest=LONGEST)
        try:
            while True:
                began = trio.current_time()
                how = await self._live(slot, handlers)
                if self._stopping.is_set():
                    break
                if not slot.serves:
                    logger.error("a worker did not start", worker=slot.index, reason=how)
                    break
                wait = 0.0
                if trio.current_time() - began > LASTED:
                    backoff.reset()
                else:
                    wait = backoff.next()
                logger.error(
                    "a worker ended, and is started anew",
                    worker=slot.index,
                    reason=how,
                    seconds=round(wait, 1),
                )
                slot.restarts += 1
                with trio.move_on_after(wait):
                    await self._stopping.wait()
                    break
        finally:
            slot.begun.set()
            slot.gone.set()

    async def stop(self) -> None:
        """Have all drain and end; a drain and CLOSING seconds later at most they are ended."""
        self._stopping.set()
        with trio.move_on_after(self._closing):
            await self.each("worker.stop")
            for slot in self.slots:
                await slot.gone.wait()
        for slot in self.slots:
            if slot.process is not None:
                logger.warning("a worker does not end, and is killed", worker=slot.index)
                slot.process.kill()
            await slot.gone.wait()

    async def _live(self, slot: Slot, handlers: Mapping[str, Handler]) -> str:
        """Run one process from its start to its end; return how it ended."""
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            return _not_started(error)
        # From the moment of the setup on it is told what changes, and gets that when it runs.
        slot.control = control = RPC(ours)
        slot.hangs = False
        serves = trio.Event()

        async def ready(_: Json) -> None:
            slot.serves = True
            slot.begun.set()
            serves.set()

        control.handlers.update(handlers, **{"worker.ready": ready})
        try:
            with theirs:
                handover = self._handover(slot.index)
                # Before there is a process that may end before it takes it.
                send_first(ours, handover.to_json())
                slot.process = process = await trio.lowlevel.open_process(
                    [*_PROGRAM, "worker", str(theirs.fileno()), *self._arguments],
                    pass_fds=[theirs.fileno(), *handover.descriptors],
                    stdin=subprocess.DEVNULL,
                    env=_environment(),
                )
            slot.pid = process.pid
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._carry, slot, control, process, serves)
                await process.wait()
                nursery.cancel_scope.cancel()
        except OSError as error:
            return _not_started(error)
        finally:
            slot.control = None
            # Without it, a worker drains and ends.
            ours.close()
            if slot.process is not None:
                await _wait_for_end(slot.process, self._closing)
                slot.process = None
        return "it hung" if slot.hangs else _how(process.returncode)

    async def _carry(
        self, slot: Slot, control: RPC, process: trio.Process, serves: trio.Event
    ) -> None:
        """Carry calls as long as the worker lives; one that hangs without its control is ended."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._end_if_hung, slot, control, process, serves)
            await control.run()
            nursery.cancel_scope.cancel()
        await trio.sleep(self._closing)
        process.kill()

    async def _end_if_hung(
        self, slot: Slot, control: RPC, process: trio.Process, serves: trio.Event
    ) -> None:
        """End a process that does not come to serve, or hangs, unless all are to stop."""
        with trio.move_on_after(STARTING):
            await serves.wait()
        if serves.is_set():
            ping = partial(control.call, "worker.well")
            await watchdog.until_hung(ping, partial(watchdog.activity, process.pid))
        if not self._stopping.is_set():
            slot.hangs = True
            process.kill()


async def _wait_for_end(process: trio.Process, seconds: float) -> None:
    """Wait until a process has ended that has lost its control connection; kill it if need be."""
    with trio.CancelScope(shield=True):
        with trio.move_on_after(seconds):
            await process.wait()
            return
        process.kill()
        await process.wait()


def _environment() -> dict[str, str]:
    """Return ours, such that a worker finds the code that runs here, if it is not installed."""
    home = str(Path(derp.__file__).resolve().parents[1])
    if home in site.getsitepackages():
        return dict(os.environ)
    more = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([home, *([more] if more else [])])}


def _not_started(error: OSError) -> str:
    return f"it can't be started ({(error.strerror or str(error)).lower()})"


def _how(code: int | None) -> str:
    """Say in words how a process ended."""
    if code is None or code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))
