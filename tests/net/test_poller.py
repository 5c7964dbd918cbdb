"""The poller over real sockets: it reads for tasks that sleep, and every task gets its own back."""

import errno
import socket
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from typing import Any

import pytest
import trio
import trio.lowlevel
import trio.testing

from derp.errors import PeerVanished, ProtocolViolation
from derp.net import poller as poller_module
from derp.net.address import Endpoint
from derp.net.poller import HANG_UPS_PER_TURN, Poller
from derp.net.tcp import TCPTransport
from tests.patience import PATIENCE

HERE, THERE = Endpoint("127.0.0.1", 443), Endpoint("192.0.2.1", 50000)
Sockets = Callable[[], tuple[socket.socket, trio.SocketStream]]


@pytest.fixture
async def poller() -> AsyncIterator[Poller]:
    poller = Poller()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(poller.run)
        yield poller
        nursery.cancel_scope.cancel()


class Lent:
    """A transport read through the poller, and what came of it."""

    def __init__(self, poller: Poller, sockets: Sockets) -> None:
        ours, self.client = sockets()
        self.transport = TCPTransport(ours, THERE, HERE)
        self.poller = poller
        self.received = b""
        self.changed = trio.Event()
        self.error: Exception | None = None
        self.over = trio.Event()

    def step(self) -> bool:
        view = memoryview(bytearray(1000))
        count = self.transport.read_into(view)
        self.received += view[: max(count, 0)]
        self.changed.set()
        self.changed = trio.Event()
        if b"illegal" in self.received:
            raise ProtocolViolation("illegal")
        if b"bug" in self.received:
            raise ZeroDivisionError
        return count < 0 or b"mine" in self.received

    async def task(self) -> None:
        try:
            self.poller.busy_tasks += 1
            await self.transport.read_through(self.poller, self.step)
        except (ZeroDivisionError, ProtocolViolation, PeerVanished) as error:
            self.error = error
        finally:
            self.poller.busy_tasks -= 1
        self.over.set()

    async def has(self, data: bytes) -> None:
        with trio.fail_after(PATIENCE):
            while self.received != data:
                await self.changed.wait()


class Other:
    """A task that wants every turn that Trio has, and counts them."""

    def __init__(self) -> None:
        self.turns = 0

    async def task(self) -> None:
        while True:
            self.turns += 1
            await trio.lowlevel.checkpoint()


async def test_switched_off_it_leaves_reading_to_the_task(sockets: Sockets) -> None:
    poller = Poller(is_on=False)
    lent = Lent(poller, sockets)
    for piece in (b"one", b"two", b"mine"):
        await lent.client.send_all(piece)
        with trio.fail_after(PATIENCE):
            await lent.transport.read_through(poller, lent.step)
    assert lent.received == b"onetwomine"


async def test_switched_off_a_connection_that_is_ended_is_no_bug(sockets: Sockets) -> None:
    lent = Lent(Poller(is_on=False), sockets)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lent.task)
        await trio.testing.wait_all_tasks_blocked()
        lent.transport.abort()
    assert isinstance(lent.error, PeerVanished)


@pytest.mark.slow
async def test_it_reads_for_many_that_sleep(poller: Poller, sockets: Sockets) -> None:
    lents = [Lent(poller, sockets) for _ in range(20)]
    async with trio.open_nursery() as nursery:
        for lent in lents:
            nursery.start_soon(lent.task)
        await trio.testing.wait_all_tasks_blocked()
        for round_number in range(1, 4):
            for number, lent in enumerate(lents):
                await lent.client.send_all(bytes((number,)))
            for number, lent in enumerate(lents):
                await lent.has(bytes((number,)) * round_number)
        for lent in lents:
            await lent.client.aclose()
            with trio.fail_after(PATIENCE):
                await lent.over.wait()
            assert lent.error is None
            lent.transport.abort()


async def test_what_a_step_raises_is_its_own_tasks(poller: Poller, sockets: Sockets) -> None:
    wrong, buggy, fine = (Lent(poller, sockets) for _ in range(3))
    async with trio.open_nursery() as nursery:
        for lent in (wrong, buggy, fine):
            nursery.start_soon(lent.task)
        await trio.testing.wait_all_tasks_blocked()
        await wrong.client.send_all(b"illegal")
        await buggy.client.send_all(b"bug")
        with trio.fail_after(PATIENCE):
            await wrong.over.wait()
            await buggy.over.wait()
        assert isinstance(wrong.error, ProtocolViolation)
        assert isinstance(buggy.error, ZeroDivisionError)
        await fine.client.send_all(b"hello")
        await fine.has(b"hello")
        nursery.cancel_scope.cancel()
    for lent in (wrong, buggy, fine):
        lent.transport.abort()


async def test_abort_wakes_the_task(poller: Poller, sockets: Sockets) -> None:
    lent, other = Lent(poller, sockets), Lent(poller, sockets)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lent.task)
        await trio.testing.wait_all_tasks_blocked()
        lent.transport.abort()
        with trio.fail_after(PATIENCE):
            await lent.over.wait()
        assert isinstance(lent.error, PeerVanished)
        # The descriptor may be another connection's by now.
        nursery.start_soon(other.task)
        await other.client.send_all(b"x")
        await other.has(b"x")
        nursery.cancel_scope.cancel()
    other.transport.abort()


