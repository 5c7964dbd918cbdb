"""The process that has connected to a unix socket, as Linux knows it."""

import socket
import struct
from typing import Final, NamedTuple

_UCRED: Final = struct.Struct("3i")
"""Process, user and group id (Linux: `struct ucred`)."""


class PeerProcess(NamedTuple):
    """The process at the other end."""

    pid: int
    uid: int


def peer_process(sock: socket.socket) -> PeerProcess | None:
    """Return the peer of a unix socket (SO_PEERCRED in unix(7)); None without that option."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return None
    pid, uid, _gid = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, option, _UCRED.size))
    return PeerProcess(pid, uid)
