"""Which attacks there are, how hard each is, and what it may come to."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

MIB = 1 << 20
LINK = 10_000_000
"""Bits a second, with all headers from IP on: up to here the promise about lateness holds."""
LATE = 50.0
"""Milliseconds: what 99 of 100 packets of others take at most."""
LITTLE = 32 * MIB
"""Bytes by which memory may grow where nothing is to be kept."""
CLIENT_BYTES = 64 << 10
"""Bytes of each client that is connected, besides."""
LOGGED = 256 << 10
"""Bytes by which the log may grow in ten seconds, of attackers who have no more than the link."""
PENDING = 160 * MIB
"""The same for all together who have not logged in."""
QUEUES = 320 * MIB
"""The same for the queues of all clients together."""


class Who(enum.Enum):
    """Who attacks."""

    STRANGER = "without a login"
    CLIENT = "by clients that have logged in"


@dataclass(frozen=True)
class Attack:
    """One attack. Its name is that in tests/bench/load/attacks.go."""

    who: Who
    name: str
    says: str
    """What is done, for whoever reads the table; {count} is how often at once."""
    count: int
    many: int = 0
    """How often at once in the long form; 0 for no more."""
    rate: int = LINK
    """Bits a second at most; 0 for as much as goes."""
    seconds: float = 0
    """How long, if not as long as all others: no longer than it has something to do."""
    long_seconds: float = 0
    """The same in the long form."""
    short: bool = True
    """Whether it is in the short form."""
    plain: bool = False
    """Whether it is on plain HTTP."""
    spread: bool = False
    """Whether it comes from thousands of networks, and not from one."""
    refused: bool = False
    """Whether an admission server says no, after 60 ms, to one after the other."""
    stun: bool = False
    """Whether the victims ask STUN, too, and their answers count like packets."""
    growth: int = LITTLE
    """By how much the relay's memory may grow, in bytes (PSS), besides the clients'."""
    cpu: float | None = None
    """The share of a core that the relay may be busy, where that is what the attack is after."""

    @property
    def id(self) -> str:
        return f"{self.name}-spread" if self.spread else self.name

    @property
    def promised(self) -> bool:
        """Whether the promise about lateness holds against it."""
        return self.who is Who.STRANGER and 0 < self.rate <= LINK

    @property
    def most(self) -> int:
        """Return the bytes by which the relay's memory may grow."""
        return self.growth + (self.count * CLIENT_BYTES if self.who is Who.CLIENT else 0)

    @property
    def title(self) -> str:
        return self.says.format(count=f"{self.count:,}")

    def long(self) -> "Attack":
        """Return the same as it is in the long form."""
        return replace(self, count=self.many or self.count, seconds=self.long_seconds)


stranger = partial(Attack, Who.STRANGER)
client = partial(Attack, Who.CLIENT)
held = partial(stranger, growth=PENDING)
at_once = {"rate": 0, "seconds": 1.0, "long_seconds": 1.0}
everywhere = {"spread": True}
only_long = {"short": False}

