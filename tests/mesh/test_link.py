"""One link: clients of this relay and an other relay, over memory transports."""

import contextlib
import random
from collections.abc import AsyncIterator

import nacl.public
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from derp.errors import ConnectionEnd, PeerVanished, ProtocolViolation, WriteTimeout
from derp.mesh import link as link_module
from derp.mesh.link import IDLE_TIMEOUT, Link
from derp.metrics import DropReason
from derp.relay.flowqueue import FLOW_COST, KEEP, MAX_WAIT
from derp.relay.sendqueue import LINK
from derp.session.timers import TICK
from tests.memory_transport import MemoryTransport, memory_pair
from tests.mesh.other import GONE, PING, PONG, Call, gone, present, restarting
from tests.peers import SEND, Peer, disco, frame
from tests.relays import Relay, running
from tests.support.examples import examples

Clock = trio.testing.MockClock
X, Y, Z = bytes([1]) * 32, bytes([2]) * 32, bytes([3]) * 32


class Linked:
    """A link that is served, and the other relay's end of it."""

    def __init__(self, relay: Relay, nursery: trio.Nursery, capacity: int) -> None:
        here, there = memory_pair(capacity=capacity)
        self.relay = relay
        self.there = Call(there, nacl.public.PrivateKey.generate())
        self.transport: MemoryTransport = here
        state = relay.state
        self.link = Link(state, here, self.there.key, now=trio.current_time())
        self.end: ConnectionEnd | None = None
        self.ended = trio.Event()
        nursery.start_soon(self._serve)

    async def _serve(self) -> None:
        try:
            await self.link.serve(b"")
        except ConnectionEnd as error:
            self.end = error
        finally:
            self.transport.close()
            self.ended.set()

    async def tell(self, *frames: bytes) -> None:
        """Send frames on the link and wait until they have been acted on."""
        await self.there.end.send(b"".join(frames) + frame(PING, b"12345678"))
        assert await self.there.receive() == (PONG, b"12345678")

    def known(self) -> set[bytes]:
        best = self.relay.hub.forwarders.best
        return {key for key, link in best.items() if link is self.link}


@contextlib.asynccontextmanager
async def linked(capacity: int = 1 << 20) -> AsyncIterator[Linked]:
    async with running() as relay, trio.open_nursery() as nursery:
        found = Linked(relay, nursery, capacity)
        yield found
        found.there.hang_up()
        await found.ended.wait()
        assert not relay.hub.forwarders.best
        assert found.link.send_queue is None or not found.link.send_queue


# --- who is there ---


async def test_clients_join_and_leave_over_there(autojump_clock: Clock) -> None:
    async with linked() as other:
        await other.tell(present(X), present(Y))
        assert other.known() == {X, Y}
        await other.tell(gone(X))
        assert other.known() == {Y}
        await other.tell(gone(Z), present(X), present(X), present(X), gone(X))
        assert other.known() == {Y}
        assert other.link.present == {Y}


@pytest.mark.parametrize("reason", [0, 1, 0xF0, 255])
async def test_gone_for_any_reason(autojump_clock: Clock, reason: int) -> None:
    async with linked() as other:
        await other.tell(present(X), gone(X, reason))
        assert not other.known()


async def test_frames_of_older_and_later_relays(autojump_clock: Clock) -> None:
    async with linked() as other:
        await other.tell(frame(0x09, X), frame(0x09, Y + bytes(18)), present(Z) + frame(0x77, X))
        assert other.known() == {X, Y, Z}
        longer = frame(0x08, Y + b"\0more"), frame(0x09, Y + bytes(19) + b"more")
        await other.tell(frame(0x08, X), *longer)
        assert other.known() == {Y, Z}


async def test_frames_that_mean_nothing_to_a_link(autojump_clock: Clock) -> None:
    async with linked() as other:
        await other.tell(
            frame(0x06, b""),
            frame(0x14, b"the disk is full"),
            frame(PONG, b"12345678"),
            frame(0x05, X + b"a packet for this relay"),
            frame(0x03, b"once more"),
            frame(0x99, bytes(5000)),
        )
        assert other.end is None


async def test_pings_are_answered(autojump_clock: Clock) -> None:
    async with linked() as other:
        await other.there.send(PING, b"abcdefgh and more")
        assert await other.there.receive() == (PONG, b"abcdefgh")
        await other.there.end.send(b"".join(frame(PING, bytes([n] * 8)) for n in range(100)))
        pongs = [(await other.there.receive())[1][0] for _ in range(64)]
        assert pongs == list(range(64))
        await other.tell()


