"""The connection task before login: what others may do to it, and what is counted and logged."""

import contextlib
import logging
import os
import re
import socket
from collections.abc import AsyncIterator
from ipaddress import ip_network
from typing import Any

import attrs
import nacl.public
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from derp.admission.model import Outcome, Question, Verdict
from derp.errors import NoRoom, TooManyConnections, TooManyPending
from derp.http import server
from derp.http.message import Answer, Request, Response, Upgrade
from derp.log import Coalescer
from derp.net.address import Endpoint, endpoint
from derp.net.listenaddress import Address
from derp.net.prelogin import WAKES_PER_TURN
from derp.relay.hub import Hub
from derp.relay.pending import COST, EVICTABLE_AFTER, MEMORY, RESERVE, SPARE, PendingConnections
from derp.service.accept import Acceptor
from derp.service.run import _pending_connections
from derp.session.login import VERDICT_WAIT
from derp.session.state import RelayState
from tests.memory_transport import memory_pair
from tests.peers import Peer, frame
from tests.support.config import make_config
from tests.turns import counted_turns

REQUEST = b"GET /derp HTTP/1.1\r\nHost: x\r\n\r\n"
CLIENT_INFO = 0x02


class Gate:
    """One that never answers, and knows who waits."""

    def __init__(self) -> None:
        self.waiting = 0

    def known(self, question: Question) -> Verdict | None:
        return None

    async def admit(self, question: Question) -> Verdict:
        self.waiting += 1
        try:
            await trio.sleep_forever()
        finally:
            self.waiting -= 1
        raise AssertionError

    recheck = admit


@attrs.define
class Front:
    """A door, and clients that come to it from any address."""

    acceptor: Acceptor
    listener: socket.socket
    clients: list[socket.socket] = attrs.field(factory=list)
    numbers: list[int] = attrs.field(factory=list)
    """Descriptors of the server's ends."""

    @property
    def state(self) -> RelayState:
        return self.acceptor.state

    def connect(self, host: str = "192.0.2.7", *, full: bool = False) -> socket.socket:
        """Connect, and say that it was from `host`."""
        client = socket.create_connection(self.listener.getsockname())
        accepted, address = self.listener.accept()
        accepted.setblocking(False)
        self.numbers.append(accepted.fileno())
        self.acceptor.accept(accepted, Endpoint(host, endpoint(address).port), full=full)
        self.clients.append(client)
        client.setblocking(False)
        return client

    def info(self) -> bytes:
        return Peer(memory_pair()[0]).client_info(self.state.public_key)

    def ends(self) -> dict[str, int]:
        return {reason: n for reason, n in self.state.metrics.connection_ends.items() if n}


def is_open(client: socket.socket) -> bool:
    try:
        while data := client.recv(1 << 16):
            assert data
    except BlockingIOError:
        return True
    except ConnectionError:
        pass
    return False


@contextlib.asynccontextmanager
async def running(pending: PendingConnections) -> AsyncIterator[Front]:
    def route(_: Request) -> Answer:
        return Upgrade(websocket=False, fast_start=True, ideal_node="", answer=b"")

    async with trio.open_nursery() as nursery:
        state = RelayState(
            nacl.public.PrivateKey.generate(), nursery, write_timeout=2, pending=pending
        )
        nursery.start_soon(state.poller.run)
        nursery.start_soon(state.prelogin.run)
        acceptor = Acceptor(state, nursery, route, None, None, Coalescer())
        with socket.create_server(("127.0.0.1", 0)) as listener:
            front = Front(acceptor, listener)
            yield front
        for client in front.clients:
            client.close()
        nursery.cancel_scope.cancel()
    assert len(pending) == pending.held == 0
    assert not state.prelogin._waiting


def lines(caplog: pytest.LogCaptureFixture, message: str) -> list[dict[str, str]]:
    return [
        record.__dict__["fields"] for record in caplog.records if record.getMessage() == message
    ]


