"""Detection of a worker that hangs: its event loop answers no ping, though it could.

Clients of a worker that hangs can only wait; clients of one that is killed have to reconnect. So
only silence by the worker's own fault counts:

- A worker that is ready to run may have to wait for a CPU. Then only its CPU time counts.
- The supervisor may not have run itself: the machine was suspended, the container paused, the CPU
  taken away. An interval between two samples that was too long does not count.
"""

import contextlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import attrs
import trio

from derp.errors import RPCFailed

HUNG_AFTER: Final = 5.0
"""Seconds of silence after which a worker counts as hung. Waiting longer costs its clients seconds;
killing a worker that is only busy costs each a login, at a busy time. So it is longer than the
longest turns of an event loop, as when thousands of clients leave at once; but see docs/scaling.md.
"""
PING_EVERY: Final = 0.5
"""Seconds from an answer to the next ping, and between two samples of the worker's activity."""

_CLOCK_TICK: Final = 1 / os.sysconf("SC_CLK_TCK")
"""Seconds: the unit of the times in /proc/PID/stat."""


@attrs.frozen
class Activity:
    """A sample of a process's activity."""

    ready: bool = False
    """Whether it runs, or waits for a CPU."""
    cpu: float = 0.0
    """Seconds of CPU time since its start."""


async def until_hung(ping: Callable[[], Awaitable[object]], sample: Callable[[], Activity]) -> None:
    """Return once a worker hangs. `ping` waits for its answer, or raises RPCFailed."""
    silent = 0.0

    async def ping_forever() -> None:
        nonlocal silent
        while True:
            with contextlib.suppress(RPCFailed):
                await ping()
                silent = 0.0
            await trio.sleep(PING_EVERY)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ping_forever)
        before = sample()
        while silent < HUNG_AFTER:
            began = trio.current_time()
            await trio.sleep(PING_EVERY)
            after = sample()
            silent += _counted(trio.current_time() - began, before, after)
            before = after
        nursery.cancel_scope.cancel()


def _counted(elapsed: float, before: Activity, after: Activity) -> float:
    """Return how much of the `elapsed` seconds between two samples counts as silence."""
    if elapsed >= 2 * PING_EVERY:
        return 0.0
    return min(after.cpu - before.cpu, PING_EVERY) if after.ready else PING_EVERY


def activity(pid: int, proc: Path = Path("/proc")) -> Activity:
    """Sample the main thread of a process, in which its event loop runs."""
    try:
        text = (proc / str(pid) / "task" / str(pid) / "stat").read_text("ascii", "replace")
        # Behind the name, which may contain anything; proc_pid_stat(5): state, utime, stime.
        words = text.rpartition(")")[2].split()
        return Activity(words[0] == "R", (int(words[11]) + int(words[12])) * _CLOCK_TICK)
    except (OSError, ValueError, IndexError):
        # The process has ended, or there is no /proc.
        return Activity()
