"""The pre-login scheduler over real sockets: many runnable tasks, and few that run."""

import errno
import select
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable

import pytest
import trio
import trio.testing

from derp.net.address import Endpoint
from derp.net.prelogin import WAKES_PER_TURN, PreLoginScheduler
from derp.net.tcp import TCPTransport
from tests.turns import Turns, counted_turns

HERE, THERE = Endpoint("127.0.0.1", 443), Endpoint("192.0.2.1", 50000)
MANY = 5 * WAKES_PER_TURN
Sockets = Callable[[], tuple[socket.socket, trio.SocketStream]]


@pytest.fixture
async def scheduler() -> AsyncIterator[PreLoginScheduler]:
    scheduler = PreLoginScheduler()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scheduler.run)
        yield scheduler
        nursery.cancel_scope.cancel()


@pytest.fixture
async def turns() -> AsyncIterator[Turns]:
    with counted_turns() as turns:
        yield turns


async def test_few_go_on_in_one_turn_the_first_one_first(
    scheduler: PreLoginScheduler, sockets: Sockets, turns: Turns
) -> None:
    pairs = [sockets() for _ in range(MANY)]
    order = []

    async def stranger(number: int) -> None:
        await scheduler.wait_readable(pairs[number][0].fileno())
        turns.note()
        order.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(MANY):
            nursery.start_soon(stranger, number)
        await trio.testing.wait_all_tasks_blocked()
        for _, client in pairs:
            client.socket._sock.send(b"x")  # type: ignore[attr-defined]
        with trio.fail_after(20):
            while len(order) < MANY:
                await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert turns.most <= WAKES_PER_TURN
    # Those of one turn are Trio's to order.
    for first in range(0, MANY, WAKES_PER_TURN):
        assert set(order[first : first + WAKES_PER_TURN]) == set(
            range(first, first + WAKES_PER_TURN)
        )


async def test_who_has_more_to_do_waits_behind_who_has_just_come(
    scheduler: PreLoginScheduler, sockets: Sockets, turns: Turns
) -> None:
    ours, client = sockets()
    done: Counter[int] = Counter()

    async def busy(number: int) -> None:
        while True:
            await scheduler.wait_turn()
            turns.note()
            done[number] += 1

    async with trio.open_nursery() as nursery:
        for number in range(MANY):
            nursery.start_soon(busy, number)
        with trio.fail_after(20):
            while len(done) < MANY:
                await trio.lowlevel.checkpoint()
            await client.send_all(b"x")
            before = done.copy()
            await scheduler.wait_readable(ours.fileno())
        nursery.cancel_scope.cancel()
    assert turns.most <= WAKES_PER_TURN
    assert max(done.values()) - min(done.values()) <= 1
    # It has waited for each of them once or twice.
    assert max(done[number] - before[number] for number in range(MANY)) <= 2


@pytest.mark.parametrize("has_sockets", [True, False])
async def test_it_is_behind_while_more_could_go_on(
    scheduler: PreLoginScheduler, sockets: Sockets, has_sockets: bool
) -> None:
    pairs = [sockets() for _ in range(MANY if has_sockets else 0)]
    seen: list[bool] = []

    async def stranger(number: int) -> None:
        if has_sockets:
            await scheduler.wait_readable(pairs[number][0].fileno())
        else:
            await scheduler.wait_turn()
        seen.append(scheduler.is_behind)

    assert not scheduler.is_behind
    async with trio.open_nursery() as nursery:
        for number in range(MANY):
            nursery.start_soon(stranger, number)
        if has_sockets:
            await trio.testing.wait_all_tasks_blocked()
        for _, client in pairs:
            client.socket._sock.send(b"x")  # type: ignore[attr-defined]
        with trio.fail_after(20):
            while len(seen) < MANY:
                await trio.lowlevel.checkpoint()
        await trio.testing.wait_all_tasks_blocked()
        assert not scheduler.is_behind or has_sockets
        nursery.cancel_scope.cancel()
    # In a turn, it may have gone on before those that it woke in the last one.
    assert all(seen[: -2 * WAKES_PER_TURN])


