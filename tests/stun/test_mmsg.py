"""recvmmsg and sendmmsg on loopback sockets."""

import errno
import socket
from collections.abc import Iterator

import pytest

from stun.batch import CAPACITY, DATAGRAM_AT, IPV4, OVERFLOW, ROW_CAPACITY, STRIDE, Batch
from stun.mmsg import BatchSocket
from stun.pktinfo import ask_for_destination

LOCALHOST = "127.0.0.1"


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        ask_for_destination(sock)
        sock.bind(("", 0))
        yield sock


@pytest.fixture
def client(server: socket.socket) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.bind((LOCALHOST, 0))
        sock.connect((LOCALHOST, server.getsockname()[1]))
        yield sock


def test_receives_into_the_rows_and_the_rest_into_the_overflow(
    server: socket.socket, client: socket.socket
) -> None:
    batch = Batch(IPV4)
    batch_socket = BatchSocket(server, batch)
    short, long, empty = b"short", bytes(range(256)) * 4, b""
    for datagram in (short, long, empty):
        client.send(datagram)
    assert batch_socket.receive() == [5, 1024, 0]
    assert batch.rows[DATAGRAM_AT : DATAGRAM_AT + 5] == short
    row, rest = STRIDE + DATAGRAM_AT, OVERFLOW
    assert (
        batch.rows[row : row + ROW_CAPACITY] + batch.overflow[rest : rest + 1024 - ROW_CAPACITY]
        == long
    )
    port = client.getsockname()[1].to_bytes(2, "big")
    for at in range(3):
        assert batch.sockaddrs[at * 16 + 2 :][:6] == port + socket.inet_aton(LOCALHOST)


def test_returns_the_full_length_of_a_datagram_that_does_not_fit(
    server: socket.socket, client: socket.socket
) -> None:
    batch_socket = BatchSocket(server, Batch(IPV4))
    for length in (ROW_CAPACITY + OVERFLOW, ROW_CAPACITY + OVERFLOW + 1, 65507):
        client.send(bytes(length))
    assert batch_socket.receive() == [ROW_CAPACITY + OVERFLOW, ROW_CAPACITY + OVERFLOW + 1, 65507]


def test_receives_whatever_lengths_the_kernel_left_before(
    server: socket.socket, client: socket.socket
) -> None:
    batch = Batch(IPV4)
    batch_socket = BatchSocket(server, batch)
    header = batch_socket._incoming[0].header
    header.sockaddr_length = header.control_length = 0
    client.send(b"x")
    assert batch_socket.receive() == [1]
    assert batch.sockaddrs[4:8] == socket.inet_aton(LOCALHOST)
    assert socket.inet_aton(LOCALHOST) in batch_socket._controls


def test_receives_no_more_than_a_batch(server: socket.socket, client: socket.socket) -> None:
    batch_socket = BatchSocket(server, Batch(IPV4))
    for _ in range(CAPACITY + 2):
        client.send(b"x")
    assert [len(batch_socket.receive()) for _ in range(2)] == [CAPACITY, 2]
    with pytest.raises(BlockingIOError):
        batch_socket.receive()


def test_sends_the_rows_that_are_named(server: socket.socket, client: socket.socket) -> None:
    batch = Batch(IPV4)
    batch_socket = BatchSocket(server, batch)
    for _ in range(4):
        client.send(b"x")
    assert len(batch_socket.receive()) == 4
    for row in range(4):
        batch.rows[row * STRIDE + DATAGRAM_AT :][:32] = bytes(32)
        batch.rows[row * STRIDE + DATAGRAM_AT] = row
    assert batch_socket.send(1, 3) == 2
    assert [client.recv(100) for _ in range(2)] == [bytes((row,)) + bytes(31) for row in (1, 2)]


@pytest.mark.parametrize("port", [0, 9])
def test_sends_up_to_the_row_that_can_not_be_sent(
    server: socket.socket, client: socket.socket, port: int
) -> None:
    batch = Batch(IPV4)
    batch_socket = BatchSocket(server, batch)
    for _ in range(3):
        client.send(b"x")
    assert len(batch_socket.receive()) == 3
    # Port 0 can't be sent to; nor may a socket send to the broadcast address unasked.
    address = LOCALHOST if port == 0 else "255.255.255.255"
    batch.sockaddrs[18:24] = port.to_bytes(2, "big") + socket.inet_aton(address)
    assert batch_socket.send(0, 3) == 1
    with pytest.raises(OSError, match="Invalid argument" if port == 0 else "Permission") as caught:
        batch_socket.send(1, 3)
    assert caught.value.errno == (errno.EINVAL if port == 0 else errno.EACCES)
    assert batch_socket.send(2, 3) == 1


def test_a_closed_socket_raises(server: socket.socket) -> None:
    batch_socket = BatchSocket(server, Batch(IPV4))
    server.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        batch_socket.receive()
    with pytest.raises(OSError, match="Bad file descriptor"):
        batch_socket.send(0, 1)
