"""The parts of Linux that other systems of Python lack: epoll, socket options, workers' ports.

The relay is for use on Linux. On macOS and the BSDs it runs, for development: without the poller
and the pre-login scheduler's epoll, by Trio's own waiting, and without the figures and the options
that only Linux has. Code asks this module, or handles the OSError that it raises, and names no
system itself.
"""

import errno
import os
import select
import socket
import sys
from typing import Final

IS_LINUX: Final = sys.platform == "linux"
HAS_EPOLL: Final = hasattr(select, "epoll")


def option(name: str) -> int:
    """Return the number of a socket option, as "SO_MARK". Raises OSError where there is none."""
    number: int | None = getattr(socket, name, None)
    if number is None:
        raise OSError(errno.ENOPROTOOPT, "this system has no such option; Linux has")
    return number


def set_if_known(sock: socket.socket, level: int, name: str, value: int) -> None:
    """Set a socket option where the system has it. Raises OSError where it refuses the value."""
    if hasattr(socket, name):
        sock.setsockopt(level, option(name), value)


def cores() -> int:
    """Return how many processors this process may use, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
