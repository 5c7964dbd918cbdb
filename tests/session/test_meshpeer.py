"""What a mesh peer may send, over memory transports: packets forwarded, and closing clients."""

import random
from collections.abc import AsyncIterator

import attrs
import nacl.public
import pytest
import trio
import trio.testing

from derp.errors import (
    ClosedByMesh,
    ConnectionEnd,
    NotPermitted,
    PeerVanished,
    ProtocolViolation,
    WriteTimeout,
)
from derp.files.ratelimit import RateConfig
from derp.metrics import DropReason
from derp.session import serverinfo
from derp.session.state import RelayState
from derp.wire.forwarding import forward_frames
from derp.wire.trains import Train
from tests.peers import CLOSE, FORWARD, GONE, PING, PONG, SEND, WATCH, Peer, disco, frame
from tests.relays import MESH_KEY, Relay, running, with_mesh_key

REMOTE = b"\x55" * 32
"""The key of a client of another relay."""
ABSENT = b"\x77" * 32

Clock = trio.testing.MockClock


@pytest.fixture
async def relay(autojump_clock: Clock) -> AsyncIterator[Relay]:
    async with running(with_mesh_key) as relay:
        yield relay


def forward(source: bytes, destination: bytes, packet: bytes) -> bytes:
    return frame(FORWARD, source + destination + packet)


@attrs.define(eq=False)
class Link:
    """Leads to another relay, as far as the packet path knows."""

    forwarded: list[tuple[bytes, int, bool]] = attrs.field(factory=list)
    """The frames, the bytes of packets in them, and whether they are disco packets."""

    def forward(
        self, train: Train, packets: int, payload: int, destination: bytes, disco: bool
    ) -> None:
        self.forwarded.append((forward_frames(train, packets, destination), payload, disco))


# --- who is a mesh peer


async def test_the_mesh_key_makes_a_mesh_peer(autojump_clock: Clock, relay: Relay) -> None:
    peer = await relay.mesh_login()
    assert peer.server_info == {"version": 2}
    await peer.send(WATCH)
    await peer.receive()
    await peer.ping()
    assert len(relay.state.presence.watchers) == 1


MESH_FRAMES = [frame(WATCH, b""), forward(REMOTE, ABSENT, b"packet"), frame(CLOSE, ABSENT)]


@pytest.mark.parametrize("sent", MESH_FRAMES)
@pytest.mark.parametrize(
    "info",
    [
        {},
        {"meshKey": (MESH_KEY[:-1] + b"\x00").hex()},
        {"meshKey": "00" * 32},
        {"otherKey": MESH_KEY.hex()},
    ],
)
async def test_without_the_mesh_key_its_frames_are_refused(
    autojump_clock: Clock, relay: Relay, info: dict[str, object], sent: bytes
) -> None:
    other = await relay.login()
    peer = await relay.connect().log_in(**info)
    await peer.end.send(frame(SEND, other.key + b"as anybody may") + sent)
    assert await other.receive_packet() == (peer.key, b"as anybody may")
    assert isinstance(await relay.end_of(peer), NotPermitted)
    assert relay.metrics.packets_forwarded_in == 0
    assert not relay.state.presence.watchers


@pytest.mark.parametrize("sent", MESH_FRAMES)
@pytest.mark.parametrize("shown", [MESH_KEY, bytes(32)])
async def test_a_relay_without_a_mesh_key_has_no_mesh_peers(
    autojump_clock: Clock, shown: bytes, sent: bytes
) -> None:
    async with running() as relay:
        peer = await relay.connect().log_in(meshKey=shown.hex())
        await peer.end.send(sent)
        assert isinstance(await relay.end_of(peer), NotPermitted)


@pytest.mark.parametrize(
    "sent",
    [
        frame(WATCH, b"\x00"),
        frame(FORWARD, bytes(63)),
        b"\x0a\x00\x01\x00\x41",
        frame(CLOSE, bytes(31)),
        frame(CLOSE, bytes(33)),
        frame(SEND, bytes(31)),
    ],
)
async def test_a_frame_that_breaks_a_rule_ends_a_mesh_peer_too(
    autojump_clock: Clock, relay: Relay, sent: bytes
) -> None:
    peer, client = await relay.mesh_login(), await relay.login()
    await peer.end.send(forward(REMOTE, client.key, b"before") + sent)
    assert await client.receive_packet() == (REMOTE, b"before")
    assert isinstance(await relay.end_of(peer), ProtocolViolation)


