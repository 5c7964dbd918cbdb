"""Forwarding: from what a client sends to frames for another relay, and from those to packets."""

import functools
from collections.abc import Callable

from bench.micro.stopwatch import Measure, Stopwatch
from derp.wire.forwarding import forward_frames, next_forwarded
from derp.wire.frames import DISCO_MAGIC, FrameType, frame

SOURCE, DESTINATION = bytes(range(32)), bytes(range(32, 64))
READ = 128 << 10
DISCO_LENGTH = 124
"""Bytes of the pings that clients send."""

Step = Callable[[memoryview, int], bytes]
"""What is timed: it is given frames, and how many."""


def measure(step: Step, given: bytes, count: int, wanted: bytes, loops: int) -> float:
    """Time turning `count` frames into others, which are to be `wanted`."""
    view = memoryview(bytearray(given))
    assert step(view, count) == wanted, "other frames come out than should"
    watch = Stopwatch()
    watch.start()
    for _ in range(loops):
        step(view, count)
    watch.stop()
    return watch.seconds


def out(train: memoryview, packets: int) -> bytes:
    return forward_frames(train, packets, DESTINATION)


def into(frames: memoryview, packets: int) -> bytes:
    """Do as the reader of a mesh peer does, which looks for the next train until there is none."""
    found = []
    start, end = 0, len(frames)
    buffer = frames.obj
    while start < end:
        start, _source, _destination, count, train, _disco = next_forwarded(buffer, start, end)
        packets -= count
        found.append(train)
    assert not packets, "not all packets are found"
    return b"".join(found) if len(found) > 1 else found[0]


def both(packet: bytes, count: int) -> dict[str, Measure]:
    received = frame(FrameType.RECV_PACKET, SOURCE + packet) * count
    forwarded = frame(FrameType.FORWARD_PACKET, SOURCE + DESTINATION + packet) * count
    return {
        "out": functools.partial(measure, out, received, count, forwarded),
        "in": functools.partial(measure, into, forwarded, count, received),
    }


def filling_a_read(packet: bytes) -> dict[str, Measure]:
    return both(packet, READ // len(frame(FrameType.FORWARD_PACKET, SOURCE + DESTINATION + packet)))


PACKETS = {
    "1 packet of 1400 bytes": both(bytes(1400), 1),
    "128 KiB, packets of 1400 bytes": filling_a_read(bytes(1400)),
    "128 KiB, packets of 200 bytes": filling_a_read(bytes(200)),
    "128 KiB, disco packets": filling_a_read(DISCO_MAGIC.ljust(DISCO_LENGTH, b"\0")),
}

BENCHMARKS = {
    f"{way}, {what}": measure for what, ways in PACKETS.items() for way, measure in ways.items()
}
