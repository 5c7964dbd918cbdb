"""A client's life over memory transports: login, frames, duplicates, slow readers, leaving."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import nacl.public
import pytest
import trio
import trio.testing

from derp.errors import (
    ConnectionEnd,
    LoginRefused,
    NotPermitted,
    PeerVanished,
    ProtocolViolation,
    WriteTimeout,
)
from derp.files.ratelimit import RateConfig
from derp.metrics import DropReason
from derp.net.budgets import BYTES_FOR_READ, FREE_READS
from derp.session import reader, serverinfo
from derp.session.sender import MAX_PONGS
from derp.session.state import RelayState
from derp.wire import trains
from tests.memory_transport import memory_pair
from tests.peers import (
    GONE,
    KEEP_ALIVE,
    PING,
    PONG,
    PREFERRED,
    RECV,
    SEND,
    Peer,
    disco,
    frame,
)
from tests.relays import Relay, running
from tests.turns import counted_turns

ABSENT = b"\x77" * 32

# pytest-trio finds the clock among the arguments of the test itself.
Clock = trio.testing.MockClock


@pytest.fixture
async def relay(autojump_clock: Clock) -> AsyncIterator[Relay]:
    async with running() as relay:
        yield relay


async def test_a_connection_that_is_not_tcp_has_no_round_trip_time(
    autojump_clock: Clock, relay: Relay
) -> None:
    await relay.login()
    await trio.sleep(100)
    assert relay.metrics.tcp_rtt == {"non-tcp": 1}


async def test_login_tells_version_and_no_limits(autojump_clock: Clock, relay: Relay) -> None:
    peer = await relay.login()
    assert peer.server_key == relay.state.public_key
    assert peer.server_info == {"version": 2}
    assert relay.hub.active.keys() == {peer.key}
    assert relay.metrics.accepts == 1


async def test_packets_both_ways_of_any_size(autojump_clock: Clock, relay: Relay) -> None:
    a, b = await relay.login(), await relay.login()
    for size in (0, 1, 36, 1400, 65535, 65536):
        packet = bytes(range(256)) * 256
        await a.send_packet(b.key, packet[:size])
        assert await b.receive_packet() == (a.key, packet[:size])
        await b.send_packet(a.key, packet[:size])
        assert await a.receive_packet() == (b.key, packet[:size])
    assert relay.metrics.packets_received == relay.metrics.packets_sent == 12
    assert relay.metrics.bytes_received == relay.metrics.bytes_sent
    relay.metrics.derive()
    assert relay.metrics.packets_received_other == 12


async def test_a_packet_to_oneself(autojump_clock: Clock, relay: Relay) -> None:
    peer = await relay.login()
    await peer.send_packet(peer.key, b"me")
    assert await peer.receive_packet() == (peer.key, b"me")


async def test_frames_that_come_with_the_login_are_not_lost(
    autojump_clock: Clock, relay: Relay
) -> None:
    b = await relay.login()
    a = relay.connect()
    await a.log_in(behind=frame(SEND, b.key + b"early") + frame(SEND, b.key + b"cut")[:20])
    assert await b.receive_packet() == (a.key, b"early")
    await a.end.send(frame(SEND, b.key + b"cut")[20:])
    assert await b.receive_packet() == (a.key, b"cut")


async def test_a_fast_starting_client_has_sent_its_info_already(
    autojump_clock: Clock, relay: Relay
) -> None:
    here, _ = memory_pair()
    info = Peer(here).client_info(relay.state.public_key)
    peer = relay.connect(leftover=info[:40])
    assert (await peer.receive())[0] == 0x01
    await peer.end.send(info[40:])
    assert (await peer.receive())[0] == 0x03


async def test_a_whole_login_is_answered_in_one_piece(autojump_clock: Clock, relay: Relay) -> None:
    here, _ = memory_pair()
    info = Peer(here).client_info(relay.state.public_key)
    peer = relay.connect(leftover=info + frame(PING, b"12345678"))
    answer = await peer.end.receive()
    assert answer[:5] == bytes.fromhex("0100000028")
    assert answer[45] == 0x03
    assert await peer.receive() == (PONG, b"12345678")


@pytest.mark.parametrize("early", [False, True])
async def test_the_answer_to_an_upgrade_comes_with_the_greeting(
    autojump_clock: Clock, relay: Relay, early: bool
) -> None:
    here, _ = memory_pair()
    info = Peer(here).client_info(relay.state.public_key)
    peer = relay.connect(leftover=info if early else b"", answer=b"HTTP/1.1 101\r\n\r\n")
    first = await peer.end.receive()
    assert first[:21] == b"HTTP/1.1 101\r\n\r\n" + bytes.fromhex("0100000028")
    if not early:
        assert len(first) == 61
        await peer.end.send(info)
        assert (await peer.receive())[0] == 0x03
    elif len(first) == 61:
        assert (await peer.receive())[0] == 0x03


async def test_an_early_frame_that_is_no_login_is_refused_after_the_answer(
    autojump_clock: Clock, relay: Relay
) -> None:
    peer = relay.connect(leftover=frame(PING, b"12345678"), answer=b"HTTP/1.1 101\r\n\r\n")
    assert (await peer.end.receive()).startswith(b"HTTP/1.1 101\r\n\r\n")
    assert isinstance(await relay.end_of(peer), LoginRefused)


async def test_a_stranger_has_ten_seconds_to_log_in(autojump_clock: Clock, relay: Relay) -> None:
    peer = relay.connect()
    start = trio.current_time()
    await peer.end.send(b"\x02")
    end = await relay.end_of(peer)
    assert isinstance(end, LoginRefused)
    assert str(end) == "no client info within 10 s"
    assert trio.current_time() - start == pytest.approx(10)


@pytest.mark.parametrize(
    "sent",
    [
        frame(SEND, bytes(40)),
        frame(0x02, bytes(55)),
        frame(0x02, bytes(200)),
        b"\x02\x00\x04\x00\x01",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
async def test_a_wrong_login_is_refused_at_once(
    autojump_clock: Clock, relay: Relay, sent: bytes
) -> None:
    peer = relay.connect()
    start = trio.current_time()
    await peer.end.send(sent)
    assert isinstance(await relay.end_of(peer), LoginRefused)
    assert trio.current_time() == start
    assert not relay.hub.members


@pytest.mark.parametrize(("size", "refused"), [(1, True), (200, False)])
async def test_a_login_in_many_pieces(
    autojump_clock: Clock, relay: Relay, size: int, refused: bool
) -> None:
    peer = relay.connect()
    await peer.receive()
    # The longest that there may be is not in question here.
    info = peer.client_info(relay.state.public_key, AppName="x" * 30_000)
    for start in range(0, len(info), size):
        with contextlib.suppress(PeerVanished):
            await peer.end.send(info[start : start + size])
        if refused and start > FREE_READS + len(info) // BYTES_FOR_READ:
            break
        await trio.testing.wait_all_tasks_blocked()
    if refused:
        end = await relay.end_of(peer)
        assert isinstance(end, LoginRefused)
        assert str(end) == "the client info comes in too many pieces"
    else:
        assert (await peer.receive())[0] == 0x03


async def test_leaving_before_login_is_orderly(autojump_clock: Clock, relay: Relay) -> None:
    peer = relay.connect()
    await peer.receive()
    await peer.end.aclose()
    assert await relay.end_of(peer) is None
    assert relay.metrics.accepts == 1
    assert not relay.hub.members


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("length", [1, 5, 40, -1])
async def test_leaving_in_the_middle_of_the_login_is_not_orderly(
    autojump_clock: Clock, relay: Relay, length: int, at_once: bool
) -> None:
    info = Peer(memory_pair()[0]).client_info(relay.state.public_key)[:length]
    peer = relay.connect(leftover=info if at_once else b"")
    await peer.receive()
    if not at_once:
        await peer.end.send(info)
    await peer.end.aclose()
    end = await relay.end_of(peer)
    assert isinstance(end, PeerVanished)
    assert str(end) == "the connection was closed in the middle of the login"


async def test_a_reset_before_login_is_not_orderly(autojump_clock: Clock, relay: Relay) -> None:
    peer = relay.connect()
    await peer.receive()
    peer.end.abort()
    assert isinstance(await relay.end_of(peer), PeerVanished)


async def test_an_unknown_destination_is_counted_and_only_disco_is_answered(
    autojump_clock: Clock, relay: Relay
) -> None:
    peer = await relay.login()
    await peer.send_packet(ABSENT, b"x" * 10)
    await peer.ping()
    for _ in range(5):
        await peer.send_packet(ABSENT, disco())
    for _ in range(3):
        assert await peer.receive() == (GONE, ABSENT + b"\x01")
    await peer.ping()
    assert relay.dropped(DropReason.UNKNOWN_DEST) == 1
    assert relay.dropped(DropReason.UNKNOWN_DEST, disco=True) == 5
    assert relay.metrics.packets_received_disco == 5
    assert relay.metrics.peer_gone_not_here_frames == 3

    await trio.sleep(1)
    await peer.send_packet(ABSENT, disco())
    assert await peer.receive() == (GONE, ABSENT + b"\x01")


async def test_receivers_are_told_that_the_sender_has_left(
    autojump_clock: Clock, relay: Relay
) -> None:
    a, b, c = [await relay.login() for _ in range(3)]
    await a.send_packet(b.key, b"hello")
    await b.receive_packet()
    await a.end.aclose()
    assert await relay.end_of(a) is None
    assert await b.receive() == (GONE, a.key + b"\x00")
    await c.ping()
    assert relay.metrics.peer_gone_disconnected_frames == 1


async def test_ping_is_answered_with_its_first_eight_bytes(
    autojump_clock: Clock, relay: Relay
) -> None:
    peer = await relay.login()
    await peer.send(PING, b"12345678" + bytes(992))
    assert await peer.receive() == (PONG, b"12345678")
    assert relay.metrics.got_ping == relay.metrics.sent_pong == 1


async def test_a_flood_of_pings_is_answered_in_part(autojump_clock: Clock, relay: Relay) -> None:
    peer = await relay.login()
    await peer.end.send(frame(PING, bytes(8)) * reader.MAX_FRAMES)
    answers = 0
    while answers < MAX_PONGS:
        assert await peer.receive() == (PONG, bytes(8))
        answers += 1
    await peer.ping()
    assert relay.metrics.got_ping == reader.MAX_FRAMES + 1


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (frame(SEND, bytes(31)), ProtocolViolation),
        (frame(PING, bytes(7)), ProtocolViolation),
        (frame(PING, bytes(1001)), ProtocolViolation),
        (frame(PREFERRED, b""), ProtocolViolation),
        (b"\x04\x00\x01\x00\x21", ProtocolViolation),
        (frame(0x10, b""), NotPermitted),
        (frame(0x11, bytes(32)), NotPermitted),
        (frame(0x0A, bytes(64)), NotPermitted),
    ],
)
async def test_a_frame_that_breaks_a_rule_ends_the_connection(
    autojump_clock: Clock, relay: Relay, sent: bytes, expected: type[ConnectionEnd]
) -> None:
    other, peer = await relay.login(), await relay.login()
    await peer.end.send(frame(SEND, other.key + b"before") + sent)
    assert await other.receive_packet() == (peer.key, b"before")
    assert isinstance(await relay.end_of(peer), expected)
    assert peer.key not in relay.hub.active


async def test_an_unknown_frame_is_skipped_however_long(
    autojump_clock: Clock, relay: Relay
) -> None:
    peer = await relay.login()
    size = 3_000_000
    await peer.end.send(b"\x99" + size.to_bytes(4))
    for _ in range(30):
        await peer.end.send(b"\x04" * (size // 30))
    await peer.ping()
    assert relay.metrics.unknown_frames == 1


async def test_closing_in_the_middle_of_a_frame_is_not_orderly(
    autojump_clock: Clock, relay: Relay
) -> None:
    for part in (b"\x04\x00", b"\x99\x00\x00\x10\x00abc"):
        peer = await relay.login()
        await peer.end.send(part)
        await peer.end.aclose()
        assert isinstance(await relay.end_of(peer), PeerVanished)


async def test_a_reset_is_not_orderly(autojump_clock: Clock, relay: Relay) -> None:
    peer = await relay.login()
    peer.end.abort()
    assert isinstance(await relay.end_of(peer), PeerVanished)
    assert not relay.hub.members


HAPROXY = 50.0
"""Seconds of silence after which HAProxy ends a connection, as Debian sets it up."""


async def test_keep_alives_come_before_any_proxy_ends_a_silent_connection(
    autojump_clock: Clock, relay: Relay
) -> None:
    peer = await relay.login()
    before = trio.current_time()
    for _ in range(20):
        assert await peer.receive() == (KEEP_ALIVE, b"")
        # Not much sooner: each wakes the radio of a phone.
        assert 40 <= trio.current_time() - before < HAPROXY - 3
        before = trio.current_time()


async def test_home_is_counted_and_moves_only_later(autojump_clock: Clock, relay: Relay) -> None:
    peer = await relay.login()
    await peer.send(PREFERRED, b"\x01")
    await peer.ping()
    (connection,) = relay.hub.members
    assert connection.preferred
    assert relay.metrics.home_moves_in == 0
    await trio.sleep(6)
    for value in (b"\x00", b"\x00", b"\x01", b"\x02"):
        await peer.send(PREFERRED, value)
    await peer.ping()
    assert (relay.metrics.home_moves_out, relay.metrics.home_moves_in) == (1, 1)


async def test_of_duplicates_who_sent_last_gets_the_traffic(
    autojump_clock: Clock, relay: Relay
) -> None:
    key = nacl.public.PrivateKey.generate()
    sender, first = await relay.login(), await relay.login(key=key)
    second = await relay.login(key=key)
    await sender.send_packet(first.key, b"to the newest")
    assert (await second.receive_packet())[1] == b"to the newest"
    await first.ping()
    await sender.send_packet(first.key, b"to who spoke")
    assert (await first.receive_packet())[1] == b"to who spoke"
    await first.end.aclose()
    await relay.end_of(first)
    await sender.send_packet(first.key, b"to who is left")
    assert (await second.receive_packet())[1] == b"to who is left"
    await second.end.aclose()


async def test_a_slow_reader_gets_fresh_packets_and_nobody_waits_for_it(
    autojump_clock: Clock, relay: Relay
) -> None:
    slow, sender = await relay.login(capacity=1000), await relay.login()
    total = 2000
    for number in range(total):
        await sender.send_packet(slow.key, number.to_bytes(4) + bytes(1396))
    await sender.ping()
    received = []
    while not received or received[-1] != total - 1:
        source, packet = await slow.receive_packet()
        assert source == sender.key
        assert packet[4:] == bytes(1396)
        received.append(int.from_bytes(packet[:4]))
    assert received == sorted(received)
    dropped = relay.dropped(DropReason.QUEUE_HEAD)
    assert dropped > 0
    assert len(received) + dropped == total
    assert relay.metrics.packets_sent == len(received)
    await sender.ping()


async def test_a_peer_that_reads_nothing_is_gone_after_the_write_timeout(
    autojump_clock: Clock, relay: Relay
) -> None:
    stuck, sender = await relay.login(capacity=100), await relay.login()
    start = trio.current_time()
    await sender.send_packet(stuck.key, bytes(1000))
    end = await relay.end_of(stuck)
    assert isinstance(end, WriteTimeout)
    assert 2 <= trio.current_time() - start <= 4
    assert relay.metrics.sclient_write_timeouts == 1
    await sender.send_packet(stuck.key, bytes(10))
    await sender.ping()
    assert relay.dropped(DropReason.UNKNOWN_DEST) == 1


async def test_a_growing_queue_is_no_progress(autojump_clock: Clock, relay: Relay) -> None:
    stuck, sender = await relay.login(capacity=100), await relay.login()
    with contextlib.suppress(PeerVanished):
        for _ in range(20):
            await sender.send_packet(stuck.key, bytes(1000))
            await stuck.send(PING, bytes(8))
            await trio.sleep(0.3)
    assert isinstance(await relay.end_of(stuck), WriteTimeout)


async def test_a_peer_that_reads_slowly_is_not_stuck(autojump_clock: Clock, relay: Relay) -> None:
    slow, sender = await relay.login(capacity=100), await relay.login()
    await sender.send_packet(slow.key, bytes(1000))
    received = 0
    while received < 1037:
        await trio.sleep(1)
        received += len(await slow.end.receive())
    assert slow.key in relay.hub.active


async def test_packets_queued_for_a_client_that_leaves_are_counted(
    autojump_clock: Clock, relay: Relay
) -> None:
    slow, sender = await relay.login(capacity=100), await relay.login()
    for _ in range(5):
        await sender.send_packet(slow.key, bytes(100))
    await sender.ping()
    slow.end.abort()
    await relay.end_of(slow)
    gone = relay.dropped(DropReason.GONE_DISCONNECTED)
    assert relay.metrics.packets_sent + gone == 5
    assert gone > 0


async def test_nothing_is_written_behind_half_a_frame(autojump_clock: Clock) -> None:
    """Sending is cancelled, at a stop, while another client's leaving is still told."""
    async with trio.open_nursery() as connections, trio.open_nursery() as senders:
        state = RelayState(nacl.public.PrivateKey.generate(), senders, write_timeout=0)
        relay = Relay(state, connections)
        slow, sender = await relay.login(capacity=100), await relay.login()
        await sender.send_packet(slow.key, bytes(90))
        assert await slow.receive_packet() == (sender.key, bytes(90))
        await sender.send_packet(slow.key, bytes(200))
        await sender.ping()
        senders.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await trio.testing.wait_all_tasks_blocked()
            assert not state.send_tasks.sending
            await sender.end.aclose()
            await relay.end_of(sender)
            rest = await slow.end.receive()
            assert rest == bytes.fromhex("05000000e8") + sender.key + bytes(63)
        connections.cancel_scope.cancel()