async def test_a_mesh_peer_is_a_client_as_well(autojump_clock: Clock, relay: Relay) -> None:
    peer, client = await relay.mesh_login(), await relay.login()
    await peer.send_packet(client.key, b"one")
    await client.send_packet(peer.key, b"two")
    assert await client.receive_packet() == (peer.key, b"one")
    assert await peer.receive_packet() == (client.key, b"two")
    await peer.end.aclose()
    assert await client.receive() == (GONE, peer.key + b"\x00")


# --- forwarded packets


async def test_a_forwarded_packet_has_its_senders_key(autojump_clock: Clock, relay: Relay) -> None:
    peer, client = await relay.mesh_login(), await relay.login()
    for size in (0, 1, 36, 1400, 65535, 65536):
        packet = (bytes(range(256)) * 256)[:size]
        await peer.end.send(forward(REMOTE, client.key, packet))
        assert await client.receive_packet() == (REMOTE, packet)
    metrics = relay.metrics
    assert metrics.packets_forwarded_in == metrics.packets_sent == 6
    # As the original counts: what is forwarded was received by the other relay.
    assert metrics.packets_received == metrics.bytes_received == 0
    assert metrics.bytes_sent == 0 + 1 + 36 + 1400 + 65535 + 65536
    await peer.ping()


async def test_many_forwarded_packets_in_one_read(autojump_clock: Clock, relay: Relay) -> None:
    peer = await relay.mesh_login()
    clients = [await relay.login() for _ in range(3)]
    choose = random.Random(3)
    wanted: list[list[tuple[bytes, bytes]]] = [[], [], []]
    sent = []
    for number in range(2000):
        which = choose.randrange(3)
        source = choose.choice([REMOTE, ABSENT])
        packet = number.to_bytes(4) + bytes(choose.randrange(100))
        if choose.random() < 0.1:
            packet = disco(100) + packet
        for _ in range(choose.choice([1, 1, 1, 5])):
            sent.append(forward(source, clients[which].key, packet))
            wanted[which].append((source, packet))
        if number % 500 == 250:
            sent.append(frame(PING, number.to_bytes(8)))
    await peer.end.send(b"".join(sent))
    for client, packets in zip(clients, wanted, strict=True):
        assert [await client.receive_packet() for _ in packets] == packets
    assert relay.metrics.packets_forwarded_in == len(sent) - 4
    for number in range(250, 2000, 500):
        assert await peer.receive() == (PONG, number.to_bytes(8))


@pytest.mark.parametrize("cut", [1, 2, 7, 30, 68, 69, 70, 104, 105, 106, 200])
async def test_forwarded_packets_in_any_split(
    autojump_clock: Clock, relay: Relay, cut: int
) -> None:
    peer, client = await relay.mesh_login(), await relay.login()
    packets = [b"p" * 36, b"", disco(62), disco(100), b"q" * 36, b"q" * 36]
    sent = b"".join(forward(REMOTE, client.key, packet) for packet in packets)
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            for start in range(0, len(sent), cut):
                await peer.end.send(sent[start : start + cut])
                await trio.testing.wait_all_tasks_blocked()

        nursery.start_soon(send)
        for packet in packets:
            assert await client.receive_packet() == (REMOTE, packet)
    assert relay.metrics.packets_forwarded_in == len(packets)


async def test_the_longest_tail_and_a_full_read_behind_it(
    autojump_clock: Clock, relay: Relay
) -> None:
    peer, client = await relay.mesh_login(), await relay.login()
    longest = forward(REMOTE, client.key, bytes(65536))
    await peer.end.send(longest[:-1])
    await trio.testing.wait_all_tasks_blocked()
    await peer.end.send(longest[-1:] + longest * 7)
    for _ in range(8):
        assert await client.receive_packet() == (REMOTE, bytes(65536))


async def test_frames_that_come_with_the_login_of_a_mesh_peer(
    autojump_clock: Clock, relay: Relay
) -> None:
    client = await relay.login()
    peer = relay.connect()
    await peer.log_in(behind=forward(REMOTE, client.key, b"early"), meshKey=MESH_KEY.hex())
    assert await client.receive_packet() == (REMOTE, b"early")


