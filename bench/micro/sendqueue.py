"""The send queue: what it costs that a client doesn't take its packets at once."""

import functools
from typing import Any

from bench.micro.stopwatch import Stopwatch, batches
from derp.relay.flowqueue import ENTRY_COST, FLOW_COST
from derp.relay.queuememory import MemoryBudget
from derp.relay.sendqueue import CLIENT, SendQueue
from derp.session.sender import MAX_SEND
from derp.wire.frames import PACKET_OVERHEAD, FrameType, frame

SOURCE = bytes(range(32))
FRAME = PACKET_OVERHEAD + 1400
MANY = 1000
"""Clients that are slow at once."""
LONG = (128 << 10) // FRAME
"""Packets in a train that fills a read."""
ROOM = CLIENT.packets - FLOW_COST
"""Bytes for what one sender has queued."""
ALL = 2 * ROOM
NOW = 0.0

Train = tuple[bytes, int]
"""Frames, and how many."""


class Drops:
    """Adds up what a send queue drops."""

    def __init__(self) -> None:
        self.packets = self.size = 0

    def __call__(self, disco: bool, packets: int, payload: int) -> None:
        self.packets += packets
        self.size += payload + packets * PACKET_OVERHEAD


def make_trains(count: int, packets: int) -> list[Train]:
    """Make `count` trains of `packets` each; no two packets are the same."""
    return [
        (b"".join(numbered_frame(train * packets + n) for n in range(packets)), packets)
        for train in range(count)
    ]


def numbered_frame(number: int) -> bytes:
    return frame(FrameType.RECV_PACKET, SOURCE + number.to_bytes(4) * 350)


def put(send_queue: SendQueue, trains: list[Train]) -> None:
    for data, packets in trains:
        send_queue.put(data, packets, SOURCE, NOW, disco=False)


def put_and_take(count: int, packets: int, loops: int) -> float:
    """Time queueing some trains and taking them all at once."""
    trains = make_trains(count, packets)
    drops = Drops()
    send_queue = SendQueue(drops)
    put(send_queue, trains)
    pieces, entries = send_queue.take(MAX_SEND, NOW)
    assert pieces == [data for data, _packets in trains], "not what was put is taken"
    assert sum(entry.packets for entry in entries) == count * packets, "wrong number of packets"
    assert not send_queue, "not everything is taken"
    assert not drops.packets, "packets are dropped"

    watch = Stopwatch()
    watch.start()
    for _ in range(loops):
        put(send_queue, trains)
        send_queue.take(MAX_SEND, NOW)
    watch.stop()
    return watch.seconds


def put_at_limit(packets: int, loops: int) -> float:
    """Time queueing one packet where the send queue is full of trains of `packets`."""
    filling = make_trains(ROOM // (packets * FRAME + ENTRY_COST), packets)
    new = make_trains(256, 1)
    for size in (1, 2, len(new)):
        check_at_limit(filling, new[:size])

    watch = Stopwatch()
    for size in batches(loops, len(new)):
        send_queue = SendQueue(Drops())
        put(send_queue, filling)
        trains = new[:size]
        watch.start()
        put(send_queue, trains)
        watch.stop()
    return watch.seconds


def put_where_others_pay(packets: int, loops: int) -> float:
    """Time queueing one packet where so many queues hold as much as all together may."""
    filling, new = make_trains(8, packets), make_trains(256, 1)
    watch = Stopwatch()
    for size in batches(loops, len(new)):
        drops = Drops()
        budget: MemoryBudget[Any] = MemoryBudget()
        queues = [SendQueue(drops, budget) for _ in range(MANY)]
        for send_queue in queues:
            put(send_queue, filling)
        budget.limit = budget.held
        watch.start()
        put(queues[0], new[:size])
        watch.stop()
        assert budget.held <= budget.limit, "more is held than there may be"
        assert drops.packets >= size, f"{drops.packets} packets are dropped, not {size} or more"
    return watch.seconds


def check_at_limit(filling: list[Train], new: list[Train]) -> None:
    drops = Drops()
    send_queue = SendQueue(drops)
    put(send_queue, filling)
    assert not drops.packets, "packets are dropped below the limit"
    put(send_queue, new)
    pieces, entries = send_queue.take(ALL, NOW)
    came = b"".join(data for data, _packets in filling + new)
    assert b"".join(pieces) == came[drops.size :], "dropped is something else than the head"
    assert drops.size == drops.packets * FRAME, "not whole frames are dropped"
    left = sum(entry.packets for entry in entries)
    assert left == len(came) // FRAME - drops.packets, f"{left} packets are left"
    size = len(came) - drops.size + len(entries) * ENTRY_COST
    assert ROOM - FRAME - ENTRY_COST < size <= ROOM, f"{size} bytes are left"


BENCHMARKS = {
    "put and take 100 packets": functools.partial(put_and_take, 100, 1),
    "put and take a train of 128 KiB": functools.partial(put_and_take, 1, LONG),
    "put a packet, drop a packet": functools.partial(put_at_limit, 1),
    "put a packet, drop from a train": functools.partial(put_at_limit, LONG),
    "put a packet, the longest of 1000 pays": functools.partial(put_where_others_pay, 1),
}
