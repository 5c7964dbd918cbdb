"""The train scanner: what one read of a client's bytes costs until all trains in it are found.

It rewrites the bytes where they lie, so each scan gets a fresh copy, made beforehand.
"""

import functools
import itertools

from bench.micro.stopwatch import Measure, Stopwatch, batches
from derp.wire import trains
from derp.wire.frames import DISCO_MAGIC, FrameType, frame

SOURCE = bytes(range(32))
DESTINATIONS = [bytes((number,)) * 32 for number in range(100)]
READ = 128 << 10
DISCO_LENGTH = 124
"""Bytes of the pings that clients send."""

Found = tuple[int, bytes, int]
"""What a train is, its destination, its packets."""


def measure(sent: bytes, became: bytes, wanted: list[Found], batch: int, loops: int) -> float:
    """Time scanning `sent`, in which `wanted` is to be found, and which is to become `became`."""
    buffers = [bytearray(sent) for _ in range(batch)]
    found = [(what, key, packets) for what, _stop, key, packets in scan(buffers[0])]
    assert found == wanted, "other trains are found than there are"
    assert buffers[0] == became, "the packets were not rewritten as they should be"

    watch = Stopwatch()
    for size in batches(loops, batch):
        for buffer in buffers:
            buffer[:] = sent
        watch.start()
        for buffer in buffers[:size]:
            scan(buffer)
        watch.stop()
    return watch.seconds


def scan(buffer: bytearray) -> list[trains.Scan]:
    """Find all trains, as a client's reader does."""
    found = []
    start, end = 0, len(buffer)
    while True:
        scanned = trains.next_train(buffer, start, end, SOURCE)
        found.append(scanned)
        if scanned[0] == trains.INCOMPLETE:
            return found
        start = scanned[1]


def one_packet() -> Measure:
    packet = bytes(1400)
    wanted = [(trains.PACKETS, DESTINATIONS[0], 1), (trains.INCOMPLETE, b"", 0)]
    sent = frame(FrameType.SEND_PACKET, DESTINATIONS[0] + packet)
    became = frame(FrameType.RECV_PACKET, SOURCE + packet)
    return functools.partial(measure, sent, became, wanted, 64)


def full_read(
    packet: bytes, destinations: list[bytes], what: trains.Kind = trains.PACKETS
) -> Measure:
    """A read of 128 KiB that ends amid a frame, to each of `destinations` in turn."""
    frames = [frame(FrameType.SEND_PACKET, key + packet) for key in destinations]
    size = len(frames[0])
    whole = READ // size
    sent = b"".join(itertools.islice(itertools.cycle(frames), whole + 1))[:READ]
    became = frame(FrameType.RECV_PACKET, SOURCE + packet) * whole + sent[whole * size :]
    if len(destinations) == 1:
        wanted = [(what, destinations[0], whole)]
    else:
        wanted = [(what, destinations[n % len(destinations)], 1) for n in range(whole)]
    return functools.partial(measure, sent, became, [*wanted, (trains.INCOMPLETE, b"", 0)], 4)


BENCHMARKS = {
    "1 packet of 1400 bytes": one_packet(),
    "128 KiB, packets of 1400 bytes": full_read(bytes(1400), DESTINATIONS[:1]),
    "128 KiB, packets of 200 bytes": full_read(bytes(200), DESTINATIONS[:1]),
    "128 KiB, 200 bytes to 100 clients in turn": full_read(bytes(200), DESTINATIONS),
    "128 KiB, disco packets": full_read(
        DISCO_MAGIC.ljust(DISCO_LENGTH, b"\0"), DESTINATIONS[:1], trains.DISCO
    ),
}