async def test_a_storm(autojump_clock: Clock) -> None:
    """Ten thousand clients come and go; what is left is what the other relay has left."""
    chance = random.Random(5)
    keys = [chance.randbytes(32) for _ in range(10_000)]
    async with linked() as other:
        await other.tell(*map(present, keys))
        assert other.known() == set(keys)
        there = set(keys)
        frames = []
        for key in chance.choices(keys, k=20_000):
            frames.append(gone(key) if key in there else present(key))
            there ^= {key}
        await other.tell(*frames)
        assert other.known() == other.link.present == there


async def test_more_clients_than_any_relay_has(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "MAX_CLIENTS", 2)
    async with linked() as other:
        await other.tell(present(X), present(Y), present(X))
        await other.there.end.send(present(Z))
        await other.ended.wait()
        assert str(other.end) == "it announces more than 2 clients"


# --- packets ---


async def test_a_packet_for_a_client_over_there(autojump_clock: Clock) -> None:
    async with linked() as other:
        await other.tell(present(X))
        client = await other.relay.login()
        await client.send_packet(X, b"hello")
        assert await other.there.forwarded() == (client.key, X, b"hello")
        await client.end.send(
            b"".join(frame(SEND, X + bytes([n]) * n) for n in range(5)) + frame(SEND, X + disco())
        )
        for n in range(5):
            assert await other.there.forwarded() == (client.key, X, bytes([n]) * n)
        assert await other.there.forwarded() == (client.key, X, disco())
        assert other.relay.metrics.packets_forwarded_out == 7
        assert other.relay.metrics.packets_sent == 0


async def test_a_client_here_comes_before_one_there(autojump_clock: Clock) -> None:
    async with linked() as other:
        sender, receiver = await other.relay.login(), await other.relay.login()
        await other.tell(present(receiver.key))
        await sender.send_packet(receiver.key, b"hello")
        assert await receiver.receive_packet() == (sender.key, b"hello")


async def test_a_client_that_has_left_over_there(autojump_clock: Clock) -> None:
    async with linked() as other:
        await other.tell(present(X), gone(X))
        client = await other.relay.login()
        await client.send_packet(X, b"hello")
        await client.ping()
        assert other.relay.dropped(DropReason.UNKNOWN_DEST) == 1


async def talked_to(other: Linked) -> Peer:
    """Return a client here that has had a packet from X, which is over there.

    It came on the other relay's own link to here.
    """
    client = await other.relay.login()
    state = other.relay.state
    peer = state.hub.active[client.key]
    run = frame(0x05, X + b"hello")
    peer.deliver(run, 1, 5, X, disco=False)
    assert await client.receive_packet() == (X, b"hello")
    return client


async def test_receivers_are_told_that_a_client_over_there_has_left(autojump_clock: Clock) -> None:
    async with linked() as other:
        await other.tell(present(X), present(Y))
        client, stranger = await talked_to(other), await other.relay.login()
        await other.tell(gone(X))
        assert await client.receive() == (GONE, X + b"\0")
        await stranger.ping()
        assert other.relay.metrics.peer_gone_disconnected_frames == 1


async def test_receivers_are_told_when_the_link_is_lost(autojump_clock: Clock) -> None:
    async with linked() as other:
        await other.tell(present(X), present(Y))
        client = await talked_to(other)
        other.there.end.abort()
        await other.ended.wait()
        assert isinstance(other.end, PeerVanished)
        assert not other.known()
        assert await client.receive() == (GONE, X + b"\0")
        await client.send_packet(Y, b"hello")
        await client.ping()
        assert other.relay.dropped(DropReason.UNKNOWN_DEST) == 1


async def test_a_client_that_is_reached_in_another_way_has_not_gone(autojump_clock: Clock) -> None:
    async with linked() as other:
        await other.tell(present(X))
        client = await talked_to(other)
        async with trio.open_nursery() as nursery:
            second = Linked(other.relay, nursery, 1 << 20)
            await second.tell(present(X))
            other.there.hang_up()
            await other.ended.wait()
            await client.send_packet(X, b"hello")
            assert await second.there.forwarded() == (client.key, X, b"hello")
            second.there.hang_up()
        assert await client.receive() == (GONE, X + b"\0")