TLS = (
    stranger("keyupdates", "KeyUpdates", 200, **only_long),
    stranger("keyupdates-asking", "KeyUpdates that ask for one", 200),
    stranger("keyupdates-at-once", "2,300 KeyUpdates at once on {count}", 200, cpu=0.6, **at_once),
    stranger("keyupdates-in-a-head", "a KeyUpdate before each byte of a head", 200),
    stranger("empty-records", "empty records", 200),
    stranger("alerts", "warnings", 200, **only_long),
    stranger("hellos", "a ClientHello, then away", 64),
    stranger("hellos", "a ClientHello from everywhere, then away", 64, **everywhere, **only_long),
    held("hellos-held", "{count} with a ClientHello and no more", 500, many=5000, long_seconds=3),
    held("hellos-claimed", "{count} with the head of a long ClientHello", 2000, long_seconds=1),
    held(
        "hellos-claimed",
        "{count} with the head of a long ClientHello, from everywhere",
        2000,
        long_seconds=1,
        **everywhere,
    ),
    stranger("hello-in-pieces", "a ClientHello, a byte a segment", 64),
    stranger("hello-in-records", "a ClientHello, a byte a record", 64, **only_long),
    stranger("handshakes", "handshakes", 64),
    stranger("handshakes", "handshakes from everywhere", 64, **everywhere),
    held("idle", "{count} idle connections", 1000, many=10_000, long_seconds=6),
    held(
        "idle",
        "{count} idle connections from everywhere",
        1000,
        many=10_000,
        long_seconds=6,
        **everywhere,
    ),
)
HTTP = (
    stranger("head-in-pieces", "a head, a byte a segment", 4, seconds=3, cpu=0.85),
    stranger("head-in-records", "a head, a byte a record", 64),
    held("slow-heads", "{count} heads, two bytes a second", 500, many=5000, **only_long),
    stranger("tiny-headers", "thousands of tiny headers", 64),
    stranger("requests", "requests", 64),
    stranger("requests-unread", "requests, the answers unread", 64, **only_long),
    stranger("body", "a body without end", 64, **only_long),
    stranger("body-in-chunks", "a body in chunks of a byte", 64),
    stranger("connections", "connections closed at once", 64),
    stranger("closes", "{count} closed in one moment", 3000, many=10_000, plain=True, **at_once),
)
WEBSOCKET = (
    stranger("websocket-bytes", "websocket messages of a byte", 64, **only_long),
    stranger("websocket-empty", "empty websocket messages", 64, **only_long),
    stranger("websocket-fragments", "empty websocket fragments", 64),
    stranger("websocket-pings", "websocket pings", 64),
    stranger("websocket-claimed", "a websocket message of 2^62 bytes", 64),
)
LOGIN = (
    held("infos-held", "{count} with 256 KiB of client info but for a byte", 1000, **at_once),
    held(
        "infos-held",
        "{count} with 256 KiB of client info, from everywhere",
        1000,
        **at_once,
        **everywhere,
    ),
    stranger("info-in-pieces", "the end of 256 KiB of client info, a byte a segment", 2),
    stranger("info-in-records", "256 KiB of client info, a byte a record", 64),
    stranger("junk-logins", "logins whose box can't be opened", 64, plain=True),
    stranger("replays", "one login replayed", 64, plain=True),
    stranger("strangers", "{count} strangers at once, refused slowly", 120, many=300, refused=True),
    stranger(
        *("strangers", "{count} strangers from everywhere, refused slowly", 120),
        **{"many": 300, "refused": True, **everywhere, **only_long},
    ),
)
STUN = (
    stranger("stun-junk", "STUN: malformed requests", 1, stun=True),
    stranger("stun-asked", "STUN: requests", 1, stun=True),
)
CLIENTS = (
    client("logins", "logins", 64),
    client("duplicates", "one key, {count} times", 200, many=2000, long_seconds=4),
    client("keyupdates-in-a-packet", "a KeyUpdate before each byte of a packet", 64),
    client("packets-in-records", "a packet, a byte a record", 64, **only_long),
    client("pings", "pings", 16),
    client("pings-unread", "pings, the answers unread", 16, **only_long),
    client("tiny-frames", "frames of no known kind", 16, **only_long),
    client("to-nobody", "small packets to nobody", 16, **only_long),
    client("disco-to-nobody", "disco packets to nobody", 16),
    client("watching", "the wish to watch, without the mesh key", 64, **only_long),
    client("leaves", "{count} that leave in one moment", 2000, many=10_000, plain=True, **at_once),
    client("gone", "clients that leave 64 others", 16),
    client(
        *("trickling", "{count} that take little, their queues filled", 400),
        **{"many": 1500, "growth": QUEUES, **at_once, "long_seconds": 5.0},
    ),
)
ATTACKS: Sequence[Attack] = (*TLS, *HTTP, *WEBSOCKET, *LOGIN, *STUN, *CLIENTS)