async def test_an_absent_destination_is_counted_and_only_disco_is_answered(
    autojump_clock: Clock, relay: Relay
) -> None:
    peer = await relay.mesh_login()
    await peer.end.send(forward(REMOTE, ABSENT, b"x" * 10) * 2)
    await peer.ping()
    await peer.end.send(forward(REMOTE, ABSENT, disco()) * 5)
    for _ in range(3):
        assert await peer.receive() == (GONE, ABSENT + b"\x01")
    await peer.ping()
    reason = DropReason.UNKNOWN_DEST_ON_FWD
    assert (relay.dropped(reason), relay.dropped(reason, disco=True)) == (2, 5)
    assert relay.metrics.bytes_dropped[reason, False] == 20
    assert relay.metrics.bytes_dropped[reason, True] == 500
    assert relay.dropped(DropReason.UNKNOWN_DEST) == 0
    assert relay.metrics.packets_forwarded_in == 7
    assert relay.metrics.peer_gone_not_here_frames == 3

    await trio.sleep(1)
    await peer.end.send(forward(REMOTE, ABSENT, disco()) * 2)
    assert await peer.receive() == (GONE, ABSENT + b"\x01")
    await peer.ping()


async def test_a_forwarded_packet_is_never_forwarded_again(
    autojump_clock: Clock, relay: Relay
) -> None:
    peer, link = await relay.mesh_login(), Link()
    relay.hub.add_forwarder(ABSENT, link)
    await peer.end.send(forward(REMOTE, ABSENT, b"round and round"))
    await peer.ping()
    await peer.end.send(forward(REMOTE, ABSENT, disco()))
    assert await peer.receive() == (GONE, ABSENT + b"\x01")
    assert link.forwarded == []
    assert relay.metrics.packets_forwarded_out == 0
    assert relay.dropped(DropReason.UNKNOWN_DEST_ON_FWD) == 1


async def test_receivers_of_forwarded_packets_are_told_that_the_sender_has_left(
    autojump_clock: Clock, relay: Relay
) -> None:
    peer, client, link = await relay.mesh_login(), await relay.login(), Link()
    relay.hub.add_forwarder(REMOTE, link)
    await peer.end.send(forward(REMOTE, client.key, b"hello"))
    await client.receive_packet()
    for connection in relay.hub.remove_forwarder(REMOTE, link):
        connection.peer_disconnected(REMOTE)
    assert await client.receive() == (GONE, REMOTE + b"\x00")


async def test_a_slow_client_of_another_relays_clients(autojump_clock: Clock, relay: Relay) -> None:
    """What is forwarded waits, and is dropped and counted, as all that is sent to it."""
    peer, slow = await relay.mesh_login(), await relay.login(capacity=1000)
    total = 2000
    for number in range(total):
        await peer.end.send(forward(REMOTE, slow.key, number.to_bytes(4) + bytes(1396)))
    await peer.ping()
    received = []
    while not received or received[-1] != total - 1:
        source, packet = await slow.receive_packet()
        assert (source, packet[4:]) == (REMOTE, bytes(1396))
        received.append(int.from_bytes(packet[:4]))
    assert received == sorted(received)
    dropped = relay.dropped(DropReason.QUEUE_HEAD)
    assert dropped > 0
    assert len(received) + dropped == relay.metrics.packets_forwarded_in == total
    assert relay.metrics.packets_sent == len(received)
    assert relay.metrics.bytes_sent == 1400 * len(received)


async def test_forwarding_makes_the_connection_that_does_it_the_active_one(
    autojump_clock: Clock, relay: Relay
) -> None:
    old = await relay.mesh_login()
    new = await relay.mesh_login(key=old.private)
    client = await relay.login()
    await client.send_packet(old.key, b"to the newest")
    assert (await new.receive_packet())[1] == b"to the newest"
    await old.end.send(forward(REMOTE, client.key, b"I am here"))
    assert await client.receive_packet() == (REMOTE, b"I am here")
    await client.send_packet(old.key, b"to who spoke")
    assert (await old.receive_packet())[1] == b"to who spoke"


# --- packets for other relays


