"""A clock that ticks several times in a millisecond, which Trio's own deadlines can't do.

epoll counts its waits in whole milliseconds, and so does everything that Trio wakes by time. A
timerfd is a descriptor that becomes readable at each tick, to the microsecond. Python knows it
from 3.13 on; older ones reach it through the C library.
"""

import ctypes
import os
import sys
from typing import Final

import trio

_CLOCK_MONOTONIC: Final = 1
_FLAGS: Final = os.O_NONBLOCK | os.O_CLOEXEC
_READ_SIZE: Final = 8


class _TimerSpec(ctypes.Structure):
    """`struct itimerspec`: the interval, and the time until the first tick."""

    _fields_ = (
        ("interval_seconds", ctypes.c_long),
        ("interval_nanoseconds", ctypes.c_long),
        ("first_seconds", ctypes.c_long),
        ("first_nanoseconds", ctypes.c_long),
    )


class Ticker:
    """Ticks every `seconds` (less than 1) until it is closed."""

    __slots__ = ("_fd",)

    def __init__(self, seconds: float) -> None:
        """Start. Raises OSError where there are no such timers, or no descriptors left."""
        if not sys.platform.startswith("linux"):
            raise OSError("there is no timerfd on this system")
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd: int = libc.timerfd_create(_CLOCK_MONOTONIC, _FLAGS)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        nanoseconds = round(seconds * 1e9)
        spec = _TimerSpec(0, nanoseconds, 0, nanoseconds)
        libc.timerfd_settime(self._fd, 0, ctypes.byref(spec), None)

    async def tick(self) -> None:
        """Wait for the next tick; at once where one has passed since the last call."""
        await trio.lowlevel.wait_readable(self._fd)
        os.read(self._fd, _READ_SIZE)

    def close(self) -> None:
        """Stop ticking."""
        os.close(self._fd)
