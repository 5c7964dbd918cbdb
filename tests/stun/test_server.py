"""The responder over loopback sockets, and after errors of the system."""

import errno
import itertools
import logging
import math
import os
import random
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import ExitStack, asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from stun import message, proxy_detector, responder, server
from stun.batch import CAPACITY
from stun.batched import BatchedResponder
from stun.message import MappedAddress
from stun.mmsg import BatchSocket
from stun.proxy_detector import ProxyDetector
from stun.proxy_signs import MIN_DURATION, MIN_REQUESTS
from stun.responder import MAX_PER_CALL, Responder
from stun.server import open_sockets, serve
from stun.stats import Stats
from tests.stun.routes import ipv4_route

PATIENCE = 10
"""Seconds that no test needs."""


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="the machine has no IPv6")


class Client:
    """A socket that, being connected, takes answers only from the address that it asked."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self.sock = sock

    @property
    def address(self) -> MappedAddress:
        host, port, *_ = self.sock.getsockname()
        return MappedAddress(ip_address(host), port)

    async def ask(self) -> bytes:
        """Send a request and return the response, which must be to it and be right."""
        transaction_id = os.urandom(12)
        await self.sock.send(message.build_binding_request(transaction_id))
        response = await self.sock.recv(2000)
        assert message.parse_binding_response(response) == (transaction_id, self.address)
        return response


class OnlyBatches(BatchedResponder):
    """A Responder that never answers one by one."""

    def __init__(self, sock: socket.socket, stats: Stats, _stripper: object) -> None:
        super().__init__(sock, stats)

    def answer(self) -> bool:
        return super().answer() >= MAX_PER_CALL


@pytest.fixture(params=["one by one", "in batches", "as they come"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answer in each of the ways that there are."""
    if request.param == "one by one":
        # As on a system without recvmmsg.
        monkeypatch.setattr(responder, "BATCHES", False)
        monkeypatch.delattr(responder, "BatchedResponder")
    elif request.param == "in batches":
        monkeypatch.setattr(server, "Responder", OnlyBatches)


@pytest.fixture
def in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "Responder", OnlyBatches)


@asynccontextmanager
async def serving(
    host: str, stats: Stats | None = None, patience: float = PATIENCE
) -> AsyncIterator[int]:
    """Serve on a free port, which is what is given."""
    with ExitStack() as opened:
        sockets = [opened.enter_context(sock) for sock in open_sockets(host, 0)]
        async with trio.open_nursery() as nursery:
            for sock in sockets:
                nursery.start_soon(serve, sock, stats if stats is not None else Stats())
            with trio.fail_after(patience):
                yield sockets[0].getsockname()[1]
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def client_of(host: str, port: int) -> AsyncIterator[Client]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with trio.socket.socket(family, socket.SOCK_DGRAM) as sock:
        await sock.connect((host, port))
        yield Client(sock)


# What is answered, and from where


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    ("bound", "asked"),
    [
        ("", "127.0.0.1"),
        ("", "127.0.0.2"),
        ("", "127.3.2.1"),
        pytest.param("", "::1", marks=needs_ipv6),
        ("0.0.0.0", "127.0.0.2"),
        pytest.param("::", "::1", marks=needs_ipv6),
        ("::", "127.0.0.2"),
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.2", "127.0.0.2"),
        pytest.param("::1", "::1", marks=needs_ipv6),
        ("localhost", "127.0.0.1"),
    ],
)
async def test_answers_from_the_address_that_was_asked(bound: str, asked: str) -> None:
    async with serving(bound) as port, client_of(asked, port) as client:
        for _ in range(3):
            response = await client.ask()
            assert len(response) == (44 if ":" in asked else 32)


@pytest.mark.usefixtures("way")
async def test_one_socket_answers_several_addresses_in_one_batch() -> None:
    asked = [f"127.0.0.{number}" for number in range(1, 9)]
    async with serving("") as port, trio.open_nursery() as nursery:

        async def ask(host: str) -> None:
            async with client_of(host, port) as client:
                for _ in range(10):
                    await client.ask()

        for host in asked:
            nursery.start_soon(ask, host)


@pytest.mark.usefixtures("way")
async def test_counts_answered_requests() -> None:
    stats = Stats()
    async with serving("127.0.0.1", stats) as port, client_of("127.0.0.1", port) as client:
        for _ in range(3):
            await client.ask()
    assert stats == Stats(success=3, ipv4=3)


