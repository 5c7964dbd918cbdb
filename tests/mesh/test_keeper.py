"""Keeping a link: when it is dialled again, and what the log says."""

import contextlib
import gc
import logging
from collections.abc import AsyncIterator
from typing import Any

import nacl.public
import pytest
import trio
import trio.testing
from trio.testing import wait_all_tasks_blocked

from derp.errors import NoLink
from derp.mesh.keeper import Connect, Keeper
from derp.mesh.link import Link
from derp.net.address import Endpoint
from derp.net.backoff import Backoff
from derp.net.transport import Transport
from derp.session.state import RelayState
from tests.memory_transport import memory_pair
from tests.mesh.other import WATCH, Call, OtherRelay, present, restarting
from tests.peers import frame
from tests.relays import MESH_KEY, Relay, running, with_mesh_key

Clock = trio.testing.MockClock
X, Y = bytes([1]) * 32, bytes([2]) * 32
SAME_KEY = "is the mesh key the same on both relays?"


def keep(state: RelayState, connect: Connect) -> Keeper:
    """Make a keeper whose waits have no jitter."""
    return Keeper(state, "derp2", connect, Backoff(chance=lambda: 0.0))


class Log:
    """What the keeper has logged: message, and fields without the relay's name."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "derper.mesh")
        self._caplog = caplog

    def lines(self) -> list[tuple[str, dict[str, Any]]]:
        records = [record for record in self._caplog.records if record.name == "derper.mesh"]
        self._caplog.clear()
        found = []
        for record in records:
            fields = dict(record.__dict__["fields"])
            assert fields.pop("relay") == "derp2"
            found.append((record.getMessage(), fields))
        return found


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Log:
    return Log(caplog)


@contextlib.asynccontextmanager
async def kept(other: OtherRelay) -> AsyncIterator[tuple[Relay, Keeper]]:
    async with running(with_mesh_key) as relay, trio.open_nursery() as nursery:
        keeper = keep(relay.state, other.connect)
        nursery.start_soon(keeper.run)
        yield relay, keeper
        nursery.cancel_scope.cancel()
    assert not relay.hub.forwarders.best


async def up(other: OtherRelay, *present: bytes) -> Call:
    call = await (await other.call()).greet()
    await call.welcome(*present)
    await wait_all_tasks_blocked()
    return call


async def test_a_link_is_made_and_logged(autojump_clock: Clock, log: Log) -> None:
    other = OtherRelay()
    async with kept(other) as (relay, keeper):
        call = await up(other, present(X))
        assert call.info["meshKey"] == MESH_KEY.hex()
        assert set(relay.hub.forwarders.best) == {X}
        assert keeper.link is relay.hub.forwarders.best[X]
        assert keeper.trouble == ""
        ((message, fields),) = log.lines()
        assert message == "meshed"
        assert fields["address"] == "198.51.100.1:443"
        assert fields["key"].startswith("[")
    # Whoever stops the relay closes the link.
    assert await call.end.receive() == b""


async def test_a_link_that_is_lost_is_made_again(autojump_clock: Clock, log: Log) -> None:
    other = OtherRelay()
    async with kept(other) as (relay, keeper):
        call = await up(other, present(X), present(Y))
        await trio.sleep(100)
        link = keeper.link
        assert link is not None
        lost = trio.current_time()
        call.hang_up()
        await wait_all_tasks_blocked()
        assert not relay.hub.forwarders.best
        assert keeper.link is None
        assert keeper.trouble == "closed"
        assert not link.present
        await up(other, present(X))
        assert trio.current_time() - lost == pytest.approx(1)
        assert set(relay.hub.forwarders.best) == {X}
        _, (message, fields), (again, _) = log.lines()
        assert (message, again) == ("mesh link lost", "meshed")
        assert fields == {"reason": "closed", "clients": 2, "seconds": 100}


async def test_longer_and_longer_waits(autojump_clock: Clock, log: Log) -> None:
    other = OtherRelay()
    other.failures = [NoLink("TCP derp2 port 443: connection refused", "does it run?")] * 8
    async with kept(other) as (_, keeper):
        start = trio.current_time()
        await trio.sleep(0.5)
        assert keeper.trouble == "TCP derp2 port 443: connection refused"
        await up(other)
        assert trio.current_time() - start == pytest.approx(1 + 2 + 4 + 8 + 16 + 3 * 30)
        # Told once.
        (message, fields), (then, _) = log.lines()
        assert (message, then) == ("can't mesh", "meshed")
        assert fields == {
            "reason": "TCP derp2 port 443: connection refused",
            "cure": "does it run?",
        }


async def test_each_new_failure_is_logged(autojump_clock: Clock, log: Log) -> None:
    other = OtherRelay()
    other.failures = [NoLink("a"), NoLink("a"), NoLink("b"), NoLink("a")]
    async with kept(other):
        call = await up(other)
        other.failures = [NoLink("a")]
        call.hang_up()
        await up(other)
        messages = [(message, fields.get("reason")) for message, fields in log.lines()]
        trouble = [("can't mesh", reason) for reason in ("a", "b", "a")]
        lost = [("mesh link lost", "closed"), ("can't mesh", "a")]
        assert messages == [*trouble, ("meshed", None), *lost, ("meshed", None)]


@pytest.mark.parametrize(("lasts", "wait"), [(9, 4), (11, 1)])
async def test_only_a_stable_link_makes_the_waits_short(
    autojump_clock: Clock, lasts: float, wait: float
) -> None:
    other = OtherRelay()
    other.failures = [NoLink("a"), NoLink("a")]
    async with kept(other):
        call = await up(other)
        await trio.sleep(lasts)
        call.hang_up()
        lost = trio.current_time()
        await other.call()
        assert trio.current_time() - lost == pytest.approx(wait)


@pytest.mark.parametrize(("told", "wait"), [(1500, 1.5), (0, 0.2), (3_600_000, 5)])
async def test_a_relay_that_restarts_says_when_it_is_back(
    autojump_clock: Clock, log: Log, told: int, wait: float
) -> None:
    other = OtherRelay()
    async with kept(other):
        call = await up(other, present(X))
        await trio.sleep(60)
        await call.end.send(restarting(told))
        call.hang_up()
        lost = trio.current_time()
        await other.call()
        assert trio.current_time() - lost == pytest.approx(wait)
        fields = {"reason": "it restarts", "clients": 1, "seconds": 60}
        assert log.lines()[1] == ("mesh link lost", fields)


async def lost_after(other: OtherRelay, seconds: float) -> None:
    call = await up(other)
    await trio.sleep(seconds)
    other.failures = [NoLink("down")] * 8
    call.hang_up()
    await trio.sleep(50)


async def test_a_lost_relay_that_logs_in_here_is_dialled_at_once(autojump_clock: Clock) -> None:
    other = OtherRelay()
    async with kept(other) as (relay, _):
        await lost_after(other, 60)
        other.failures = []
        calls = other.calls
        stranger = await relay.mesh_login()
        await stranger.send(WATCH)
        # Of those with its key, too, it is only a relay that says that it is back.
        peer = await relay.mesh_login(key=other.private)
        await wait_all_tasks_blocked()
        assert other.calls == calls
        since = trio.current_time()
        await peer.send(WATCH)
        await up(other)
        assert trio.current_time() == since
        assert not relay.state.reachable.awaited


async def test_a_lost_relay_that_logs_in_while_it_is_dialled(autojump_clock: Clock) -> None:
    other = OtherRelay()
    async with kept(other) as (relay, keeper):
        call = await up(other, present(X))
        await trio.sleep(60)
        call.hang_up()
        call = await other.call()
        await wait_all_tasks_blocked()
        await (await relay.mesh_login(key=other.private)).send(WATCH)
        await wait_all_tasks_blocked()
        since = trio.current_time()
        call.hang_up()
        await up(other)
        assert trio.current_time() == since
        assert keeper.trouble == ""


@pytest.mark.parametrize("lasts", [60, 1])
async def test_it_is_dialled_at_once_only_once(autojump_clock: Clock, lasts: float) -> None:
    """Or two relays with trouble would wake each other for ever."""
    other = OtherRelay()
    async with kept(other) as (relay, _):
        await lost_after(other, lasts)
        calls = other.calls
        peers = [await relay.mesh_login(key=other.private) for _ in range(3)]
        for peer in peers:
            await peer.send(WATCH)
            await wait_all_tasks_blocked()
        assert other.calls - calls == (1 if lasts == 60 else 0)


async def test_nothing_is_dialled_while_this_relay_stops(autojump_clock: Clock) -> None:
    other = OtherRelay()
    async with kept(other) as (relay, _):
        call = await up(other)
        await trio.sleep(60)
        relay.state.stopping = True
        call.hang_up()
        await trio.sleep(100)
        assert other.calls == 1


@pytest.mark.slow
@pytest.mark.parametrize("how", ["closed", "reset", "write", "queued", "illegal"])
async def test_an_ended_link_is_gone_without_the_garbage_collector(
    autojump_clock: Clock, how: str
) -> None:
    def links() -> list[Link]:
        return [found for found in gc.get_objects() if isinstance(found, Link)]

    gc.collect()
    gc.disable()
    try:
        assert links() == []
        other = OtherRelay(capacity=1000)
        async with kept(other) as (relay, keeper):
            call = await up(other, present(X))
            (link,) = links()
            run = memoryview(frame(0x05, X + bytes(2000)))
            if how == "write":
                link.transport.was_reset = True  # type: ignore[attr-defined]
            if how in {"write", "queued"}:
                link.forward(run, 1, 2000, X, disco=False)
            del link
            other.failures = [NoLink("down")] * 3
            if how in {"closed", "queued"}:
                call.hang_up()
            elif how == "illegal":
                await call.end.send(b"\x09\xff\xff\xff\xff")
            elif how == "reset":
                call.end.abort()
            await wait_all_tasks_blocked()
            # The keeper waits to dial again.
            assert keeper.link is None
            assert keeper.trouble
            assert links() == []
            assert relay.state.poller.busy_tasks == 0
    finally:
        gc.enable()


@pytest.mark.slow
async def test_a_failed_login_is_gone_without_the_garbage_collector(autojump_clock: Clock) -> None:
    def failures() -> list[NoLink]:
        found = [error for error in gc.get_objects() if isinstance(error, NoLink)]
        return [error for error in found if str(error) == "no DERP login within 10 s"]

    gc.collect()
    gc.disable()
    try:
        known = len(failures())
        async with kept(OtherRelay()) as (_, keeper):
            await trio.sleep(10.5)
            assert keeper.trouble == "no DERP login within 10 s"
            assert len(failures()) == known
    finally:
        gc.enable()


async def test_one_that_restarts_all_the_time_is_left_alone(autojump_clock: Clock) -> None:
    other = OtherRelay()
    async with kept(other):
        for wait in (1, 2, 4):
            call = await up(other)
            await call.end.send(restarting(0))
            call.hang_up()
            lost = trio.current_time()
            await wait_all_tasks_blocked()
            await trio.sleep(wait - 0.1)
            assert trio.current_time() - lost == pytest.approx(wait - 0.1)
        assert other.calls == 3


async def test_a_wrong_mesh_key(autojump_clock: Clock, log: Log) -> None:
    """The Go relay closes at WatchConns, which the client info comes before."""
    other = OtherRelay()
    async with kept(other):
        for _ in range(3):
            call = await (await other.call()).greet()
            await call.send(0x03, bytes(call.box.encrypt(b'{"version":2}')))
            call.hang_up()
        await wait_all_tasks_blocked()
        reason = "it refuses to be watched: the connection was closed"
        assert log.lines() == [("can't mesh", {"reason": reason, "cure": SAME_KEY})]


ITSELF = "this relay itself is in -mesh-with"
COPY = "the other relay has this relay's own key"
CURE = "if it is another machine, give each its own -c key file, and restart both"


@pytest.mark.parametrize(
    ("same_host", "message", "cure", "trouble"),
    [
        (True, ITSELF, {}, "it is this relay itself"),
        (False, COPY, {"cure": CURE}, "it has this relay's own key"),
    ],
)
async def test_this_relay_itself_is_left_alone(
    autojump_clock: Clock,
    log: Log,
    same_host: bool,
    message: str,
    cure: dict[str, str],
    trouble: str,
) -> None:
    private = nacl.public.PrivateKey.generate()
    other = OtherRelay(private)

    async def connect() -> tuple[Transport, bytes]:
        here, received = await other.connect()
        if same_host:
            here.local = Endpoint(here.remote.host, 50000)
        return here, received

    async with trio.open_nursery() as nursery:
        state = RelayState(private, nursery, 2.0, mesh_key=MESH_KEY)
        keeper = keep(state, connect)
        nursery.start_soon(keeper.run)
        call = await other.call()
        await call.send(0x01, bytes.fromhex("44455250f09f9491") + call.key)
        with pytest.raises(EOFError):
            await call.receive()
        await trio.sleep(1000)
        assert other.calls == 1
        assert keeper.link is None
        assert keeper.trouble == trouble
        assert log.lines() == [(message, {"address": "198.51.100.1:443", **cure})]


async def test_a_broken_rule_ends_the_link_and_is_logged(autojump_clock: Clock, log: Log) -> None:
    other = OtherRelay()
    async with kept(other):
        call = await up(other)
        await call.end.send(b"\x09\xff\xff\xff\xff")
        await up(other)
        (_, fields) = log.lines()[1]
        assert fields["reason"].startswith("protocol_violation: frame of 4294967295 bytes")


async def test_a_bug_ends_the_link_only(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = OtherRelay()

    def bug(self: object, key: bytes) -> None:
        raise ZeroDivisionError

    async with kept(other) as (relay, keeper):
        with monkeypatch.context() as patch:
            patch.setattr("derp.mesh.link.Link._add", bug)
            call = await up(other, present(X))
            assert "ZeroDivisionError" in caplog.text
            assert keeper.trouble == "ZeroDivisionError()"
            assert call.end.was_reset or not await call.end.receive()
        await up(other, present(X))
        assert set(relay.hub.forwarders.best) == {X}
        assert keeper.trouble == ""
        client = await relay.login()
        await client.ping()


async def test_a_dial_that_hangs_can_be_cancelled(autojump_clock: Clock) -> None:
    here, there = memory_pair()

    async def connect() -> tuple[Transport, bytes]:
        return here, b""

    async with running(with_mesh_key) as relay, trio.open_nursery() as nursery:
        nursery.start_soon(keep(relay.state, connect).run)
        await there.send(frame(0x01, b"DERP"))
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert here.closed


async def test_two_of_ours(autojump_clock: Clock) -> None:
    """A client of one relay sends to a client of the other, and back."""

    def connect_to(relay: Relay) -> Connect:
        async def connect() -> tuple[Transport, bytes]:
            await trio.lowlevel.checkpoint()
            return relay.connect().end, b""

        return connect

    async with (
        running(with_mesh_key) as one,
        running(with_mesh_key) as two,
        trio.open_nursery() as nursery,
    ):
        for here, there in ((one, two), (two, one)):
            nursery.start_soon(keep(here.state, connect_to(there)).run)
        alice, bob = await one.login(), await two.login()
        await wait_all_tasks_blocked()
        assert bob.key in one.hub.forwarders.best
        assert alice.key in two.hub.forwarders.best
        await alice.send_packet(bob.key, b"hello")
        assert await bob.receive_packet() == (alice.key, b"hello")
        await bob.send_packet(alice.key, b"and back")
        assert await alice.receive_packet() == (bob.key, b"and back")
        bob.end.close()
        assert await alice.receive() == (0x08, bob.key + b"\0")
        bob = await one.login(key=bob.private)
        await wait_all_tasks_blocked()
        await alice.send_packet(bob.key, b"moved")
        assert await bob.receive_packet() == (alice.key, b"moved")
        nursery.cancel_scope.cancel()
