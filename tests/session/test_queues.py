"""What waits for all peers of a relay: it is bounded, and goes when it is too old."""

from contextlib import AbstractAsyncContextManager
from itertools import pairwise

import pytest
import trio
import trio.testing

from derp.errors import ConnectionEnd, QueueMemoryFull, WriteTimeout
from derp.metrics import DropReason
from derp.relay.flowqueue import FLOW_COST, KEEP, MAX_WAIT
from derp.relay.queuememory import QueueMemory
from derp.session import timers
from derp.session.client import Client
from derp.session.sender import BUSY_COST
from derp.wire.frames import PeerGoneReason, peer_gone
from tests.mesh.other import present
from tests.mesh.test_link import X, fill, linked
from tests.peers import FORWARD, SEND, Peer, disco, frame
from tests.relays import Relay, running, with_mesh_key
from tests.turns import counted_turns

Clock = trio.testing.MockClock
MIB = 1 << 20


def with_memory(limit: int, *, timeout: float = 0) -> AbstractAsyncContextManager[Relay]:
    """Run a relay that ends nobody who takes nothing, unless told to."""
    return running(with_mesh_key, memory=QueueMemory(limit), write_timeout=timeout)


def connection(relay: Relay, peer: Peer) -> Client:
    return relay.hub.active[peer.key]


async def send(relay: Relay, sender: Peer, to: Peer, size: int, count: int = 1) -> None:
    """Send packets, all at once, and wait until the relay has acted on them."""
    await sender.end.send(frame(SEND, to.key + bytes(size)) * count)
    await sender.ping()
    memory = relay.state.memory
    assert memory.held <= memory.limit


async def test_stale_packets_are_dropped_from_a_queue_that_nothing_touches(
    autojump_clock: Clock,
) -> None:
    async with with_memory(1 << 40) as relay:
        memory = relay.state.memory
        slow, sender = await relay.login(capacity=100), await relay.login()
        await send(relay, sender, slow, 1000)
        for number in range(100):
            await sender.send_packet(slow.key, number.to_bytes(4) + bytes(996))
            await sender.send_packet(slow.key, disco())
            await sender.ping()
        assert memory.queued.held > 200 * 150 + 100 * 1000
        # Nobody sends, and nobody reads. Younger than this is worth keeping.
        await trio.sleep(MAX_WAIT / 2)
        assert memory.queued.held > 200 * 150 + 100 * 1000
        await trio.sleep(MAX_WAIT + 2 * timers.TICK)
        # The newest are worth keeping, for when the client goes on.
        assert memory.queued.held <= 2 * (KEEP + FLOW_COST)
        dropped = relay.dropped(DropReason.QUEUE_HEAD)
        assert 80 < dropped < 90
        assert relay.dropped(DropReason.QUEUE_HEAD, disco=True) > 20
        assert memory.committed.held == BUSY_COST + 1037
        # What was handed to the transport can't be taken back.
        assert await slow.receive_packet() == (sender.key, bytes(1000))
        for number in range(dropped, 100):
            while (packet := (await slow.receive_packet())[1]) == disco():
                pass
            assert packet == number.to_bytes(4) + bytes(996)
        while memory.queued.held:
            assert await slow.receive_packet() == (sender.key, disco())
            await trio.testing.wait_all_tasks_blocked()


async def test_stale_packets_are_dropped_from_a_link_too(autojump_clock: Clock) -> None:
    async with linked(capacity=5000) as other:
        memory = other.relay.state.memory
        await other.tell(present(X))
        senders = [await other.relay.login() for _ in range(3)]
        await fill(other, senders[0])
        for sender in senders:
            for _ in range(100):
                await sender.send_packet(X, bytes(1000))
                await sender.send_packet(X, disco())
            await sender.ping()
        assert memory.queued.held > 300 * 1000
        await trio.sleep(MAX_WAIT + 2 * timers.TICK)
        # The newest of each sender are worth keeping.
        assert memory.queued.held <= 6 * (KEEP + FLOW_COST)
        assert 240 < other.relay.dropped(DropReason.QUEUE_HEAD) < 270
        assert other.relay.dropped(DropReason.QUEUE_HEAD, disco=True) > 60