@pytest.mark.usefixtures("way")
@needs_ipv6
async def test_counts_families_apart() -> None:
    stats = Stats()
    async with (
        serving("", stats) as port,
        client_of("127.0.0.1", port) as ipv4,
        client_of("::1", port) as ipv6,
    ):
        await ipv4.ask()
        await ipv6.ask()
        await ipv6.ask()
    assert stats == Stats(success=3, ipv4=1, ipv6=2)


@pytest.mark.usefixtures("way")
async def test_more_than_one_batch_at_once_is_answered() -> None:
    count = CAPACITY + CAPACITY // 2
    stats = Stats()
    with ExitStack() as opened:
        (sock,) = (opened.enter_context(each) for each in open_sockets("127.0.0.1", 0))
        async with client_of(*sock.getsockname()) as client:
            # All of them lie in the socket before anyone reads.
            for number in range(count):
                request = message.build_binding_request(number.to_bytes(12, "big"))
                await client.sock.send(request)
            with trio.fail_after(PATIENCE):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(serve, sock, stats)
                    for number in range(count):
                        response = message.parse_binding_response(await client.sock.recv(100))
                        assert response == (number.to_bytes(12, "big"), client.address)
                    nursery.cancel_scope.cancel()
    assert stats == Stats(success=count, ipv4=count)


# What is not answered


def not_requests() -> Iterator[tuple[str, bytes]]:
    good = message.build_binding_request(bytes(12))
    yield "nothing", b""
    yield "one byte", b"\x00"
    yield "a header", good[:20]
    yield "half a request", good[:30]
    yield "a request without its last byte", good[:39]
    yield "a request and a byte", good + b"\x00"
    yield "a wrong fingerprint", good[:39] + bytes((good[39] ^ 1,))
    yield "a response", message.build_binding_response(bytes(12), ip_address("127.0.0.1"), 1)
    yield "text", b"GET / HTTP/1.1\r\n\r\n"
    yield "the largest datagram", bytes(65507)
    yield "a request in the largest datagram", good + bytes(65507 - 40)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    "datagram", [pytest.param(datagram, id=name) for name, datagram in not_requests()]
)
async def test_does_not_answer_other_datagrams(datagram: bytes) -> None:
    stats = Stats()
    async with serving("127.0.0.1", stats) as port, client_of("127.0.0.1", port) as client:
        await client.sock.send(datagram)
        await client.ask()
    assert stats == Stats(not_stun=1, success=1, ipv4=1)


@pytest.mark.usefixtures("way")
async def test_answers_the_requests_in_a_flood_of_garbage() -> None:
    randomness = random.Random(3489)
    good = message.build_binding_request(bytes(12))
    stats, rounds, flood = Stats(), 20, 100
    async with serving("", stats) as port, client_of("127.0.0.2", port) as client:
        for _ in range(rounds):
            for _ in range(flood):
                broken = bytearray(good)
                broken[randomness.randrange(40)] ^= randomness.randrange(1, 256)
                garbage = randomness.randbytes(randomness.randrange(100))
                await client.sock.send(randomness.choice((garbage, bytes(broken), good[:25])))
            await client.ask()
    assert stats == Stats(not_stun=rounds * flood, success=rounds, ipv4=rounds)


async def test_no_response_is_larger_than_its_request() -> None:
    async with serving("127.0.0.1") as port, client_of("127.0.0.1", port) as client:
        assert len(await client.ask()) < len(message.build_binding_request(bytes(12)))


# What the system refuses