async def test_a_packet_for_a_client_of_another_relay_is_forwarded(
    autojump_clock: Clock, relay: Relay
) -> None:
    client, link = await relay.login(), Link()
    relay.hub.add_forwarder(REMOTE, link)
    packets = [b"one", b"", b"three" * 300, disco(62), disco(90), b"six"]
    await client.end.send(b"".join(frame(SEND, REMOTE + packet) for packet in packets))
    await client.ping()

    def forwarded(*some: bytes) -> bytes:
        return b"".join(forward(client.key, REMOTE, packet) for packet in some)

    assert link.forwarded == [
        (forwarded(*packets[:3]), 3 + 1500, False),
        (forwarded(*packets[3:5]), 62 + 90, True),
        (forwarded(packets[5]), 3, False),
    ]
    metrics = relay.metrics
    assert metrics.packets_forwarded_out == metrics.packets_received == 6
    assert metrics.bytes_received == sum(map(len, packets))
    assert metrics.packets_received_disco == 2
    assert metrics.packets_sent == metrics.bytes_sent == 0
    assert not any(metrics.packets_dropped.values())


async def test_a_client_here_comes_before_one_at_another_relay(
    autojump_clock: Clock, relay: Relay
) -> None:
    a, b, link = await relay.login(), await relay.login(), Link()
    relay.hub.add_forwarder(b.key, link)
    await a.send_packet(b.key, b"here")
    assert await b.receive_packet() == (a.key, b"here")
    await b.end.aclose()
    await relay.end_of(b)
    # It is still there, as far as anybody knows: nobody is told that it has gone.
    await a.send_packet(b.key, b"there")
    await a.ping()
    assert link.forwarded == [(forward(a.key, b.key, b"there"), 5, False)]
    relay.hub.remove_forwarder(b.key, link)
    await a.send_packet(b.key, b"nowhere")
    await a.ping()
    assert relay.dropped(DropReason.UNKNOWN_DEST) == 1


async def test_a_mesh_peers_own_packets_are_forwarded_like_anybodys(
    autojump_clock: Clock, relay: Relay
) -> None:
    peer, link = await relay.mesh_login(), Link()
    relay.hub.add_forwarder(REMOTE, link)
    await peer.send_packet(REMOTE, b"own")
    await peer.ping()
    assert link.forwarded == [(forward(peer.key, REMOTE, b"own"), 3, False)]


# --- closing clients


async def test_a_mesh_peer_closes_a_client(autojump_clock: Clock, relay: Relay) -> None:
    peer, other, victim = await relay.mesh_login(), await relay.login(), await relay.login()
    await victim.send_packet(other.key, b"hello")
    await other.receive_packet()
    await peer.send(CLOSE, victim.key)
    end = await relay.end_of(victim)
    assert isinstance(end, ClosedByMesh)
    assert str(end).startswith("the mesh peer [")
    assert await other.receive() == (GONE, victim.key + b"\x00")
    await peer.ping()
    assert victim.key not in relay.hub.active


async def test_it_closes_all_connections_of_a_key(autojump_clock: Clock, relay: Relay) -> None:
    key = nacl.public.PrivateKey.generate()
    peer, other = await relay.mesh_login(), await relay.login()
    victims = [await relay.login(key=key) for _ in range(3)]
    await peer.send(CLOSE, victims[0].key)
    for victim in victims:
        assert isinstance(await relay.end_of(victim), ClosedByMesh)
    await peer.ping()
    await other.ping()
    assert relay.hub.members.keys() == {relay.hub.active[p.key] for p in (peer, other)}


async def test_closing_an_absent_client_does_nothing(autojump_clock: Clock, relay: Relay) -> None:
    peer, other = await relay.mesh_login(), await relay.login()
    relay.hub.add_forwarder(REMOTE, Link())
    await peer.end.send(frame(CLOSE, ABSENT) + frame(CLOSE, REMOTE) + frame(CLOSE, bytes(32)))
    await peer.ping()
    await other.ping()
    assert len(relay.hub.members) == 2


async def test_a_mesh_peer_may_close_itself(autojump_clock: Clock, relay: Relay) -> None:
    peer, client = await relay.mesh_login(), await relay.login()
    await peer.end.send(frame(CLOSE, peer.key) + forward(REMOTE, client.key, b"last words"))
    assert isinstance(await relay.end_of(peer), ClosedByMesh)
    assert await client.receive_packet() == (REMOTE, b"last words")


