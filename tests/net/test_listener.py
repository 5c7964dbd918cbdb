import errno
import logging
import socket
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from derp.errors import StartError
from derp.net import listener as module
from derp.net.address import Endpoint, endpoint
from derp.net.descriptors import Descriptors
from derp.net.listenaddress import Address
from derp.net.listener import NOTSENT_LOWAT, TCPOptions, accept_forever, open_listeners
from tests.patience import PATIENCE


@pytest.fixture
def loopback() -> Iterator[socket.socket]:
    (listener,) = open_listeners(Address("127.0.0.1", 0), TCPOptions())
    with listener:
        yield listener


def test_options_are_inherited_by_accepted_connections() -> None:
    (listener,) = open_listeners(Address("127.0.0.1", 0), TCPOptions(600, 15))
    with listener:
        listener.setblocking(True)
        client = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
        with client, accepted:
            tcp = socket.IPPROTO_TCP
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert accepted.getsockopt(tcp, socket.TCP_KEEPIDLE) == 600
            assert accepted.getsockopt(tcp, socket.TCP_USER_TIMEOUT) == 15_000
            assert accepted.getsockopt(tcp, socket.TCP_NODELAY) != 0
            assert accepted.getsockopt(tcp, socket.TCP_NOTSENT_LOWAT) == NOTSENT_LOWAT


def test_options_of_zero_leave_the_kernels() -> None:
    (listener,) = open_listeners(Address("127.0.0.1", 0), TCPOptions(0, 0))
    with listener:
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
        assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::"])
def test_every_address_is_both_families_on_one_port(host: str) -> None:
    listeners = open_listeners(Address(host, 0), TCPOptions())
    try:
        ports = {listener.getsockname()[1] for listener in listeners}
        assert len(ports) == 1
        families = [listener.family for listener in listeners]
        assert families == [socket.AF_INET, socket.AF_INET6][: len(families)]
        port = ports.pop()
        for address in ["127.0.0.1", "::1"][: len(families)]:
            with socket.create_connection((address, port)):
                pass
    finally:
        for listener in listeners:
            listener.close()


def test_without_ipv6_there_is_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_has_ipv6", lambda: False)
    (listener,) = open_listeners(Address("", 0), TCPOptions())
    with listener:
        assert listener.family == socket.AF_INET


def test_a_port_in_use_names_the_port_and_leaves_nothing_open(loopback: socket.socket) -> None:
    port = loopback.getsockname()[1]
    with pytest.raises(StartError) as caught:
        open_listeners(Address("127.0.0.1", port), TCPOptions())
    assert str(caught.value) == (
        f"can't listen on TCP 127.0.0.1:{port}: the port is in use by another program"
    )


def test_a_name_that_is_not_known_is_told() -> None:
    with pytest.raises(StartError, match=r"can't listen on TCP nowhere\.invalid:1"):
        open_listeners(Address("nowhere.invalid", 1), TCPOptions())


@pytest.mark.parametrize("host", ["a..b", "a\0b", "x" * 300])
def test_what_is_no_name_at_all_is_told(host: str) -> None:
    with pytest.raises(StartError, match="can't listen on TCP"):
        open_listeners(Address(host, 1), TCPOptions())


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errno.EACCES, "CAP_NET_BIND_SERVICE"),
        (errno.EADDRNOTAVAIL, "does not have that address"),
        (errno.ENOBUFS, "no buffer space"),
    ],
)
def test_other_errors_name_the_cure(
    monkeypatch: pytest.MonkeyPatch, error: int, expected: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(error, __import__("os").strerror(error))

    monkeypatch.setattr(module, "_listen", fail)
    with pytest.raises(StartError, match=expected):
        open_listeners(Address("127.0.0.1", 80), TCPOptions())


def test_an_endpoint_has_no_zone() -> None:
    assert endpoint(("fe80::1%eth0", 443, 0, 2)) == Endpoint("fe80::1", 443)
    assert str(endpoint(("fe80::1%eth0", 443, 0, 2))) == "[fe80::1]:443"
    assert str(endpoint(("192.0.2.1", 443))) == "192.0.2.1:443"


async def test_accepted_sockets_are_handed_on(loopback: socket.socket) -> None:
    accepted: list[tuple[socket.socket, Endpoint]] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            accept_forever,
            loopback,
            lambda *pair, full: accepted.append(pair) or not full,
            Descriptors(),
        )
        clients = [socket.create_connection(loopback.getsockname()) for _ in range(100)]
        with trio.fail_after(PATIENCE):
            while len(accepted) < 100:
                await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert all(not sock.getblocking() for sock, _ in accepted)
    ports = {client.getsockname()[1] for client in clients}
    assert {remote.port for _, remote in accepted} == ports
    for sock in [*clients, *(sock for sock, _ in accepted)]:
        sock.close()


