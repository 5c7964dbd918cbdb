"""Whether the peer's stream has ended: told by the kernel, whatever came and was read before."""

import itertools
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress

import pytest

from derp.net import streamend, tcpinfo
from derp.net.tcp import TCPTransport
from tests.memory_transport import CLIENT, SERVER
from tests.support.waiting import until

DATA = b"0123456789"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks the Linux kernel")

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    with ours, theirs:
        yield ours, theirs


def info(ours: socket.socket) -> bytes:
    return TCPTransport(ours, CLIENT, SERVER).tcp_info()


def reset(theirs: socket.socket, ours: socket.socket) -> None:
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    theirs.close()
    until("the reset has come", lambda: tcpinfo.peer_ended(info(ours)) is None)


@pytest.mark.parametrize(
    ("ends", "read", "error"),
    [*itertools.product([True, False], [0, 4, 10], ["pending", "of a write", "of a read"])],
)
def test_a_reset_hides_no_end(pair: Pair, ends: bool, read: int, error: str) -> None:
    """However much was read, and whether or not the reset was told."""
    ours, theirs = pair
    theirs.sendall(DATA)
    left = len(DATA) - len(ours.recv(read))
    if ends:
        theirs.shutdown(socket.SHUT_WR)
    reset(theirs, ours)
    with suppress(OSError):
        if error == "of a write":
            ours.send(b"x")
        elif error == "of a read":
            left -= len(ours.recv(100))
            ours.recv(100)
    assert streamend.has_ended(ours) == ends
    assert streamend.has_ended(ours) == ends
    # It is the byte too many in the kernel's count; and what was left can still be read.
    assert tcpinfo.sent_and_received(info(ours))[1] == len(DATA) + ends
    if left:
        assert len(ours.recv(100)) == left


def test_an_old_kernel_does_not_tell(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamend, "_TCP_INQ", 9999)
    ours, theirs = pair
    theirs.shutdown(socket.SHUT_WR)
    reset(theirs, ours)
    assert not streamend.has_ended(ours)
