"""The cases that are measured: what the link is like, and who sends how over it."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import product

MODES = ("tun", "userspace")
RTTS = (4, 40, 80)
RATES = ((10, 10), (100, 100), (1000, 1000))
SLOW_RECEIVER = (100, 10)
LOSSES = (0.0, 0.5)
CONGESTION_CONTROLS = ("cubic", "bbr")
STREAMS = (1, 4)

SHORTEST_BUFFER = 0.02
"""Seconds of the link's rate: what the cheapest box has, too."""
SMALLEST_BUFFER = 30_000
"""Bytes: twenty packets."""


@dataclass(frozen=True)
class Wire:
    """One direction of a link; the names in `told` are those of the emulator."""

    delay: float
    """Seconds."""
    rate: float
    """Bits a second, of IP packets: what an Ethernet adds is not counted."""
    buffer: int
    """Bytes that may wait; the newest packet is dropped beyond."""
    loss: float
    """The share of packets."""

    def told(self) -> dict[str, float]:
        return {
            "DelayNanoseconds": round(self.delay * 1e9),
            "BitsPerSecond": self.rate,
            "BufferBytes": self.buffer,
            "Loss": self.loss,
        }


@dataclass(frozen=True)
class Case:
    """A link and a load."""

    mode: str
    """How tailscaled runs: with a TUN device, or without one, behind its SOCKS5 proxy."""
    rtt: int
    """Milliseconds from node to node and back; half of it is between a node and the relay."""
    up: int
    """Mbit/s of the sender's link, each way."""
    down: int
    """Mbit/s of the receiver's link, each way."""
    loss: float
    """Per cent of the packets, on each link and each way."""
    congestion: str
    """The congestion control of all three hosts."""
    streams: int

    @property
    def name(self) -> str:
        rate = f"{self.up}" if self.up == self.down else f"{self.up}to{self.down}"
        return (
            f"{self.mode}-{self.rtt}ms-{rate}mbit-loss{self.loss:g}-{self.congestion}"
            f"-x{self.streams}"
        )

    def wire(self, rate: int, buffer: float | None = None) -> Wire:
        """Return one direction of a link with so many Mbit/s.

        `buffer` is how many seconds of its rate the buffer has; those of the whole round trip, if
        not given.
        """
        seconds = max(self.rtt / 1e3, SHORTEST_BUFFER) if buffer is None else buffer
        size = max(SMALLEST_BUFFER, round(rate * 1e6 / 8 * seconds))
        return Wire(self.rtt / 4e3, rate * 1e6, size, self.loss / 100)


CASES = tuple(
    Case(mode, rtt, up, down, loss, congestion, streams)
    for mode, rtt, (up, down), loss, congestion, streams in product(
        MODES, RTTS, (*RATES, SLOW_RECEIVER), LOSSES, CONGESTION_CONTROLS, STREAMS
    )
    # A slow receiver shows what a relay's queues do; loss would keep them empty.
    if not (loss and up != down)
)

QUICK = (
    "tun-40ms-100mbit-loss0-cubic-x1",
    "tun-40ms-100to10mbit-loss0-bbr-x4",
    "tun-80ms-100mbit-loss0.5-bbr-x1",
    "userspace-4ms-100mbit-loss0-bbr-x1",
)


def choose(patterns: Sequence[str]) -> list[Case]:
    """Return the cases that match one of the shell patterns; all without any.

    Raises ValueError for a pattern that matches none.
    """
    for pattern in patterns:
        if not any(fnmatch(case.name, pattern) for case in CASES):
            raise ValueError(f"no case is named {pattern}; --list shows all")
    return [
        case
        for case in CASES
        if not patterns or any(fnmatch(case.name, pattern) for pattern in patterns)
    ]
