"""The workers of a relay: started, asked, stopped, and started anew when they die.

Each is a process of its own, by exec, so that nothing is shared with it but what it is given: the
sockets that it serves on and its end of a control connection. Its sockets stay open here, too: who
connects while it is being started anew waits, and is not refused.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import attrs
import trio

from derp import log
from derp.errors import ControlLost
from derp.mesh.backoff import Backoff
from derp.workers.control import Control, Handler, Json, send_first
from derp.workers.pages import Life
from derp.workers.setup import Setup

ANSWER_WITHIN: Final = 3.0
"""Seconds that a worker has to answer in: whoever asks the supervisor waits longer for that."""
LASTED: Final = 10.0
"""Seconds after which a worker has gone well, so that the next one is started at once."""
CLOSING: Final = 8.0
"""Seconds that a worker has to end in when it is told to, or has lost its control connection:
some more than a drain takes."""

# Not from the working directory, whatever lies there under the same name.
_PROGRAM: Final = (sys.executable, "-P", "-m", "derp")

logger = log.get("workers")


@attrs.define(eq=False)
class Worker:
    """One place in the crew, and the process that has it at the moment."""

    index: int
    pid: int = 0
    """Of the last process."""
    restarts: int = 0
    control: Control | None = None
    """None while there is no process."""
    serves: bool = False
    """Whether a process of this place has ever served."""
    begun: trio.Event = attrs.field(factory=trio.Event)
    """Set once it has, or the first one has ended."""
    gone: trio.Event = attrs.field(factory=trio.Event)
    """Set when it has ended for good."""


class Crew:
    """All workers. `setup` says what the worker of an index gets when it starts."""

    def __init__(self, size: int, arguments: Sequence[str], setup: Callable[[int], Setup]) -> None:
        self.workers = [Worker(index) for index in range(size)]
        self.stopping = False
        self._arguments = arguments
        self._setup = setup

    @property
    def size(self) -> int:
        """How many there are to be."""
        return len(self.workers)

    def lives(self) -> list[Life]:
        """Tell how each is."""
        return [
            Life(worker.pid, worker.restarts, worker.control is not None) for worker in self.workers
        ]

    async def each(self, what: str, body: Json = None) -> dict[int, Json]:
        """Call all workers side by side; return the answers of those that gave one, by index.

        It takes ANSWER_WITHIN seconds at most.
        """
        answers: dict[int, Json] = {}

        async def ask(worker: Worker, control: Control) -> None:
            try:
                answers[worker.index] = await control.call(what, body)
            except ControlLost as error:
                logger.debug("a worker gave no answer", worker=worker.index, reason=str(error))

        with trio.move_on_after(ANSWER_WITHIN):
            async with trio.open_nursery() as nursery:
                for worker in self.workers:
                    if worker.control is not None:
                        nursery.start_soon(ask, worker, worker.control)
        return answers

    async def keep(self, worker: Worker, handlers: Mapping[str, Handler]) -> None:
        """Keep a worker running until the crew stops, or until its first process never served."""
        backoff = Backoff()
        try:
            while True:
                began = trio.current_time()
                how = await self._live(worker, handlers)
                if self.stopping:
                    return
                if not worker.serves:
                    logger.error("a worker did not start", worker=worker.index, reason=how)
                    return
                lasted = trio.current_time() - began > LASTED
                if lasted:
                    backoff.reset()
                wait = 0.0 if lasted else backoff.next()
                logger.error(
                    "a worker ended, and is started anew",
                    worker=worker.index,
                    reason=how,
                    seconds=round(wait, 1),
                )
                worker.restarts += 1
                await trio.sleep(wait)
        finally:
            worker.begun.set()
            worker.gone.set()

    async def stop(self) -> None:
        """Have all drain and end; CLOSING seconds later at most they are ended."""
        self.stopping = True
        with trio.move_on_after(CLOSING):
            await self.each("worker.stop")
            for worker in self.workers:
                await worker.gone.wait()

    async def _live(self, worker: Worker, handlers: Mapping[str, Handler]) -> str:
        """Run one process from its start to its end; return how it ended."""

        async def ready(_: Json) -> None:
            worker.serves = True
            worker.begun.set()

        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            return _not_started(error)
        # From the moment of the setup on it is told what changes, and gets that when it runs.
        worker.control = control = Control(ours)
        control.handlers.update(handlers, **{"worker.ready": ready})
        setup = self._setup(worker.index)
        try:
            with theirs:
                process = await trio.lowlevel.open_process(
                    [*_PROGRAM, "worker", str(theirs.fileno()), *self._arguments],
                    pass_fds=[theirs.fileno(), *setup.descriptors],
                    stdin=subprocess.DEVNULL,
                )
        except BaseException as error:
            worker.control = None
            ours.close()
            if isinstance(error, OSError):
                return _not_started(error)
            raise
        send_first(ours, setup.to_json())
        worker.pid = process.pid
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_carry, control, process)
                await process.wait()
                nursery.cancel_scope.cancel()
        finally:
            worker.control = None
            if process.returncode is None:
                process.kill()
                with trio.CancelScope(shield=True):
                    await process.wait()
        return _how(process.returncode)


def _not_started(error: OSError) -> str:
    return f"it can't be started ({(error.strerror or str(error)).lower()})"


async def _carry(control: Control, process: trio.Process) -> None:
    """Carry calls as long as the worker lives; one that hangs without its control is ended."""
    await control.run()
    await trio.sleep(CLOSING)
    process.kill()


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