@pytest.mark.slow
async def test_many_stuck_clients_hold_no_more_than_the_bound(autojump_clock: Clock) -> None:
    async with with_memory(2 * MIB) as relay:
        memory = relay.state.memory
        sender, fast = await relay.login(), await relay.login()
        slow = [await relay.login(capacity=100) for _ in range(30)]
        for number in range(40):
            for peer in slow:
                await send(relay, sender, peer, 1000, 20)
            # Who takes what comes does not notice.
            await sender.send_packet(fast.key, number.to_bytes(4))
            assert await fast.receive_packet() == (sender.key, number.to_bytes(4))
        assert memory.held > MIB
        assert relay.dropped(DropReason.QUEUE_HEAD) > 30 * 40 * 20 / 2
        assert all(peer.key in relay.hub.active for peer in slow)
        # All of them have as much: whoever floods one only takes it from that one.
        lanes = [connection(relay, peer).send_queue for peer in slow]
        held = [send_queue._packets.held for send_queue in lanes if send_queue is not None]
        assert len(held) == 30
        assert max(held) < 1.5 * min(held)


async def test_short_memory_makes_for_small_writes(autojump_clock: Clock) -> None:
    async with with_memory(MIB) as relay:
        piece = relay.state.memory.write_size
        mesh_peer, sender = await relay.mesh_login(), await relay.login()
        slow, other = await relay.login(capacity=100), await relay.login(capacity=100)
        await send(relay, sender, slow, 500, 100)
        await mesh_peer.end.send(frame(FORWARD, sender.key + other.key + bytes(500)) * 100)
        await mesh_peer.ping()
        for peer in (slow, other):
            found = connection(relay, peer)
            assert found.transport.buffered < piece < 10_000
            assert found.send_queue is not None
            assert found.send_queue._packets.held > 100 * 500 - piece
        taken = 0
        while taken < 90:
            await slow.receive_packet()
            taken += 1
            assert connection(relay, slow).transport.buffered <= piece + 600


async def test_the_client_that_holds_most_control_frames_is_ended(autojump_clock: Clock) -> None:
    async with with_memory(MIB) as relay:
        sender, mesh_peer = await relay.login(), await relay.mesh_login(capacity=100)
        modest = await relay.login(capacity=100)
        await send(relay, sender, modest, 1000)
        await send(relay, sender, mesh_peer, 65_000)
        hogs = [await relay.login(capacity=100) for _ in range(30)]
        for hog in hogs:
            await send(relay, sender, hog, 40_000)
        await trio.testing.wait_all_tasks_blocked()
        left = [hog for hog in hogs if hog.key in relay.hub.active]
        assert (768 - 80) // 50 - 1 <= len(left) < 30
        gone = next(hog for hog in hogs if hog not in left)
        assert isinstance(await relay.end_of(gone), QueueMemoryFull)
        # Not who holds little, nor who is trusted, and those are few.
        assert {modest.key, mesh_peer.key, sender.key} < relay.hub.active.keys()
        assert relay.state.memory.committed.held <= 768 << 10


async def test_control_frames_that_must_be_queued_are_bounded_too(
    autojump_clock: Clock,
) -> None:
    async with with_memory(MIB) as relay:
        stuck, other = await relay.login(capacity=100), await relay.login(capacity=100)
        await other.send_packet(stuck.key, bytes(1000))
        await stuck.send_packet(other.key, bytes(1000))
        await trio.testing.wait_all_tasks_blocked()
        found = connection(relay, stuck)
        gone = peer_gone(X, PeerGoneReason.DISCONNECTED)
        for _ in range(20_000):
            found.send_control(gone, must=True)
            assert relay.state.memory.held <= MIB
        assert isinstance(await relay.end_of(stuck), QueueMemoryFull)
        assert other.key in relay.hub.active