async def test_control_frames_overtake_queued_packets(autojump_clock: Clock, relay: Relay) -> None:
    slow, sender = await relay.login(capacity=50), await relay.login()
    for _ in range(3):
        await sender.send_packet(slow.key, bytes(100))
    await sender.ping()
    await slow.send(PING, b"12345678")
    assert await slow.receive_packet() == (sender.key, bytes(100))
    assert await slow.receive() == (PONG, b"12345678")
    assert await slow.receive_packet() == (sender.key, bytes(100))


async def test_a_rate_limit_pauses_reading_and_is_told_at_login(
    autojump_clock: Clock, relay: Relay
) -> None:
    serverinfo.set_limit(relay.state, RateConfig(100_000, 65_568))
    peer = await relay.login()
    assert peer.server_info["TokenBucketBytesPerSecond"] == 100_000
    assert peer.server_info["TokenBucketBytesBurst"] == 65_568
    start = trio.current_time()
    for _ in range(300):
        await peer.send_packet(peer.key, bytes(963))
        await peer.receive_packet()
    elapsed = trio.current_time() - start
    assert (300_000 - 65_568 - 20_000) / 100_000 < elapsed < 300_000 / 100_000
    assert relay.metrics.rate_limit_per_client_waited > 0


async def test_a_paused_client_is_ended_at_once(autojump_clock: Clock, relay: Relay) -> None:
    serverinfo.set_limit(relay.state, RateConfig(10, 65_568))
    peer = await relay.login(capacity=1000)
    start = trio.current_time()
    with contextlib.suppress(PeerVanished):
        for _ in range(40):
            await peer.end.send(frame(SEND, peer.key + bytes(2000)))
    assert isinstance(await relay.end_of(peer), WriteTimeout)
    assert trio.current_time() - start < 10