async def test_packets_for_a_client_that_was_just_closed_are_counted(
    autojump_clock: Clock, relay: Relay
) -> None:
    peer, victim = await relay.mesh_login(), await relay.login()
    await trio.testing.wait_all_tasks_blocked()
    packets = forward(REMOTE, victim.key, b"late") * 3
    await peer.end.send(frame(CLOSE, victim.key) * 2 + packets)
    assert isinstance(await relay.end_of(victim), ClosedByMesh)
    await peer.ping()
    assert relay.dropped(DropReason.GONE_DISCONNECTED) == 3


async def test_a_client_that_is_paused_is_closed_at_once(
    autojump_clock: Clock, relay: Relay
) -> None:
    serverinfo.set_limit(relay.state, RateConfig(10, 65_568))
    peer, victim = await relay.mesh_login(), await relay.login()
    await victim.end.send(frame(SEND, ABSENT + bytes(60_000)) * 3)
    await trio.testing.wait_all_tasks_blocked()
    start = trio.current_time()
    await peer.send(CLOSE, victim.key)
    assert isinstance(await relay.end_of(victim), ClosedByMesh)
    assert trio.current_time() - start < 2


# --- what is not asked of it


@pytest.mark.parametrize("before", [True, False])
async def test_no_rate_limit_holds_for_mesh_peers(
    autojump_clock: Clock, relay: Relay, before: bool
) -> None:
    limit = RateConfig(10, 65_568)
    if before:
        serverinfo.set_limit(relay.state, limit)
    peer, client = await relay.mesh_login(), await relay.login()
    assert "TokenBucketBytesPerSecond" not in peer.server_info
    assert ("TokenBucketBytesPerSecond" in client.server_info) is before
    if not before:
        serverinfo.set_limit(relay.state, limit)
    start = trio.current_time()
    for _ in range(100):
        await peer.end.send(forward(REMOTE, client.key, bytes(10_000)))
        await client.receive_packet()
        await peer.send_packet(client.key, bytes(10_000))
        await client.receive_packet()
    assert trio.current_time() - start < 1
    assert relay.metrics.rate_limit_per_client_waited == 0


@pytest.mark.parametrize("write_timeout", [0.0, 2.0, 60.0])
async def test_a_mesh_peer_may_take_nothing_for_half_a_minute(
    autojump_clock: Clock, write_timeout: float
) -> None:
    """A client, for -tcp-write-timeout."""

    def prepare(state: RelayState) -> None:
        with_mesh_key(state)
        state.send_tasks.write_timeout = write_timeout

    async with running(prepare) as relay:
        peer, client = await relay.mesh_login(capacity=100), await relay.login(capacity=100)
        sender = await relay.login()
        start = trio.current_time()
        for stuck in (peer, client):
            await sender.send_packet(stuck.key, bytes(1000))
        await sender.ping()
        ended: dict[str, float] = {}

        async def note_end(name: str, stuck: Peer) -> None:
            assert isinstance(await relay.end_of(stuck), WriteTimeout)
            ended[name] = trio.current_time() - start

        with trio.move_on_after(100):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(note_end, "peer", peer)
                nursery.start_soon(note_end, "client", client)
        assert 30 <= ended.pop("peer") <= 32
        if write_timeout:
            assert write_timeout <= ended.pop("client") <= write_timeout + 2
        assert not ended
        assert relay.metrics.sclient_write_timeouts == (2 if write_timeout else 1)


async def test_a_mesh_peer_that_is_stuck_holds_up_nobody(
    autojump_clock: Clock, relay: Relay
) -> None:
    stuck = await relay.mesh_login(capacity=10)
    await stuck.send(WATCH)
    a, b = await relay.login(), await relay.login()
    start = trio.current_time()
    for number in range(200):
        await stuck.end.send(forward(REMOTE, ABSENT, disco()))
        await a.send_packet(stuck.key, bytes(10_000))
        await a.send_packet(b.key, number.to_bytes(4))
        assert await b.receive_packet() == (a.key, number.to_bytes(4))
    assert trio.current_time() - start < 1
    assert stuck.key in relay.hub.active


async def test_a_mesh_peer_that_vanishes_amid_a_frame(autojump_clock: Clock, relay: Relay) -> None:
    peer, client = await relay.mesh_login(), await relay.login()
    await peer.end.send(forward(REMOTE, client.key, b"cut off")[:-1])
    await peer.end.aclose()
    end: ConnectionEnd | None = await relay.end_of(peer)
    assert isinstance(end, PeerVanished)
    await client.ping()
    assert relay.metrics.packets_forwarded_in == 0