@pytest.mark.usefixtures("in_batches")
@pytest.mark.parametrize(
    "number", [errno.ENETUNREACH, errno.EPERM, errno.EAGAIN, errno.EINVAL, errno.ENOBUFS]
)
async def test_counts_a_response_that_can_not_be_sent_and_goes_on(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    send, refused = BatchSocket.send, []

    def refuse_once(self: BatchSocket, first: int, stop: int) -> int:
        if not refused:
            refused.append(first)
            raise OSError(number, os.strerror(number))
        return send(self, first, stop)

    monkeypatch.setattr(BatchSocket, "send", refuse_once)
    stats = Stats()
    async with serving("127.0.0.1", stats) as port, client_of("127.0.0.1", port) as client:
        await client.sock.send(message.build_binding_request(bytes(12)))
        await client.ask()
    assert stats == Stats(write_error=1, success=1, ipv4=2)


@pytest.mark.usefixtures("in_batches")
async def test_a_request_from_port_0_is_not_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    receive, forged = BatchSocket.receive, []

    def receive_and_forge(self: BatchSocket) -> list[int]:
        lengths = receive(self)
        if not forged:
            self._batch.sockaddrs[2:4] = bytes(2)
            forged.append(lengths)
        return lengths

    monkeypatch.setattr(BatchSocket, "receive", receive_and_forge)
    stats = Stats()
    async with serving("127.0.0.1", stats) as port, client_of("127.0.0.1", port) as client:
        await client.sock.send(message.build_binding_request(bytes(12)))
        while not forged:
            await trio.lowlevel.checkpoint()
        await client.ask()
    assert stats == Stats(write_error=1, success=1, ipv4=2)


@pytest.mark.usefixtures("in_batches")
async def test_sends_the_rest_if_only_some_responses_were_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    send = BatchSocket.send

    def send_one(self: BatchSocket, first: int, stop: int) -> int:
        return send(self, first, min(stop, first + 1))

    monkeypatch.setattr(BatchSocket, "send", send_one)
    await test_more_than_one_batch_at_once_is_answered()


def failing(numbers: Iterable[int]) -> Callable[[Responder], bool]:
    """Make a Responder.answer that raises these errors, and then has nothing."""
    left = iter(numbers)

    def answer(_responder: Responder) -> bool:
        number = next(left, errno.EAGAIN)
        raise OSError(number, os.strerror(number))

    return answer


async def serve_for(seconds: float, stats: Stats) -> None:
    with ExitStack() as opened:
        (sock,) = (opened.enter_context(each) for each in open_sockets("127.0.0.1", 0))
        with trio.move_on_after(seconds):
            await serve(sock, stats)


async def test_pauses_after_an_unexpected_receive_error_and_logs_it_once(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    autojump_clock: trio.abc.Clock,
) -> None:
    monkeypatch.setattr(Responder, "answer", failing([errno.ENOMEM] * 10))
    stats = Stats()
    await serve_for(4.5, stats)
    assert stats == Stats(read_error=5)
    records = [(record.name, record.levelno, record.getMessage()) for record in caplog.records]
    assert records == [
        (
            "derper.stun",
            logging.WARNING,
            "STUN can't receive: Cannot allocate memory; trying again each second",
        )
    ]


async def test_does_not_pause_after_errors_that_pass(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    autojump_clock: trio.abc.Clock,
) -> None:
    errors = (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH) * 3
    monkeypatch.setattr(Responder, "answer", failing(errors))
    stats = Stats()
    await serve_for(0.5, stats)
    assert stats == Stats(read_error=9)
    assert not caplog.records


async def test_other_tasks_run_while_errors_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Responder, "answer", failing(itertools.repeat(errno.ECONNREFUSED)))
    stats = Stats()
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_for, PATIENCE, stats)
            while stats.read_error < 10:
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()


@pytest.mark.usefixtures("in_batches")
async def test_other_tasks_run_while_batches_are_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BatchSocket, "receive", lambda _batch_socket: [0] * CAPACITY)
    stats = Stats()
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_for, PATIENCE, stats)
            while stats.not_stun < 10 * CAPACITY:
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()


async def test_cancelling_leaves_the_socket_to_its_owner() -> None:
    with ExitStack() as opened:
        (sock,) = (opened.enter_context(each) for each in open_sockets("127.0.0.1", 0))
        for _ in range(2):
            with trio.fail_after(PATIENCE):
                async with trio.open_nursery() as nursery, client_of(*sock.getsockname()) as client:
                    nursery.start_soon(serve, sock, Stats())
                    await client.ask()
                    nursery.cancel_scope.cancel()
        assert sock.fileno() != -1


# Who asks