async def test_while_it_is_behind_one_is_taken_per_turn(loopback: socket.socket) -> None:
    """Whoever is refused costs little, and does not keep others in the kernel's queue."""
    seen = ""
    is_taken = [True, True, False, False, True, False]

    def handle(sock: socket.socket, remote: Endpoint, *, full: bool) -> bool:
        nonlocal seen
        sock.close()
        taken = is_taken[len(seen.replace("|", ""))]
        seen += "+" if taken else "-"
        return taken

    class Turns(trio.abc.Instrument):
        def before_io_wait(self, timeout: float) -> None:
            nonlocal seen
            seen += "|" if seen and not seen.endswith("|") else ""

    clients = [socket.create_connection(loopback.getsockname()) for _ in is_taken]
    turns = Turns()
    trio.lowlevel.add_instrument(turns)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept_forever, loopback, handle, Descriptors(), lambda: True)
        with trio.fail_after(PATIENCE):
            while len(seen.replace("|", "")) < len(is_taken):
                await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    trio.lowlevel.remove_instrument(turns)
    for client in clients:
        client.close()
    assert seen.strip("|") == "+|+|--+|-"


class FailingListener:
    """A listener whose accept fails as told, and then has nothing more."""

    def __init__(self, *errors: int) -> None:
        self.errors = list(errors)
        self.accepts = 0
        self._pair = socket.socketpair()
        self._pair[0].send(b"x")

    def fileno(self) -> int:
        return self._pair[1].fileno()

    def accept(self) -> tuple[socket.socket, tuple[str, int]]:
        self.accepts += 1
        if self.errors:
            number = self.errors.pop(0)
            raise OSError(number, "out of something")
        return socket.socket(), ("192.0.2.1", 1)

    def close(self) -> None:
        for sock in self._pair:
            sock.close()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
async def test_without_descriptors_it_complains_once_and_goes_on(
    number: int, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    listener = FailingListener(*[number] * 20)
    handed = []

    def handle(sock: socket.socket, remote: Endpoint, *, full: bool) -> bool:
        sock.close()
        handed.append(remote)
        nursery.cancel_scope.cancel()
        return True

    with caplog.at_level(logging.ERROR):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept_forever, listener, handle, Descriptors())
    assert handed[0] == Endpoint("192.0.2.1", 1)
    (record,) = caplog.records
    assert "can't accept connections" in record.getMessage()
    # A tenth of a second between the tries.
    assert trio.current_time() >= 2.0
    listener.close()


@pytest.mark.parametrize("room_is_made", [False, True])
async def test_where_there_is_no_room_it_is_said(
    loopback: socket.socket, room_is_made: bool
) -> None:
    told: list[bool] = []
    descriptors = Descriptors(limit=lambda: 1)

    def handle(sock: socket.socket, remote: Endpoint, *, full: bool) -> bool:
        told.append(full)
        sock.close()
        return room_is_made

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept_forever, loopback, handle, descriptors)
        for _ in range(3):
            stream = await trio.open_tcp_stream(*loopback.getsockname())
            with trio.fail_after(PATIENCE):
                assert await stream.receive_some() == b""
            await stream.aclose()
        nursery.cancel_scope.cancel()
    assert told == [True] * 3
    assert descriptors.refused == (0 if room_is_made else 3)


@pytest.mark.parametrize(
    ("address", "here"), [("127.0.0.1", True), ("127.0.1.1", False), ("::1", True)]
)
async def test_the_reserve_is_for_exactly_loopback(address: str, here: bool) -> None:
    seen: list[bool] = []

    class Seeing(Descriptors):
        def has_room(self, number: int, now: float, *, from_here: bool = False) -> bool:
            seen.append(from_here)
            return True

    host = "::1" if ":" in address else "127.0.0.1"
    (listener,) = open_listeners(Address(host, 0), TCPOptions())

    def handle(sock: socket.socket, remote: Endpoint, *, full: bool) -> bool:
        sock.close()
        nursery.cancel_scope.cancel()
        return True

    with listener, trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept_forever, listener, handle, Seeing())
            target = (host, listener.getsockname()[1])
            with socket.create_connection(target, source_address=(address, 0)):
                await trio.sleep_forever()
    assert seen == [here]


async def test_an_error_of_the_new_connection_is_not_ours() -> None:
    listener = FailingListener(errno.EPERM, errno.ENETDOWN)
    async with trio.open_nursery() as nursery:

        def handle(sock: socket.socket, remote: Endpoint, *, full: bool) -> bool:
            sock.close()
            nursery.cancel_scope.cancel()
            return False

        nursery.start_soon(accept_forever, listener, handle, Descriptors())
    assert listener.accepts >= 3
    listener.close()