async def test_tiny_frames_make_reads_smaller(autojump_clock: Clock, relay: Relay) -> None:
    flooder, other = await relay.login(), await relay.login()
    keys = [flooder.key, ABSENT]
    flood = b"".join(frame(SEND, keys[n % 2]) for n in range(3000))
    reads: list[int] = []
    (connection,) = (c for c in relay.hub.members if c.key == flooder.key)
    read_into = connection.transport.read_into

    def counted(view: memoryview) -> int:
        count = read_into(view)
        reads.append(count)
        return count

    connection.transport.read_into = counted  # type: ignore[method-assign]
    await flooder.end.send(flood)
    await flooder.end.send(flood)
    received = 0
    while received < 3000:
        await flooder.receive()
        received += 1
    await other.ping()
    assert reads[0] == len(flood)
    assert max(reads[1:]) <= reader.MIN_READ
    assert relay.metrics.packets_received == 6000


@pytest.mark.parametrize("kind", [0x7F, PING, SEND])
async def test_a_read_full_of_tiny_frames_is_acted_on_in_several_turns(
    autojump_clock: Clock, relay: Relay, monkeypatch: pytest.MonkeyPatch, kind: int
) -> None:
    flooder, other = await relay.login(), await relay.login()
    payloads = {0x7F: [b""], PING: [b"12345678"], SEND: [ABSENT, other.key]}[kind]
    flood = b"".join(frame(kind, payloads[n % len(payloads)]) for n in range(5000))
    next_train = trains.next_train
    with counted_turns() as turns:

        def noted(*arguments: Any) -> Any:
            turns.note()
            return next_train(*arguments)

        monkeypatch.setattr(trains, "next_train", noted)
        # A frame at the end of it has not all come.
        await flooder.end.send(flood + frame(SEND, other.key + b"whole")[:-1])
        await trio.testing.wait_all_tasks_blocked()
        await flooder.end.send(b"e")
        await trio.testing.wait_all_tasks_blocked()
    assert turns.most <= reader.MAX_FRAMES + 1
    received = 0
    while received < (2500 if kind == SEND else 0):
        assert await other.receive_packet() == (flooder.key, b"")
        received += 1
    assert await other.receive_packet() == (flooder.key, b"whole")
    if kind == 0x7F:
        assert relay.metrics.unknown_frames == 5000
    if kind == PING:
        assert relay.metrics.got_ping == 5000


