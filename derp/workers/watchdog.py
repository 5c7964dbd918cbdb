"""Tells when a worker hangs: it gives no answer, though it could have given one.

All clients of a worker that hangs wait for its end, and all clients of one that is ended have to
reconnect. So only what is the worker's own fault is counted as its silence:

- A worker that is ready to run may wait for a CPU. Of its time, only that on a CPU counts.
- The supervisor that counts may not have run itself: the machine was suspended, the container
  paused, the CPU taken away. A look that comes late counts for nothing.
"""

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import attrs
import trio

from derp.errors import ControlLost

HUNG_AFTER: Final = 5.0
"""Seconds of silence after which a worker hangs. To wait a second too long costs its clients that
second; to end a worker that is only busy costs them all a login, when there is no time for that.
So it is longer than the longest turns of an event loop: thousands of clients that leave at once.
What falsely trips it all the same is said in docs/scaling.md."""
PING_EVERY: Final = 0.5
"""Seconds from an answer to the next ping, and between two looks at the worker."""

_CLOCK_TICK: Final = 1 / os.sysconf("SC_CLK_TCK")
"""Seconds: the unit of the times in /proc/PID/stat."""


@attrs.frozen
class Activity:
    """What a process has done so far, and does now."""

    ready: bool = False
    """Whether it runs, or waits for a CPU."""
    cpu: float = 0.0
    """Seconds of CPU time that it has had."""


class Silence:
    """For how long a worker has been silent, as far as that is its own fault."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def end(self) -> None:
        """Note that it has answered."""
        self.seconds = 0.0

    def last(self, elapsed: float, before: Activity, after: Activity) -> None:
        """Note that it has not answered from one look to the next, `elapsed` seconds later."""
        if elapsed >= 2 * PING_EVERY:
            return
        on_cpu = after.cpu - before.cpu
        self.seconds += min(on_cpu, PING_EVERY) if after.ready else PING_EVERY


async def until_hung(ping: Callable[[], Awaitable[object]], look: Callable[[], Activity]) -> None:
    """Return once a worker hangs. `ping` is answered by it, or raises ControlLost."""
    silence = Silence()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_ping, ping, silence)
        before = look()
        while silence.seconds < HUNG_AFTER:
            began = trio.current_time()
            await trio.sleep(PING_EVERY)
            after = look()
            silence.last(trio.current_time() - began, before, after)
            before = after
        nursery.cancel_scope.cancel()


async def _ping(ping: Callable[[], Awaitable[object]], silence: Silence) -> None:
    while True:
        try:
            await ping()
            silence.end()
        except ControlLost:
            pass
        await trio.sleep(PING_EVERY)


def activity(pid: int, proc: Path = Path("/proc")) -> Activity:
    """Look at the thread of a process that its event loop runs in."""
    try:
        text = (proc / str(pid) / "task" / str(pid) / "stat").read_text("ascii", "replace")
        # Behind the name, which may hold anything; proc_pid_stat(5): state, utime, stime.
        words = text.rpartition(")")[2].split()
        return Activity(words[0] == "R", (int(words[11]) + int(words[12])) * _CLOCK_TICK)
    except (OSError, ValueError, IndexError):
        # It has ended, which is noticed elsewhere, or /proc is not there.
        return Activity()