async def test_one_alone_does_not_wait(scheduler: PreLoginScheduler, turns: Turns) -> None:
    await trio.testing.wait_all_tasks_blocked()
    before = turns.now
    for _ in range(10):
        await scheduler.wait_turn()
    assert turns.now - before < 50


async def test_who_gives_up_leaves_nothing_behind(
    scheduler: PreLoginScheduler, sockets: Sockets
) -> None:
    ours, client = sockets()
    woken = []

    async def stranger() -> None:
        await scheduler.wait_readable(ours.fileno())
        woken.append(client)

    for send_before in (False, True):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stranger)
                await trio.testing.wait_all_tasks_blocked()
                if send_before:
                    client.socket._sock.send(b"x")  # type: ignore[attr-defined]
                scope.cancel()
    with trio.move_on_after(0):
        await scheduler.wait_turn()
    assert woken == []
    assert not scheduler._ready
    await trio.testing.wait_all_tasks_blocked()
    # It is still readable, and can be waited for again.
    await stranger()
    assert woken


async def test_who_gives_up_while_others_go_first(
    scheduler: PreLoginScheduler, sockets: Sockets, turns: Turns
) -> None:
    ours, client = sockets()
    await client.send_all(b"x")
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(scheduler.wait_readable, ours.fileno())
            for _ in range(MANY):
                nursery.start_soon(scheduler.wait_turn)
            with trio.fail_after(20):
                while scheduler._waiting.get(ours.fileno(), ours) is not None:
                    await trio.lowlevel.checkpoint()
            # Its turn has not come.
            assert len(scheduler._ready) > WAKES_PER_TURN
            scope.cancel()
    assert not scheduler._ready
    await scheduler.wait_turn()


async def test_a_socket_that_is_forgotten(scheduler: PreLoginScheduler, sockets: Sockets) -> None:
    ours, client = sockets()
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(scheduler.wait_readable, ours.fileno())
            await trio.testing.wait_all_tasks_blocked()
            # Who waits for it is woken.
            scheduler.forget(ours.fileno())
    scheduler.forget(ours.fileno())
    assert not scheduler._waiting
    # Whoever has its number next waits anew.
    await client.send_all(b"x")
    with trio.fail_after(20):
        await scheduler.wait_readable(ours.fileno())


async def test_what_the_kernel_has_no_room_for_is_waited_for_all_the_same(
    scheduler: PreLoginScheduler, sockets: Sockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    epoll = scheduler._epoll

    class Full:
        fileno, poll = epoll.fileno, epoll.poll

        def register(self, *_: object) -> None:
            raise OSError(errno.ENOSPC, "no space left on device")

    ours, client = sockets()
    monkeypatch.setattr(scheduler, "_epoll", Full())
    await client.send_all(b"x")
    with trio.fail_after(20):
        await scheduler.wait_readable(ours.fileno())
    scheduler.forget(ours.fileno())


async def test_a_transport_waits_there_until_it_is_read_through(
    scheduler: PreLoginScheduler, sockets: Sockets
) -> None:
    ours, client = sockets()
    transport = TCPTransport(ours, THERE, HERE)
    transport.scheduler = scheduler
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transport.wait_readable)
        await trio.testing.wait_all_tasks_blocked()
        assert ours.fileno() in scheduler._waiting
        await client.send_all(b"x")
    transport.abort()
    assert not scheduler._waiting


async def test_its_descriptor_tells_of_those_who_can_go_on(
    scheduler: PreLoginScheduler, sockets: Sockets
) -> None:
    idle = PreLoginScheduler()
    ours, client = sockets()
    with trio.move_on_after(0):
        await idle.wait_readable(ours.fileno())
    assert not select.select([idle.fileno()], [], [], 0)[0]
    await client.send_all(b"x")
    assert select.select([idle.fileno()], [], [], 0)[0]