@pytest.mark.parametrize(
    ("flags", "workers", "rate", "most"),
    [
        ({}, 1, 500, 512),
        ({}, 4, 125, 128),
        ({"per_network_pending_limit": 0}, 1, 500, 10_000),
        ({"per_network_pending_limit": 3}, 4, 500 / 4, 3),
        ({"per_network_pending_limit": 10_000}, 1, 500, 1024),
        ({"per_network_accept_limit": 0}, 1, 5000, 512),
    ],
)
def test_the_limits_are_those_of_the_flags(
    monkeypatch: pytest.MonkeyPatch,
    *,
    flags: dict[str, int],
    workers: int,
    rate: float,
    most: int,
) -> None:
    """A quarter of 4096 descriptors at most; divided by the workers, but not below 64."""
    monkeypatch.setattr("derp.metrics.process.max_fds", lambda: 4096)
    proxies = (ip_network("10.0.0.0/8"),)
    config = make_config(dev=True, a=Address("", 0), trusted_proxies=proxies, **flags)
    pending = _pending_connections(config, workers)
    admitted = 0
    with contextlib.suppress(TooManyConnections, TooManyPending, NoRoom):
        while True:
            pending.admit("192.0.2.7", 0)
            admitted += 1
    assert admitted == min(most, (MEMORY - MEMORY // RESERVE) // COST, int(2 * rate))
    pending = _pending_connections(config, workers)
    admitted = 0
    with contextlib.suppress(TooManyConnections):
        while admitted < 10_000:
            pending.admit("192.0.2.7", 0).done()
            admitted += 1
    assert admitted == min(2 * rate, 10_000)
    assert pending.network_of("10.1.2.3") is None


async def test_a_client_counts_until_it_has_logged_in() -> None:
    async with running(PendingConnections()) as front:
        client = front.connect()
        assert front.state.pending.held == COST
        await wait_all_tasks_blocked()
        client.sendall(REQUEST)
        await wait_all_tasks_blocked()
        assert len(front.state.pending) == 1
        client.sendall(front.info())
        with trio.fail_after(20):
            while not front.state.hub.members:
                await wait_all_tasks_blocked()
        assert len(front.state.pending) == front.state.pending.held == 0


@pytest.mark.parametrize("begun", [False, True])
async def test_a_connection_that_is_ended_for_another(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture, begun: bool
) -> None:
    caplog.set_level(logging.INFO)
    async with running(PendingConnections(max_pending=1)) as front:
        first = front.connect()
        await wait_all_tasks_blocked()
        if begun:
            first.sendall(REQUEST)
            await wait_all_tasks_blocked()
        await trio.sleep(EVICTABLE_AFTER)
        second = front.connect("192.0.2.8")
        assert not is_open(first)
        await wait_all_tasks_blocked()
        assert is_open(second)
        assert front.ends() == {"too_many_pending": 1}
        assert len(front.state.pending) == 1
        (line,) = lines(caplog, "refused")
        assert line["remote"].startswith("192.0.2.7:")
        assert line["reason"] == (
            "too_many_pending: 1 connections from 192.0.2.0/24 have not logged in, "
            "and this was the oldest"
        )


async def test_an_end_before_the_task_has_begun(autojump_clock: trio.testing.MockClock) -> None:
    async with running(PendingConnections(memory=COST)) as front:
        first = front.connect("127.0.0.1")
        # No turn for its task until then.
        front.state.pending.admit(
            "192.0.2.9", trio.current_time() + EVICTABLE_AFTER, no_descriptor=True
        ).done()
        assert not is_open(first)
        await wait_all_tasks_blocked()
        assert front.ends() == {"no_room": 1}


async def at_the_gate(front: Front) -> Gate:
    """Have a client that has shown its key wait for a verdict."""
    admission = front.state.admission = Gate()
    front.connect().sendall(REQUEST + front.info())
    with trio.fail_after(1000):
        while not admission.waiting:
            await wait_all_tasks_blocked()
    return admission


async def test_one_that_waits_for_the_gate_is_ended_too(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(PendingConnections(max_pending=1)) as front:
        admission = await at_the_gate(front)
        await trio.sleep(EVICTABLE_AFTER)
        # It has shown its key, and waits for others.
        front.connect()
        await wait_all_tasks_blocked()
        assert admission.waiting == 1
        await trio.sleep(VERDICT_WAIT)
        front.connect()
        await wait_all_tasks_blocked()
        assert admission.waiting == 0
        assert front.ends() == {"too_many_pending": 2}


async def test_one_that_waits_for_the_gate_makes_room_after_others(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(PendingConnections(max_pending=2)) as front:
        admission = await at_the_gate(front)
        idle = front.connect()
        await trio.sleep(EVICTABLE_AFTER)
        front.connect()
        await wait_all_tasks_blocked()
        assert admission.waiting == 1
        assert not is_open(idle)


async def test_a_crowd_that_waits_at_the_gate_leaves_room(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """As many again as could be there before they had shown their keys."""
    async with running(PendingConnections(memory=5 * COST)) as front:
        admission = front.state.admission = Gate()
        for number in range(8):
            front.connect().sendall(REQUEST + front.info())
            with trio.fail_after(1000):
                while admission.waiting <= number:
                    await wait_all_tasks_blocked()
        assert front.ends() == {}
        front.connect()
        await wait_all_tasks_blocked()
        assert front.ends() == {"no_room": 1}
        assert admission.waiting == 8


async def test_a_newcomer_gets_the_number_of_the_one_that_went() -> None:
    async with running(PendingConnections()) as front:
        for _ in range(40):
            front.connect("192.0.2.7")
        client = front.connect("198.51.100.7", full=True)
        await wait_all_tasks_blocked()
        assert not is_open(front.clients[0])
        assert is_open(client)
        # The number that it was accepted with is free again.
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(front.numbers[-1])
        assert len(front.state.pending) == 40


async def test_without_room_for_it_a_newcomer_is_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with running(PendingConnections(rate=1)) as front:
        for _ in range(20):
            front.connect()
        for _ in range(20):
            front.connect("198.51.100.7", full=True)
        assert front.ends() == {"too_many_connections": 36, "no_room": 2}
        # Of each network one line of each sort, whatever the reasons of others.
        assert [line["reason"] for line in lines(caplog, "refused")] == [
            "too_many_connections: more than 1 new connections a second from 192.0.2.0/24",
            "no_room: there is no room for another connection that has not logged in",
            "too_many_connections: more than 1 new connections a second from 198.51.100.0/24",
        ]
        summaries = front.acceptor.crowded.drain(1)
        assert {summary.key: summary.count for summary in summaries} == {
            "too_many_connections 192.0.2.0/24": 17,
            "too_many_connections 198.51.100.0/24": 17,
            "no_room 198.51.100.0/24": 1,
        }


async def test_many_networks_have_few_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with running(PendingConnections(memory=0)) as front:
        for n in range(200):
            front.connect(f"192.0.{n}.7")
        assert len(lines(caplog, "refused")) <= 17
        assert front.ends() == {"no_room": 200}


async def test_what_all_logins_hold_is_bounded() -> None:
    """The sum over all, whoever knocks how often."""
    memory = 40 * COST
    async with running(PendingConnections(memory=memory)) as front:
        part = frame(CLIENT_INFO, bytes(200_000))[:-1]
        for n in range(30):
            client = front.connect(f"192.0.{n}.7")
            await wait_all_tasks_blocked()
            with contextlib.suppress(ConnectionError, BlockingIOError):
                client.sendall(REQUEST)
                await wait_all_tasks_blocked()
                for start in range(0, len(part), 40_000):
                    client.send(part[start : start + 40_000])
                    await wait_all_tasks_blocked()
            assert front.state.pending.held <= memory
        assert front.ends()["no_room"] > 10
        assert len(front.state.pending) > 3


async def test_what_a_head_holds_counts() -> None:
    async with running(PendingConnections()) as front:
        client = front.connect()
        client.sendall(REQUEST[:-2] + b"X: " + bytes(b"x" * 15_000))
        await wait_all_tasks_blocked()
        assert front.state.pending.held > COST + 30_000 - SPARE


@pytest.mark.slow
@pytest.mark.parametrize("sent", [b"", b"G", b"garbage\r\n\r\n", b"GET / HTTP/1.0\r\n\r\n"])
async def test_few_of_those_who_leave_at_once_go_in_one_turn(
    sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(PendingConnections(rate=1000)) as front:
        for n in range(10 * WAKES_PER_TURN):
            front.connect(f"192.0.{n}.7")
        await wait_all_tasks_blocked()
        with counted_turns() as turns:
            report = Acceptor._report

            def note(*arguments: Any) -> None:
                turns.note()
                report(*arguments)

            monkeypatch.setattr(Acceptor, "_report", note)
            for client in front.clients:
                client.sendall(sent)
                client.shutdown(socket.SHUT_WR)
            with trio.fail_after(20):
                while len(front.state.pending):
                    await trio.lowlevel.checkpoint()
        assert turns.events.total() == 10 * WAKES_PER_TURN
        assert turns.most <= WAKES_PER_TURN


async def test_few_of_those_who_wait_for_one_answer_come_in_in_one_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Slow(Gate):
        """Answers all at the same time."""

        def __init__(self) -> None:
            super().__init__()
            self.answer = trio.Event()

        def known(self, question: Question) -> Verdict | None:
            return None

        async def admit(self, question: Question) -> Verdict:
            self.waiting += 1
            await self.answer.wait()
            return Verdict(Outcome.ALLOWED, "test")

        recheck = admit

    async with running(PendingConnections(rate=1000)) as front:
        admission = front.state.admission = Slow()
        for n in range(5 * WAKES_PER_TURN):
            front.connect(f"192.0.{n}.7").sendall(REQUEST + front.info())
        with trio.fail_after(20):
            while admission.waiting < 5 * WAKES_PER_TURN:
                await trio.lowlevel.checkpoint()
        with counted_turns() as turns:
            join = Hub.join

            def note(*arguments: Any) -> None:
                turns.note()
                join(*arguments)

            monkeypatch.setattr(Hub, "join", note)
            admission.answer.set()
            with trio.fail_after(20):
                while len(front.state.hub.members) < 5 * WAKES_PER_TURN:
                    await trio.lowlevel.checkpoint()
        assert turns.most <= WAKES_PER_TURN


async def test_many_requests_of_many_take_their_turns() -> None:
    async with running(PendingConnections(rate=1000)) as front:
        with counted_turns() as turns:

            def route(_: Request) -> Answer:
                turns.note()
                return Response(204)

            front.acceptor.route = route
            for n in range(10 * WAKES_PER_TURN):
                front.connect(f"192.0.{n}.7").sendall(10 * b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            with trio.fail_after(20):
                while turns.events.total() < 100 * WAKES_PER_TURN:
                    await trio.lowlevel.checkpoint()
        assert turns.most <= WAKES_PER_TURN


async def test_few_of_those_whose_time_is_over_go_in_one_turn(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(PendingConnections(rate=1000)) as front:
        for n in range(10 * WAKES_PER_TURN):
            front.connect(f"192.0.{n}.7").sendall(b"GET / HT")
        with counted_turns() as turns:
            refuse = server._FrontEnd.refuse

            def note(*arguments: Any) -> Any:
                turns.note()
                return refuse(*arguments)

            monkeypatch.setattr(server._FrontEnd, "refuse", note)
            await trio.sleep(40)
        assert front.ends() == {"http_failed": 10 * WAKES_PER_TURN}
        assert turns.events.total() == 10 * WAKES_PER_TURN
        assert turns.most <= WAKES_PER_TURN


async def test_a_client_that_comes_and_goes_does_not_fill_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with running(PendingConnections()) as front:
        info = front.info()
        for _ in range(20):
            client = front.connect()
            client.sendall(REQUEST + info)
            with trio.fail_after(20):
                while not front.state.hub.members:
                    await wait_all_tasks_blocked()
                client.recv(1 << 16)
                client.close()
                while front.state.hub.members:
                    await wait_all_tasks_blocked()
        assert len(lines(caplog, "joined")) == len(lines(caplog, "left")) == 5
        assert {
            (summary.event, summary.count, summary.clients, summary.networks)
            for summary in front.state.client_events.drain(1)
        } == {("joined", 15, 1, 1), ("left", 15, 1, 1)}
        assert re.fullmatch(r"192\.0\.2\.7:\d+", lines(caplog, "joined")[0]["remote"])


@pytest.mark.parametrize("is_busy", [True, False])
@pytest.mark.parametrize("taken", [2, 3])
async def test_it_is_behind_only_where_many_wait_to_run(is_busy: bool, taken: int) -> None:
    """Neither a busy relay with few newcomers is, nor an idle one with many who do nothing."""
    async with running(PendingConnections(memory=4 * COST)) as front:
        state = front.acceptor.state
        pending = [state.pending.admit(f"192.0.2.{number}", 0.0) for number in range(taken)]
        state.prelogin.is_behind = is_busy
        assert front.acceptor.is_behind() == (is_busy and taken == 3)
        for each in pending:
            each.done()
