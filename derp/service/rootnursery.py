"""The root nursery of a process, after whose cancellation the process ends by all means.

Where no memory is left for another thread, a job of trio.to_thread may never answer, and who waits
for it can't be cancelled. Such a process would stay without serving anybody, and no service manager
would start another one in its place.
"""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import trio

END_TIMEOUT: Final = 10.0
"""Seconds from the cancellation of the nursery to the end of the process, at most."""


@asynccontextmanager
async def open_root_nursery(seconds: float = END_TIMEOUT) -> AsyncIterator[trio.Nursery]:
    """Open a nursery, which stays open until it is cancelled.

    Once it is, its tasks have `seconds` to end. Else the process exits with status 1.
    For the main thread, which alone has signals.
    """
    before = signal.getsignal(signal.SIGALRM)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_limit_end, seconds)
            yield nursery
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


async def _limit_end(seconds: float) -> None:
    try:
        await trio.sleep_forever()
    finally:
        # The first process of a container is not ended by a signal that it has no handler for.
        signal.signal(signal.SIGALRM, lambda *_: os._exit(1))
        signal.setitimer(signal.ITIMER_REAL, seconds)
