"""Linux's recvmmsg and sendmmsg: a whole `Batch` of datagrams by one system call each.

The calls of Python's `socket` are for one datagram, and make objects of its address and ancillary
data, which costs more than the kernel's own work. Here the kernel writes into the batch's buffers,
and sends each response from them, with the addresses of its request. The structures are built once:

    mmsghdr[row] ─┬─ name ─────► sockaddrs[row]  the sender's
                  ├─ iov ──────► rows[row]       and, to receive, overflow[row]
                  ├─ control ──► controls[row]   a cmsghdr with in_pktinfo or in6_pktinfo
                  └─ length      of the datagram, also if it did not fit
"""

import ctypes
import os
import socket
from typing import Final

from stun.batch import CAPACITY, DATAGRAM_AT, OVERFLOW, ROW_CAPACITY, STRIDE, Batch
from stun.pktinfo import info_length

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_recvmmsg: Final = _LIBC.recvmmsg
_recvmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p)
_sendmmsg: Final = _LIBC.sendmmsg
_sendmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)

# MSG_TRUNC makes recvmmsg return the full length of a datagram that did not fit.
_RECEIVE_FLAGS: Final = socket.MSG_DONTWAIT | socket.MSG_TRUNC


class _IOVec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _MsgHdr(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("iov", ctypes.c_void_p),
        ("iov_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _MMsgHdr(ctypes.Structure):
    _fields_ = (("header", _MsgHdr), ("length", ctypes.c_uint))


_MMSGHDR: Final = ctypes.sizeof(_MMsgHdr)
_IOVEC: Final = ctypes.sizeof(_IOVec)
_INTERFACE_IPV4: Final = socket.CMSG_LEN(0) // 4
_INTERFACE_IPV6: Final = (socket.CMSG_LEN(0) + 16) // 4
"""Where in a row of `controls` the interface is (`stun.pktinfo`), in units of 4 bytes."""


class BatchSocket:
    """A UDP socket that receives into a batch and sends from it, and never waits.

    After `ask_for_destination`, each response leaves from the address that its request was sent to.
    """

    def __init__(self, sock: socket.socket, batch: Batch) -> None:
        ipv6 = sock.family == socket.AF_INET6
        info = info_length(sock)
        control = socket.CMSG_SPACE(info) if info else 0
        self._sock = sock
        self._controls = bytearray(CAPACITY * control)
        self._interfaces = None
        if control:
            interface = _INTERFACE_IPV6 if ipv6 else _INTERFACE_IPV4
            self._interfaces = memoryview(self._controls).cast("I")[interface :: control // 4]
        self._no_interfaces = memoryview(bytes(4 * CAPACITY)).cast("I")

        self._iovs = (_IOVec * (2 * CAPACITY))()
        self._response_iovs = (_IOVec * CAPACITY)()
        self._incoming = (_MMsgHdr * CAPACITY)()
        self._outgoing = (_MMsgHdr * CAPACITY)()
        sockaddr_stride = batch.family.sockaddr_stride
        rows, overflow, sockaddrs, controls = map(
            _address, (batch.rows, batch.overflow, batch.sockaddrs, self._controls)
        )
        for row in range(CAPACITY):
            head = rows + row * STRIDE + DATAGRAM_AT
            self._iovs[2 * row] = _IOVec(head, ROW_CAPACITY)
            self._iovs[2 * row + 1] = _IOVec(overflow + row * OVERFLOW, OVERFLOW)
            self._response_iovs[row] = _IOVec(head, batch.family.response_length)
            # Without padding, the control data fits into a buffer on the kernel's stack.
            unpadded = socket.CMSG_LEN(info) if info else 0
            for headers, iovs, iov_count, control_length in (
                (self._incoming, self._iovs, 2, control),
                (self._outgoing, self._response_iovs, 1, unpadded),
            ):
                headers[row].header = _MsgHdr(
                    name=sockaddrs + row * sockaddr_stride,
                    name_length=batch.family.sockaddr_length,
                    iov=ctypes.addressof(iovs) + row * iov_count * _IOVEC,
                    iov_count=iov_count,
                    control=controls + row * control if control else None,
                    control_length=control_length,
                )
        self._batch = batch  # kept alive: the structures point into its buffers
        self._incoming_at = ctypes.addressof(self._incoming)
        self._outgoing_at = ctypes.addressof(self._outgoing)
        self._incoming_bytes = memoryview(self._incoming).cast("B")
        self._incoming_fresh = bytes(self._incoming_bytes)
        length = _MMsgHdr.length.offset // 4
        self._lengths = self._incoming_bytes.cast("I")[length :: _MMSGHDR // 4]

    def receive(self) -> list[int]:
        """Fill the batch; return the lengths of the datagrams received, at least one.

        Raises BlockingIOError if there is none, and other OSErrors as recvmsg(2) does.
        """
        # Restore the buffer lengths, which the kernel has overwritten.
        self._incoming_bytes[:] = self._incoming_fresh
        count = _recvmmsg(self._sock.fileno(), self._incoming_at, CAPACITY, _RECEIVE_FLAGS, None)
        if count < 0:
            raise _last_error()
        if self._interfaces is not None:
            self._interfaces[:count] = self._no_interfaces[:count]
        return self._lengths[:count].tolist()

    def send(self, first: int, stop: int) -> int:
        """Send the responses in the rows from `first` to `stop` - 1; return how many were sent.

        Raises OSError if the first can't be sent: BlockingIOError for a full socket, others as
        sendmsg(2) does. If a later one can't, a call that begins with its row raises.
        """
        at_first = self._outgoing_at + first * _MMSGHDR
        sent: int = _sendmmsg(self._sock.fileno(), at_first, stop - first, socket.MSG_DONTWAIT)
        if sent < 0:
            raise _last_error()
        return sent


def _address(buffer: bytearray) -> int:
    """Return the address of a buffer, which must not be resized from then on."""
    return ctypes.addressof((ctypes.c_char * len(buffer)).from_buffer(buffer))


def _last_error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