async def test_memory_held_for_a_client_that_has_left_is_free(autojump_clock: Clock) -> None:
    async with with_memory(MIB, timeout=2) as relay:
        slow, sender = await relay.login(capacity=100), await relay.login()
        for _ in range(5):
            await send(relay, sender, slow, 1000, 50)
        assert relay.state.memory.held > 100_000
        await relay.end_of(slow)
        assert relay.state.memory.held == 0


@pytest.mark.parametrize("peers", [2, 30])
async def test_checking_queues_leaves_other_tasks_their_turns(
    mock_clock: Clock, peers: int
) -> None:
    """However much is too old at once."""
    async with with_memory(1 << 40) as relay, trio.open_nursery() as nursery:
        sender = await relay.login()
        slow = [await relay.login(capacity=100) for _ in range(peers)]
        # No two that follow each other are one run.
        for _ in range(10):
            await sender.end.send(
                b"".join(frame(SEND, peer.key) for peer in slow) * (1000 // peers)
            )
            await sender.ping()
        assert relay.state.memory.queued.held > 0
        dropped = [0]

        async def watch() -> None:
            while True:
                dropped.append(relay.dropped(DropReason.QUEUE_HEAD))
                await trio.lowlevel.checkpoint()

        nursery.start_soon(watch)
        await relay.state.timers.check_queues(trio.current_time() + 1000)
        dropped.append(relay.dropped(DropReason.QUEUE_HEAD))
        assert relay.state.memory.queued.held <= peers * (KEEP + FLOW_COST)
        steps = [after - before for before, after in pairwise(dropped)]
        assert sum(steps) > 4500
        # The order in which two tasks have their turns is random.
        assert max(steps) <= 2 * timers.CHECKS_PER_TURN
        nursery.cancel_scope.cancel()


async def test_few_stuck_clients_are_ended_in_one_turn(mock_clock: Clock) -> None:
    async with with_memory(1 << 40, timeout=2) as relay:
        sender = await relay.login()
        slow = [await relay.login(capacity=100) for _ in range(50)]
        await sender.end.send(b"".join(frame(SEND, peer.key + bytes(100)) for peer in slow))
        await sender.ping()
        assert len(relay.state.send_tasks.sending) == len(slow)
        with counted_turns() as turns, pytest.MonkeyPatch.context() as patch:
            end = Client.end

            def note(self: Client, error: ConnectionEnd) -> None:
                if self.ending is None:
                    turns.note()
                end(self, error)

            patch.setattr(Client, "end", note)
            await relay.state.timers.check_queues(trio.current_time() + 1000)
            for peer in slow:
                assert isinstance(await relay.end_of(peer), WriteTimeout)
        assert turns.events.total() == len(slow)
        assert turns.most <= timers.CHECKS_PER_TURN // timers.END_COST


@pytest.mark.slow
async def test_few_clients_that_came_together_get_a_keep_alive_in_one_turn(
    mock_clock: Clock,
) -> None:
    async with running() as relay:
        peers = [await relay.login() for _ in range(3 * timers.CLIENTS_PER_TURN)]
        with counted_turns() as turns, pytest.MonkeyPatch.context() as patch:
            patch.setattr(Client, "send_control", lambda *_, **__: bool(turns.note()))
            patch.setattr(timers, "sample_round_trip", lambda *_: turns.note())
            for wheel in (relay.state.timers.keep_alives, relay.state.timers.round_trips):
                for connection in relay.hub.members:
                    wheel.set(connection, trio.current_time() + 1)
            mock_clock.jump(2)
            with trio.fail_after(20):
                while turns.events.total() < 2 * len(peers):
                    await trio.lowlevel.checkpoint()
        assert turns.most <= timers.CLIENTS_PER_TURN