async def test_a_step_may_ask_for_its_task(poller: Poller, sockets: Sockets) -> None:
    lent = Lent(poller, sockets)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lent.task)
        await trio.testing.wait_all_tasks_blocked()
        await lent.client.send_all(b"mine")
        with trio.fail_after(PATIENCE):
            await lent.over.wait()
        assert lent.error is None
        await lent.client.send_all(b"for the task itself")
        await lent.transport.wait_readable()
        assert lent.transport.read_into(memoryview(bytearray(100))) == 19
        assert lent.received == b"mine"
    lent.transport.abort()


async def test_a_cancelled_task_has_its_socket_back(poller: Poller, sockets: Sockets) -> None:
    lent = Lent(poller, sockets)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lent.task)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    await lent.client.send_all(b"nobody reads this")
    await trio.testing.wait_all_tasks_blocked()
    assert lent.received == b""
    lent.transport.abort()


async def test_a_closed_socket_is_not_lent(poller: Poller, sockets: Sockets) -> None:
    lent = Lent(poller, sockets)
    lent.transport.abort()
    with pytest.raises(PeerVanished):
        await lent.transport.read_through(poller, lent.step)


@pytest.mark.slow
async def test_others_have_their_turn_while_it_is_busy(poller: Poller, sockets: Sockets) -> None:
    lent = Lent(poller, sockets)
    other = Other()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lent.task)
        nursery.start_soon(other.task)
        sent = 0
        for _ in range(300):
            await lent.client.send_all(b"x" * 100)
            sent += 100
        await lent.has(b"x" * sent)
        nursery.cancel_scope.cancel()
    assert other.turns > 10
    lent.transport.abort()


async def stream(lent: Lent, moments: int) -> None:
    """Send often enough for the poller to stay."""
    for _ in range(moments):
        before = len(lent.received)
        await lent.client.send_all(b"x")
        while len(lent.received) == before:
            await lent.changed.wait()


def recording_poller() -> tuple[Poller, list[float]]:
    """Make a poller; the list gets the seconds for which it would wait in its own epoll."""
    poller, waits = Poller(), []
    epoll = poller._epoll

    class Epoll:
        def __getattr__(self, name: str) -> Any:
            return getattr(epoll, name)

        def poll(self, timeout: float, events: int) -> list[tuple[int, int]]:
            if timeout:
                waits.append(timeout)
            return epoll.poll(0, events)

    poller._epoll = Epoll()  # type: ignore[assignment]
    return poller, waits


