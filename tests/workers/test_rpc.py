"""Calls between two ends of a pair of sockets."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from derp.errors import ReloadError, RPCFailed, RPCTimeout
from derp.workers.rpc import CALL_TIMEOUT, RPC, Json


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[RPC, RPC]]:
    """Two ends that run."""
    one, two = map(RPC, socket.socketpair())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.run)
        nursery.start_soon(two.run)
        yield one, two
        nursery.cancel_scope.cancel()


async def echo(body: Json) -> Json:
    return body


@pytest.mark.parametrize("body", [None, "text", {"a": [1, 2.5, True]}, "\N{SNOWMAN}" * 100_000])
async def test_a_call_is_answered(body: Json) -> None:
    async with pair() as (one, two):
        two.handlers["echo"] = echo
        assert await one.call("echo", body) == body


async def test_both_ends_may_call_and_each_gets_its_own_answer() -> None:
    go_on = trio.Event()

    async def slow(body: Json) -> Json:
        await go_on.wait()
        return f"slow {body}"

    async def quick(body: Json) -> Json:
        go_on.set()
        return f"quick {body}"

    answers = {}

    async def ask(end: RPC, what: str) -> None:
        answers[what] = await end.call(what, "please")

    async with pair() as (one, two):
        two.handlers["slow"] = slow
        two.handlers["quick"] = quick
        one.handlers["echo"] = echo
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, one, "slow")
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(ask, one, "quick")
            nursery.start_soon(ask, two, "echo")
    assert answers == {"slow": "slow please", "quick": "quick please", "echo": "please"}


async def test_a_refusal_is_told() -> None:
    async def refuse(_: Json) -> Json:
        raise ReloadError("the file is not there")

    async with pair() as (one, two):
        two.handlers["look"] = refuse
        with pytest.raises(RPCFailed, match="look: the file is not there"):
            await one.call("look")


async def test_a_bug_ends_one_call_only(caplog: pytest.LogCaptureFixture) -> None:
    async def stumble(_: Json) -> Json:
        raise ZeroDivisionError

    async with pair() as (one, two):
        two.handlers.update(stumble=stumble, echo=echo)
        with pytest.raises(RPCFailed, match="ZeroDivisionError"):
            await one.call("stumble")
        with pytest.raises(RPCFailed, match="KeyError"):
            await one.call("what nobody knows")
        assert await one.call("echo", 1) == 1
    assert [record.message for record in caplog.records] == ["a call was ended by a bug"] * 2


async def test_no_answer_in_time(autojump_clock: trio.testing.MockClock) -> None:
    ours, theirs = socket.socketpair()
    one = RPC(ours)
    with theirs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.run)
            with pytest.raises(RPCTimeout, match="not answered within 10 s"):
                await one.call("anything")
            assert trio.current_time() == pytest.approx(CALL_TIMEOUT)
            nursery.cancel_scope.cancel()


async def test_the_other_end_takes_nothing(autojump_clock: trio.testing.MockClock) -> None:
    """However much is called, each call ends in time."""
    ours, theirs = socket.socketpair()
    one = RPC(ours)
    lost = 0

    async def call() -> None:
        nonlocal lost
        with pytest.raises(RPCFailed):
            await one.call("anything", "x" * 100_000)
        lost += 1

    with theirs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.run)
            async with trio.open_nursery() as calls:
                for _ in range(100):
                    calls.start_soon(call)
            nursery.cancel_scope.cancel()
    assert lost == 100


async def test_the_other_end_goes() -> None:
    ours, theirs = socket.socketpair()
    one = RPC(ours)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.run)

        async def close() -> None:
            await trio.testing.wait_all_tasks_blocked()
            theirs.close()

        nursery.start_soon(close)
        with pytest.raises(RPCFailed, match="ended before it answered anything"):
            await one.call("anything")
    # That `run` has returned is what lets this be reached.
    with pytest.raises(RPCFailed, match="has ended"):
        await one.call("anything")


async def test_a_call_before_the_other_end_runs() -> None:
    one, two = map(RPC, socket.socketpair())
    two.handlers["echo"] = echo
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.run)

        async def later() -> None:
            await trio.testing.wait_all_tasks_blocked()
            await two.run()

        nursery.start_soon(later)
        assert await one.call("echo", "early") == "early"
        nursery.cancel_scope.cancel()


async def test_what_is_told_is_taken_in_order() -> None:
    """Also what comes at once; and a question meanwhile has its answer."""
    order: list[Json] = []
    go_on = trio.Event()

    async def tell(body: Json) -> None:
        if not body:
            await go_on.wait()
        order.append(body)

    one, two = map(RPC, socket.socketpair())
    two.in_order["tell"] = tell
    two.handlers["echo"] = echo
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.run)
        async with trio.open_nursery() as calls:
            for number in range(20):
                calls.start_soon(one.call, "tell", number)
                await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(two.run)
            assert await one.call("echo", "?") == "?"
            assert not order
            go_on.set()
        nursery.cancel_scope.cancel()
    assert order == list(range(20))
