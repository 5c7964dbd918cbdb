"""Which attacks there are, how hard each is, and what it may come to."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass

MIB = 1 << 20
LINK = 10_000_000
"""Bits a second, headers included: what the promise to those who are there holds against."""
LATE = 50.0
"""Milliseconds: what the promise is."""


class Who(enum.Enum):
    """Who attacks."""

    STRANGER = "a stranger"
    CLIENT = "a client"


@dataclass(frozen=True)
class Attack:
    """One attack. Its name is that in tests/bench/load/attacks.go."""

    name: str
    title: str
    who: Who
    count: int
    """Connections at once, or what else is told by the title."""
    many: int = 0
    """The same in the long form; 0 for no more."""
    rate: int = LINK
    """Bits a second at most; 0 for as much as goes."""
    seconds: float = 0
    """How long, if not as long as all others."""
    plain: bool = False
    """Whether it is on plain HTTP."""
    spread: bool = False
    """Whether it comes from thousands of networks, and not from one."""
    refuses: bool = False
    """Whether an admission server says no, after 60 ms, to one after the other."""
    stun: bool = False
    """Whether the victim asks STUN, too, and is judged by the answers as well."""
    growth: int = 64 * MIB
    """By how much the relay's memory may grow, in bytes (PSS)."""
    cpu: float | None = None
    """The CPU seconds that the relay may take for it, where it is a certain amount."""

    @property
    def promised(self) -> bool:
        """Whether the promise to those who are there holds against it."""
        return self.who is Who.STRANGER and 0 < self.rate <= LINK


def stranger(name: str, title: str, count: int, **more: object) -> Attack:
    return Attack(name, title, Who.STRANGER, count, **more)  # type: ignore[arg-type]


def client(name: str, title: str, count: int, **more: object) -> Attack:
    return Attack(name, title, Who.CLIENT, count, **more)  # type: ignore[arg-type]


TLS = (
    stranger("keyupdates", "KeyUpdates", 200),
    stranger("keyupdates-asking", "KeyUpdates that ask for one", 200),
    stranger("keyupdates-at-once", "2,300 KeyUpdates at once on each of 200", 200, rate=0, cpu=3.0),
    stranger("keyupdates-in-a-head", "a KeyUpdate before each byte of a head", 200),
    stranger("empty-records", "empty records", 200),
    stranger("alerts", "warnings", 200),
    stranger("hellos", "a ClientHello, then away", 64),
    stranger("hellos", "a ClientHello, then away, from everywhere", 64, spread=True),
    stranger("hellos-held", "a ClientHello, no more", 500, many=5000),
    stranger("hellos-claimed", "the first bytes of a long ClientHello", 500, many=5000),
    stranger("hello-in-pieces", "a ClientHello, one byte a segment", 64),
    stranger("hello-in-records", "a ClientHello, one byte a record", 64),
    stranger("handshakes", "handshakes", 64),
    stranger("handshakes", "handshakes, from everywhere", 64, spread=True),
    stranger("idle", "idle connections", 1000, many=10_000),
)
HTTP = (
    stranger("head-in-pieces", "a head, one byte a segment", 16),
    stranger("head-in-records", "a head, one byte a record", 64),
    stranger("slow-heads", "a head, two bytes a second", 500, many=5000),
    stranger("tiny-headers", "thousands of tiny headers", 64),
    stranger("requests", "requests", 64),
    stranger("requests-unread", "requests, the answers unread", 64),
    stranger("body", "a body without end", 64),
    stranger("body-in-chunks", "a body in chunks of one byte", 64),
    stranger("connections", "connections, closed at once", 64),
    stranger("closes", "connections closed in one moment", 3000, many=10_000, plain=True, rate=0),
)
WEBSOCKET = (
    stranger("websocket-bytes", "websocket messages of one byte", 64),
    stranger("websocket-empty", "empty websocket messages", 64),
    stranger("websocket-fragments", "empty websocket fragments", 64),
    stranger("websocket-pings", "websocket pings", 64),
    stranger("websocket-claimed", "a websocket message of 2^62 bytes", 64),
)
LOGIN = (
    stranger("infos-held", "256 KiB of client info, but for one byte", 100, many=1000, rate=0),
    stranger("info-in-pieces", "client info, one byte a segment", 16),
    stranger("info-in-records", "client info, one byte a record", 64),
    stranger("junk-logins", "logins with a box that can't be opened", 64, plain=True),
    stranger("replays", "one login replayed", 64, plain=True),
    stranger(
        "strangers",
        "strangers whom a slow admission server refuses",
        120,
        many=300,
        rate=0,
        refuses=True,
    ),
)
STUN = (
    stranger("stun-junk", "STUN: malformed requests", 1, stun=True),
    stranger("stun-asked", "STUN: requests", 1, stun=True),
)
CLIENTS = (
    client("logins", "logins", 64),
    client("duplicates", "one key again and again", 200, many=2000),
    client("keyupdates-in-a-packet", "a KeyUpdate before each byte of a packet", 64),
    client("packets-in-records", "a packet, one byte a record", 64),
    client("pings", "pings", 16),
    client("pings-unread", "pings, the answers unread", 16),
    client("tiny-frames", "frames of no known kind", 16),
    client("to-nobody", "small packets to nobody", 16),
    client("disco-to-nobody", "disco packets to nobody", 16),
    client("watching", "the wish to watch, without the mesh key", 64),
    client("gone", "clients that leave 64 others", 16),
    client("trickling", "receivers that trickle, their queues full", 300, many=1500, rate=0),
)
ATTACKS: Sequence[Attack] = (*TLS, *HTTP, *WEBSOCKET, *LOGIN, *STUN, *CLIENTS)
