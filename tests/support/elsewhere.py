"""The relay on a system that is not Linux, simulated: `python -m tests.support.elsewhere [flags]`.

What macOS lacks is taken away before any code of the relay is imported: epoll, options of sockets,
recvmmsg, memfd_create, /proc, /sys. Python's libraries and Trio keep what they have found by then.
"""

import ctypes
import importlib
import os
import select
import socket
import sys
import types
from typing import Any

LACKING = {
    os: ("memfd_create", "sched_getaffinity", "sched_setaffinity", "pidfd_open"),
    socket: (
        *("SO_BINDTODEVICE", "SO_MARK", "SO_PEERCRED", "TCP_CONGESTION", "TCP_INFO"),
        *("TCP_KEEPIDLE", "TCP_NOTSENT_LOWAT", "TCP_USER_TIMEOUT"),
    ),
    select: tuple(name for name in dir(select) if name.lower().startswith("epoll")),
}
_PLACES = ("/proc/", "/sys/")


def leave_linux() -> None:
    for needed in ("trio", "ssl", "cffi", "subprocess", "uuid", "cryptography.x509", "nacl.public"):
        importlib.import_module(needed)
    trios: Any = importlib.import_module("trio._core._io_epoll")
    trios.select = types.SimpleNamespace(**vars(select))
    for module, names in LACKING.items():
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    ctypes.CDLL = None
    sys.platform = "darwin"
    sys.addaudithook(_hide)
    os.stat = _without(os.stat)


def _hide(event: str, arguments: tuple[object, ...]) -> None:
    if event in {"open", "os.listdir", "os.scandir"}:
        _refuse(arguments[0])


def _without(stat):
    def hiding(path, *arguments, **options):
        _refuse(path)
        return stat(path, *arguments, **options)

    return hiding


def _refuse(path: object) -> None:
    name = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else ""
    if f"{name}/".startswith(_PLACES):
        raise FileNotFoundError(2, os.strerror(2), name)


if __name__ == "__main__":
    leave_linux()
    from derp.cli.entry import script

    script()