@pytest.mark.usefixtures("way")
async def test_warns_of_a_proxy(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    mock_clock: MockClock,
    tmp_path: Path,
) -> None:
    gateway, looked_at = "203.0.113.1", []

    observe = ProxyDetector.observe

    async def observe_from_gateway(self: ProxyDetector, _address: bytes, port: bytes) -> bool:
        looked_at.append(0)
        return await observe(self, ip_address(gateway).packed, port)

    monkeypatch.setattr(ProxyDetector, "observe", observe_from_gateway)
    monkeypatch.setattr(proxy_detector, "PROC_NET", tmp_path)
    monkeypatch.setattr(proxy_detector, "CONTAINERS", ())
    (tmp_path / "route").write_bytes(ipv4_route(gateway))
    stats = Stats()
    async with (
        serving("127.0.0.1", stats, patience=math.inf) as port,
        client_of("127.0.0.1", port) as one,
        client_of("127.0.0.1", port) as other,
    ):
        await one.sock.send(b"no request")
        while not stats.not_stun:
            await trio.lowlevel.checkpoint()
        for _ in range(MIN_REQUESTS):
            assert not caplog.records
            for client in (one, other):
                await client.ask()
            mock_clock.jump(MIN_DURATION / (MIN_REQUESTS - 1))
        # What was said is said behind the answer.
        await trio.testing.wait_all_tasks_blocked()
        (record,) = caplog.records
        assert f" come from {gateway}, the default gateway" in record.getMessage()
        for _ in range(5):
            await one.ask()
            mock_clock.jump(MIN_DURATION)
    assert len(caplog.records) == 1
    assert len(looked_at) == 2 * MIN_REQUESTS
    assert stats == Stats(success=2 * MIN_REQUESTS + 5, ipv4=2 * MIN_REQUESTS + 5, not_stun=1)


# Opening


def describe(sockets: list[socket.socket]) -> list[tuple[int, str]]:
    """Close the sockets; tell of each its family and address."""
    described = []
    for sock in sockets:
        with sock:
            assert sock.type == socket.SOCK_DGRAM
            assert not sock.getblocking()
            described.append((sock.family, sock.getsockname()[0]))
    return described


@needs_ipv6
@pytest.mark.parametrize("host", ["", "0.0.0.0", "::"])
def test_every_address_means_two_sockets_on_one_port(host: str) -> None:
    sockets = open_sockets(host, 0)
    assert len({sock.getsockname()[1] for sock in sockets}) == 1
    assert describe(sockets) == [(socket.AF_INET6, "::"), (socket.AF_INET, "0.0.0.0")]


@pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=needs_ipv6)])
def test_an_address_means_one_socket(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    assert describe(open_sockets(host, 0)) == [(family, host)]


def test_the_kernel_is_asked_for_a_larger_buffer() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ordinary:
        usual = ordinary.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    (sock,) = open_sockets("127.0.0.1", 0)
    with sock:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) >= usual


@pytest.mark.parametrize("host", ["", "127.0.0.1"])
def test_a_port_in_use_is_an_error(host: str) -> None:
    with ExitStack() as opened:
        sockets = [opened.enter_context(sock) for sock in open_sockets(host, 0)]
        with pytest.raises(OSError, match="in use") as caught:
            open_sockets(host, sockets[0].getsockname()[1])
        assert caught.value.errno == errno.EADDRINUSE


@pytest.mark.parametrize(
    "host",
    [
        pytest.param("203.0.113.77", id="an IPv4 address of another machine"),
        pytest.param("2001:db8::77", id="an IPv6 address of another machine"),
        pytest.param("a..b", id="no name"),
        pytest.param("a\0b", id="no string that the system takes"),
        pytest.param("x" * 70 + ".example", id="a name that DNS can't hold"),
    ],
)
def test_an_unusable_address_is_an_error(host: str) -> None:
    with pytest.raises(OSError):  # noqa: PT011 -- which one is the system's choice
        open_sockets(host, 0)


@pytest.mark.parametrize("number", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
def test_without_ipv6_there_is_ipv4(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    open_one = server._open

    def no_ipv6(family: socket.AddressFamily, *rest: Any) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(number, os.strerror(number))
        return open_one(family, *rest)

    monkeypatch.setattr(server, "_open", no_ipv6)
    assert describe(open_sockets("", 0)) == [(socket.AF_INET, "0.0.0.0")]
    with pytest.raises(OSError, match=os.strerror(number)):
        open_sockets("::1", 0)


@pytest.mark.parametrize(("failures", "opens"), [(1, True), (100, False)])
def test_a_free_port_is_free_in_both_families(
    failures: int, monkeypatch: pytest.MonkeyPatch, *, opens: bool
) -> None:
    open_one, opened, left = server._open, [], [failures]

    def taken_in_ipv4(family: socket.AddressFamily, *rest: Any) -> socket.socket:
        if family == socket.AF_INET and left[0]:
            left[0] -= 1
            raise OSError(errno.EADDRINUSE, "Address already in use")
        opened.append(open_one(family, *rest))
        return opened[-1]

    monkeypatch.setattr(server, "_open", taken_in_ipv4)
    if opens:
        assert len(describe(open_sockets("", 0))) == 2
    else:
        with pytest.raises(OSError, match="in use"):
            open_sockets("", 0)
    assert all(sock.fileno() == -1 for sock in opened)