async def test_a_new_rate_limit_is_for_everybody_at_once(
    autojump_clock: Clock, relay: Relay
) -> None:
    peer = await relay.login()
    serverinfo.set_limit(relay.state, RateConfig(2000, 65_568))
    for _ in range(2):
        await peer.send_packet(peer.key, bytes(60_000))
        await peer.receive_packet()
    start = trio.current_time()
    await peer.ping()
    assert trio.current_time() - start > 5
    serverinfo.set_limit(relay.state, RateConfig(0, 0))
    await peer.ping()
    start = trio.current_time()
    await peer.ping()
    assert trio.current_time() == start


async def test_a_failing_receiver_does_not_hurt_its_sender(
    autojump_clock: Clock, relay: Relay
) -> None:
    sender, receiver = await relay.login(), await relay.login()
    await trio.testing.wait_all_tasks_blocked()
    # A write to it fails before its own reader, which waits, has noticed anything.
    receiver.end.peer.was_reset = True
    await sender.send_packet(receiver.key, b"lost")
    await sender.ping()
    assert relay.dropped(DropReason.WRITE_ERROR) == 1
    assert isinstance(await relay.end_of(receiver), PeerVanished)


async def test_a_mesh_key_makes_no_mesh_peer_here(autojump_clock: Clock, relay: Relay) -> None:
    peer = relay.connect()
    await peer.log_in(meshKey="ab" * 32)
    await peer.send(0x10)
    assert isinstance(await relay.end_of(peer), NotPermitted)


async def test_a_malformed_mesh_key_is_refused(autojump_clock: Clock, relay: Relay) -> None:
    peer = relay.connect()
    with pytest.raises((EOFError, PeerVanished)):
        await peer.log_in(meshKey="")
    assert isinstance(await relay.end_of(peer), LoginRefused)


async def test_thousands_of_packets_to_many_in_any_order(
    autojump_clock: Clock, relay: Relay
) -> None:
    peers = [await relay.login() for _ in range(8)]
    sender = peers[0]
    burst = b"".join(
        frame(SEND, peers[number % 7 + 1].key + number.to_bytes(4)) for number in range(2000)
    )
    await sender.end.send(burst)
    for offset, peer in enumerate(peers[1:]):
        expected = [number for number in range(2000) if number % 7 == offset]
        for number in expected:
            kind, payload = await peer.receive()
            assert (kind, payload) == (RECV, sender.key + number.to_bytes(4))
