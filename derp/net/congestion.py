"""TCP's congestion control: what -tcp-congestion may name, and when another would do better.

The kernel has a default, net.ipv4.tcp_congestion_control. The option TCP_CONGESTION of tcp(7)
gives a socket another algorithm: one that is loaded, and that every user may use
(net.ipv4.tcp_allowed_congestion_control). With CAP_NET_ADMIN a process may use any, and the kernel
loads its module. Accepted connections inherit the algorithm that a listener was given.
"""

import contextlib
import errno
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

import attrs

from derp.errors import StartError
from derp.net import system
from derp.net.oserrors import reason

BBR: Final = "bbr"

_SYSCTLS: Final = Path("/proc/sys/net/ipv4")
_MODULES: Final = Path("/lib/modules")
_SIZE: Final = 16
"""TCP_CA_NAME_MAX: bytes of a name, with the NUL at its end."""


@attrs.frozen
class Kernel:
    """The kernel's algorithms of congestion control; none where /proc or /lib can't be read."""

    available: Sequence[str] = ()
    """Algorithms that are built in or loaded."""
    allowed: Sequence[str] = ()
    """Those of `available` that every user may use."""
    has_bbr_module: bool = False
    """Whether BBR can be loaded."""

    @classmethod
    def read(cls, sysctls: Path = _SYSCTLS, modules: Path = _MODULES) -> Self:
        """Read procfs, and the folder of the kernel's modules."""
        return cls(
            _words(sysctls / "tcp_available_congestion_control"),
            _words(sysctls / "tcp_allowed_congestion_control"),
            _has_bbr(modules / os.uname().release / "kernel/net/ipv4"),
        )


def _words(path: Path) -> Sequence[str]:
    try:
        return tuple(path.read_text(encoding="utf-8", errors="replace").split())
    except OSError:
        return ()


def _has_bbr(folder: Path) -> bool:
    # The module may be compressed: .ko.xz, .ko.zst.
    with contextlib.suppress(OSError):
        return any(path.name.startswith("tcp_bbr.ko") for path in folder.iterdir())
    return False


def check(algorithm: str, kernel: Kernel) -> None:
    """Try the algorithm of -tcp-congestion on a socket. Raises StartError, which names the cure."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            apply(probe, algorithm)
    except OSError as error:
        raise StartError(
            f"-tcp-congestion {algorithm}: {_explain(error, algorithm, kernel)}"
        ) from error


def apply(sock: socket.socket, algorithm: str) -> None:
    """Give a TCP socket an algorithm; the empty name leaves it as it is. Raises OSError."""
    if algorithm:
        option = system.option("TCP_CONGESTION")
        sock.setsockopt(socket.IPPROTO_TCP, option, algorithm.encode("ascii"))


def _explain(error: OSError, algorithm: str, kernel: Kernel) -> str:
    if error.errno == errno.ENOENT:
        has = f"has only {', '.join(kernel.available)}" if kernel.available else "does not have it"
        return f"this kernel {has}; load it on the host: modprobe tcp_{algorithm}"
    if error.errno == errno.EPERM:
        allowed = " ".join([*kernel.allowed, algorithm])
        return (
            "only root may use it; allow it on the host: "
            f"sysctl -w 'net.ipv4.tcp_allowed_congestion_control={allowed}', "
            "or give derper the capability CAP_NET_ADMIN"
        )
    return reason(error)


def algorithm_of(sock: socket.socket) -> str:
    """Return the algorithm of a TCP socket; empty where the kernel does not say."""
    with contextlib.suppress(OSError):
        option = system.option("TCP_CONGESTION")
        name = sock.getsockopt(socket.IPPROTO_TCP, option, _SIZE)
        return name.partition(b"\0")[0].decode("ascii", "replace")
    return ""


def bbr_cure(used: str, kernel: Kernel) -> str | None:
    """Return how to have BBR instead of `used`; None if `used` is BBR, or the kernel may lack it.

    A later BBR, as bbr3, is BBR.
    """
    if not used or used.startswith(BBR) or not (BBR in kernel.available or kernel.has_bbr_module):
        return None
    sysctl = f"sysctl -w net.core.default_qdisc=fq net.ipv4.tcp_congestion_control={BBR}"
    return f"{sysctl}, or -tcp-congestion {BBR}" if BBR in kernel.allowed else sysctl