@pytest.mark.slow
@pytest.mark.parametrize("busy_tasks", [0, 1])
async def test_it_stays_only_while_nobody_else_waits(
    sockets: Sockets, busy_tasks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("derp.net.poller.BUSY_POLL_TIME", 10.0)
    monkeypatch.setattr("derp.net.poller.POLL_TIMEOUT", 0.05)
    own, lingered = recording_poller()
    own.busy_tasks = busy_tasks
    if busy_tasks:
        # Trio looks at every task that waits for a socket to answer: too much for each packet.
        monkeypatch.delattr(trio.lowlevel, "current_statistics")
    lent = Lent(own, sockets)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(own.run)
        nursery.start_soon(lent.task)
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(PATIENCE):
            await stream(lent, 5)
        nursery.cancel_scope.cancel()
    assert bool(lingered) is (busy_tasks == 0)
    lent.transport.abort()


@pytest.mark.slow
async def test_it_stays_no_longer_than_until_the_next_deadline(
    sockets: Sockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A timer of another task is not late."""
    monkeypatch.setattr("derp.net.poller.BUSY_POLL_TIME", 1000.0)
    monkeypatch.setattr("derp.net.poller.POLL_TIMEOUT", 1000.0)
    own, waits = recording_poller()
    lent = Lent(own, sockets)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(own.run)
        nursery.start_soon(lent.task)
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(PATIENCE):
            while not waits:
                await stream(lent, 5)
        nursery.cancel_scope.cancel()
    assert max(waits) <= PATIENCE
    lent.transport.abort()


async def test_it_does_not_stay_while_a_result_is_awaited() -> None:
    own = Poller()
    with own.without_busy_polling():
        assert own.busy_tasks == 1
    assert own.busy_tasks == 0


async def test_an_urgent_socket_ends_the_stay(
    poller: Poller, sockets: Sockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("derp.net.poller.BUSY_POLL_TIME", 1000.0)
    monkeypatch.setattr("derp.net.poller.POLL_TIMEOUT", 1000.0)
    lent = Lent(poller, sockets)
    urgent, stranger = sockets()
    poller.add_urgent(urgent.fileno())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lent.task)
        await trio.testing.wait_all_tasks_blocked()
        # In a row, without a checkpoint: when the poller runs, both are there.
        await lent.client.send_all(b"x")
        await lent.has(b"x")
        lent.client.socket._sock.send(b"y")  # type: ignore[attr-defined]
        stranger.socket._sock.send(b"?")  # type: ignore[attr-defined]
        await trio.lowlevel.wait_readable(urgent)
        # From here on nothing would end a long stay.
        monkeypatch.undo()
        poller.drop_urgent(urgent.fileno())
        nursery.cancel_scope.cancel()
    lent.transport.abort()


async def test_what_the_kernel_has_no_room_for_is_read_all_the_same(
    poller: Poller, sockets: Sockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        closed = False

        def register(self, *_: object) -> None:
            raise OSError(errno.ENOSPC, "no space left on device")

    lent = Lent(poller, sockets)
    monkeypatch.setattr(poller, "_epoll", Full())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lent.task)
        await lent.client.send_all(b"one step")
        with trio.fail_after(PATIENCE):
            await lent.over.wait()
    assert lent.received == b"one step"
    assert lent.error is None
    monkeypatch.undo()
    lent.transport.abort()


async def test_everybody_has_a_turn_before_others_have_two(
    poller: Poller, sockets: Sockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("derp.net.poller.MAX_ROUND", 1000.0)
    lents = [Lent(poller, sockets) for _ in range(200)]
    other = Other()

    async with trio.open_nursery() as nursery:
        for lent in lents:
            nursery.start_soon(lent.task)
        await trio.testing.wait_all_tasks_blocked()
        for lent in lents:
            lent.client.socket._sock.send(b"x")  # type: ignore[attr-defined]
        nursery.start_soon(other.task)
        with trio.fail_after(PATIENCE):
            while not all(lent.received for lent in lents):
                await trio.lowlevel.checkpoint()
        # One to look at its epoll, and one or two to be waited for.
        assert other.turns <= 4
        nursery.cancel_scope.cancel()
    for lent in lents:
        lent.transport.abort()


async def hang_up_at_once(poller: Poller, sockets: Sockets, number: int) -> list[int]:
    """Have so many clients hang up; return how many were ended by each turn of the event loop."""
    lents = [Lent(poller, sockets) for _ in range(number)]
    ended = []

    async with trio.open_nursery() as nursery:
        for lent in lents:
            nursery.start_soon(lent.task)
        await trio.testing.wait_all_tasks_blocked()
        for lent in lents:
            # What it has sent is not lost.
            lent.client.socket._sock.send(b"last words")  # type: ignore[attr-defined]
            lent.client.socket.close()
        with trio.fail_after(20):
            while not ended or ended[-1] < number:
                await trio.lowlevel.checkpoint()
                ended.append(sum(lent.over.is_set() for lent in lents))
    assert all(lent.received == b"last words" for lent in lents)
    for lent in lents:
        lent.transport.abort()
    return ended


async def test_few_of_those_who_hang_up_end_in_one_turn(poller: Poller, sockets: Sockets) -> None:
    ended = await hang_up_at_once(poller, sockets, 10 * HANG_UPS_PER_TURN)
    # Two turns of the poller may fall into one of another task.
    assert max(after - before for before, after in pairwise(ended)) <= 2 * HANG_UPS_PER_TURN
    assert len(ended) < 100


async def test_one_who_hangs_up_alone_does_not_wait(poller: Poller, sockets: Sockets) -> None:
    assert len(await hang_up_at_once(poller, sockets, 1)) < 10


@pytest.mark.slow
async def test_who_waits_to_be_ended_may_be_ended_by_others(
    poller: Poller, sockets: Sockets
) -> None:
    lents = [Lent(poller, sockets) for _ in range(3 * HANG_UPS_PER_TURN)]
    async with trio.open_nursery() as nursery:
        for lent in lents:
            nursery.start_soon(lent.task)
        await trio.testing.wait_all_tasks_blocked()
        for lent in lents:
            lent.client.socket.close()
        with trio.fail_after(20):
            while not poller._hung_up:
                await trio.lowlevel.checkpoint()
            assert not all(lent.over.is_set() for lent in lents)
            for lent in lents:
                lent.transport.abort()
            assert not poller._hung_up
            for lent in lents:
                await lent.over.wait()
        nursery.cancel_scope.cancel()


async def test_a_round_of_steps_comes_to_an_end(
    poller: Poller, sockets: Sockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("derp.net.poller.MAX_ROUND", 0.0)
    lents = [Lent(poller, sockets) for _ in range(10 * poller_module._EVENTS)]
    read = []

    async with trio.open_nursery() as nursery:
        for lent in lents:
            nursery.start_soon(lent.task)
        await trio.testing.wait_all_tasks_blocked()
        for lent in lents:
            lent.client.socket._sock.send(b"x")  # type: ignore[attr-defined]
        with trio.fail_after(20):
            while not read or read[-1] < len(lents):
                await trio.lowlevel.checkpoint()
                read.append(sum(len(lent.received) for lent in lents))
                # Who goes on sending does not keep the others from being read.
                lents[0].client.socket._sock.send(b"x")  # type: ignore[attr-defined]
                read[-1] -= len(lents[0].received) - 1
        nursery.cancel_scope.cancel()
    assert max(after - before for before, after in pairwise(read)) <= 2 * poller_module._EVENTS
    for lent in lents:
        lent.transport.abort()