@pytest.mark.parametrize("cancelled", [True, False])
async def test_a_relay_that_stops_removes_all_keys_and_tells_nobody(
    autojump_clock: Clock, cancelled: bool
) -> None:
    async with running() as relay:
        async with trio.open_nursery() as nursery:
            other = Linked(relay, nursery, 1 << 20)
            await other.tell(present(X))
            client = await talked_to(other)
            if cancelled:
                nursery.cancel_scope.cancel()
            else:
                relay.state.stopping = True
                other.there.hang_up()
        assert not relay.hub.forwarders.best
        await client.ping()
        # Of this client only.
        assert relay.state.poller.busy_tasks == 1


async def test_telling_many_that_a_link_is_lost_leaves_other_tasks_their_turn(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "CLIENTS_PER_TURN", 10)
    keys = [bytes([n]) * 32 for n in range(100)]
    seen: dict[int, int] = {}
    async with running() as relay, trio.open_nursery() as nursery:
        one, two = (Linked(relay, nursery, 1 << 20) for _ in range(2))
        await one.tell(*map(present, keys))
        client = await relay.login()
        for key in keys:
            relay.hub.note_send_from(key, relay.hub.active[client.key])
        one.there.hang_up()
        back: set[bytes] = set()
        while not one.ended.is_set():
            await trio.lowlevel.checkpoint()
            told = relay.metrics.peer_gone_disconnected_frames
            seen[told] = len(relay.hub.forwarders.best)
            if told and not back:
                # A key that another relay has by now is not told of.
                unheard = relay.hub._peer_gone_watchers.keys()
                back = {next(iter(unheard))}
                two.link._add(*back)
        assert len(seen) > 5
        # Since the first of them was told, no packet has taken the link.
        assert seen.pop(0, 100) == 100
        assert set(seen.values()) <= {0, 1}
        heard = {(await client.receive())[1][:32] for _ in range(99)}
        assert heard == set(keys) - back
        # That key's leaving is told of in its time.
        two.there.hang_up()
        assert await client.receive() == (GONE, *[key + b"\0" for key in back])


# --- a relay that is slow, or gone ---


async def fill(other: Linked, client: Peer, packet: bytes = bytes(1000)) -> int:
    """Send until the link has something queued; return how many packets it took."""
    count = 0
    while other.link.send_queue is None:
        await client.send_packet(X, packet)
        await client.ping()
        count += 1
    return count


@pytest.mark.slow
async def test_a_stalled_relay_slows_nobody(autojump_clock: Clock) -> None:
    async with linked(capacity=5000) as other:
        await other.tell(present(X))
        sender, receiver = await other.relay.login(), await other.relay.login()
        written = await fill(other, sender)
        start = trio.current_time()
        for _ in range(4000):
            await sender.send_packet(X, bytes(1000))
            await sender.send_packet(receiver.key, b"a local packet")
            assert await receiver.receive_packet() == (sender.key, b"a local packet")
        assert trio.current_time() - start < 0.05
        room = (LINK.packets - FLOW_COST) // (1000 + 5 + 64 + 150)
        dropped = other.relay.dropped(DropReason.QUEUE_HEAD)
        assert dropped == 4000 - room
        metrics = other.relay.metrics
        assert metrics.bytes_dropped[DropReason.QUEUE_HEAD, False] == dropped * 1000
        assert metrics.packets_forwarded_out == 4000 + written
        # What waited too long is not sent any more, but for the newest.
        await trio.sleep(MAX_WAIT + 2 * TICK)
        await sender.send_packet(X, b"fresh")
        await sender.ping()
        for _ in range(written):
            assert (await other.there.forwarded())[2] == bytes(1000)
        kept = 0
        while (packet := (await other.there.forwarded())[2]) == bytes(1000):
            kept += 1
        assert packet == b"fresh"
        assert 10 < kept <= KEEP // 1000
        assert other.relay.dropped(DropReason.QUEUE_HEAD) == 4000 - kept
        assert metrics.bytes_dropped[DropReason.QUEUE_HEAD, False] == (4000 - kept) * 1000


async def test_a_relay_that_takes_nothing_is_given_up(autojump_clock: Clock) -> None:
    async with linked(capacity=5000) as other:
        await other.tell(present(X))
        sender = await other.relay.login()
        await fill(other, sender)
        start = trio.current_time()
        await other.ended.wait()
        assert 30 < trio.current_time() - start < 32
        assert isinstance(other.end, WriteTimeout)


