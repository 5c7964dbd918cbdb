"""Whether the peer's stream has ended, asked of the kernel once a connection is over.

A peer that closes while packets are on their way to it sends the end of its stream (FIN), then a
reset. Linux counts the end as a byte received, and a state after the reset is TCP_CLOSE, whether or
not an end came before. What is left to read tells: the hint of TCP_INQ counts the end, which is
there to be read, FIONREAD does not (tcp_inq_hint in net/ipv4/tcp.c, tcp_inq in include/net/tcp.h).
"""

import fcntl
import socket
import struct
import termios
from typing import Final

_TCP_INQ: Final = 36
"""The option, and the type of its control message (linux/tcp.h); Linux 4.18 and later."""
_INT: Final = struct.Struct("=i")


def has_ended(sock: socket.socket) -> bool:
    """Return whether the end came before the connection was over; False where that is not known.

    Takes the socket's pending error, for which a read would fail.
    """
    (unread,) = _INT.unpack(fcntl.ioctl(sock, termios.FIONREAD, bytes(_INT.size)))
    try:
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_INQ, 1)
        _, control, _, _ = sock.recvmsg(
            0, socket.CMSG_SPACE(_INT.size), socket.MSG_PEEK | socket.MSG_DONTWAIT
        )
    except OSError:
        # Where the end has come, a read does not fail.
        return False
    hints = [
        _INT.unpack(data)[0]
        for level, kind, data in control
        if (level, kind) == (socket.IPPROTO_TCP, _TCP_INQ)
    ]
    return hints == [unread + 1]