async def test_packets_queued_for_a_relay_that_leaves_are_counted(autojump_clock: Clock) -> None:
    async with linked(capacity=5000) as other:
        await other.tell(present(X))
        sender = await other.relay.login()
        await fill(other, sender)
        await sender.send_packet(X, bytes(1000))
        await sender.send_packet(X, disco())
        await sender.ping()
        other.there.hang_up()
        await other.ended.wait()
        gone_with_it = DropReason.GONE_DISCONNECTED
        assert other.relay.dropped(gone_with_it) == 1
        assert other.relay.metrics.bytes_dropped[gone_with_it, False] == 1000
        assert other.relay.metrics.bytes_dropped[gone_with_it, True] == len(disco())


async def test_a_write_that_fails_ends_the_link_and_not_the_sender(autojump_clock: Clock) -> None:
    async with linked() as other:
        await other.tell(present(X))
        sender = await other.relay.login()
        other.transport.was_reset = True
        run = memoryview(frame(0x05, sender.key + b"hello") * 2)
        other.link.forward(run, 2, 10, X, disco=False)
        assert other.relay.dropped(DropReason.WRITE_ERROR) == 2
        assert other.relay.metrics.bytes_dropped[DropReason.WRITE_ERROR, False] == 10
        # Until its task has noticed, packets still come.
        other.link.forward(run, 2, 10, X, disco=False)
        assert other.relay.dropped(DropReason.GONE_DISCONNECTED) == 2
        await other.ended.wait()
        await sender.ping()


async def test_a_relay_that_says_nothing_is_given_up(autojump_clock: Clock) -> None:
    async with linked() as other:
        for _ in range(3):
            await trio.sleep(IDLE_TIMEOUT - 1)
            await other.there.send(0x06)
        heard = trio.current_time()
        await other.ended.wait()
        assert trio.current_time() - heard == pytest.approx(IDLE_TIMEOUT)
        assert str(other.end) == "nothing came for 120 s"


async def test_half_a_frame_now_and_then_is_something(autojump_clock: Clock) -> None:
    async with linked() as other:
        for byte in frame(0x06, b"") * 2:
            await trio.sleep(IDLE_TIMEOUT - 1)
            await other.there.end.send(bytes((byte,)))
        assert other.end is None


async def test_an_orderly_end(autojump_clock: Clock) -> None:
    async with linked() as other:
        await other.tell(present(X))
        other.there.hang_up()
        await other.ended.wait()
        assert other.end is None
        assert not other.known()
        # The poller need not take it into account any more.
        assert other.relay.state.poller.busy_tasks == 0


async def test_an_end_in_the_middle_of_a_frame(autojump_clock: Clock) -> None:
    for piece in (present(X)[:20], b"\x99\x00\x00\x10\x00more"):
        async with linked() as other:
            await other.there.end.send(piece)
            other.there.hang_up()
            await other.ended.wait()
            assert str(other.end) == "the connection was closed in the middle of a frame"


async def test_it_says_that_it_restarts(autojump_clock: Clock) -> None:
    async with linked() as other:
        await other.tell(restarting(1500))
        assert other.link.restarts_in == 1.5
        assert other.end is None


async def test_a_frame_of_the_wrong_length_costs_no_link(autojump_clock: Clock) -> None:
    async with linked() as other:
        wrong = [frame(0x09, X[1:]), frame(0x08, b""), frame(PING, b"1"), frame(0x15, b"1")]
        await other.tell(present(X), *wrong, frame(0x08, X + bytes(1000)), present(Y))
        assert other.known() == {X, Y}
        assert other.end is None
        assert other.relay.metrics.unknown_frames == 5


@pytest.mark.parametrize("data", [b"\x99\xff\xff\xff\xff", b"\x09\x00\x10\x00\x01"])
async def test_a_frame_that_breaks_a_rule(autojump_clock: Clock, data: bytes) -> None:
    async with linked() as other:
        await other.there.end.send(present(X) + data)
        await other.ended.wait()
        assert isinstance(other.end, ProtocolViolation)


@given(st.lists(st.binary(max_size=80), max_size=6))
@settings(max_examples=examples(50))
def test_any_bytes(pieces: list[bytes]) -> None:
    """Whatever comes, the link ends by itself or by its peer, and leaves nothing."""

    async def main() -> None:
        async with linked() as other:
            for piece in pieces:
                with contextlib.suppress(PeerVanished):
                    await other.there.end.send(piece)
                await trio.testing.wait_all_tasks_blocked()

    trio.run(main, clock=Clock(autojump_threshold=0))
