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
    """How long in the short form, if not as long as all others."""
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
        return replace(self, count=self.many or self.count)


stranger = partial(Attack, Who.STRANGER)
client = partial(Attack, Who.CLIENT)

TLS = (
    stranger("keyupdates", "KeyUpdates", 200, short=False),
    stranger("keyupdates-asking", "KeyUpdates that ask for one", 200),
    stranger(
        "keyupdates-at-once", "the same, 2,300 at once on each of {count}", 200, rate=0, cpu=0.6
    ),
    stranger("keyupdates-in-a-head", "a KeyUpdate before each byte of a head", 200),
    stranger("empty-records", "empty records", 200),
    stranger("alerts", "warnings", 200, short=False),
    stranger("hellos", "a ClientHello, then away", 64),
    stranger("hellos", "the same from thousands of networks", 64, spread=True, short=False),
    stranger(
        "hellos-held", "{count} with a ClientHello and no more", 500, many=5000, growth=PENDING
    ),
    stranger(
        "hellos-claimed",
        "{count} with the first bytes of a ClientHello of 128 KiB",
        2000,
        growth=PENDING,
    ),
    stranger("hello-in-pieces", "a ClientHello, a byte a segment", 64),
    stranger("hello-in-records", "a ClientHello, a byte a record", 64, short=False),
    stranger("handshakes", "handshakes", 64),
    stranger("handshakes", "the same from thousands of networks", 64, spread=True),
    stranger("idle", "{count} idle connections", 1000, many=10_000, growth=PENDING),
)
HTTP = (
    stranger("head-in-pieces", "a head, a byte a segment", 4, seconds=3, cpu=0.85),
    stranger("head-in-records", "a head, a byte a record", 64),
    stranger(
        "slow-heads",
        "{count} heads, two bytes a second",
        500,
        many=5000,
        short=False,
        growth=PENDING,
    ),
    stranger("tiny-headers", "thousands of tiny headers", 64),
    stranger("requests", "requests", 64),
    stranger("requests-unread", "requests, and the answers unread", 64, short=False),
    stranger("body", "a body without end", 64),
    stranger("body-in-chunks", "a body in chunks of a byte", 64),
    stranger("connections", "connections closed at once", 64),
    stranger("closes", "{count} closed in one moment", 3000, many=10_000, plain=True, rate=0),
)
WEBSOCKET = (
    stranger("websocket-bytes", "websocket messages of a byte", 64),
    stranger("websocket-empty", "empty websocket messages", 64, short=False),
    stranger("websocket-fragments", "empty websocket fragments", 64),
    stranger("websocket-pings", "websocket pings", 64),
    stranger("websocket-claimed", "a websocket message of 2^62 bytes", 64),
)
LOGIN = (
    stranger(
        "infos-held",
        "{count} with 256 KiB of client info, but for a byte",
        1000,
        rate=0,
        growth=PENDING,
    ),
    stranger("info-in-pieces", "the end of 256 KiB of client info, a byte a segment", 2),
    stranger("info-in-records", "256 KiB of client info, a byte a record", 64),
    stranger("junk-logins", "logins whose box can't be opened", 64, plain=True),
    stranger("replays", "one login replayed", 64, plain=True),
    stranger(
        "strangers",
        "{count} at once who are refused, slowly",
        120,
        many=300,
        refused=True,
        growth=PENDING,
    ),
    stranger(
        "strangers",
        "the same from thousands of networks",
        120,
        many=300,
        refused=True,
        spread=True,
        short=False,
        growth=PENDING,
    ),
)
STUN = (
    stranger("stun-junk", "STUN: malformed requests", 1, stun=True),
    stranger("stun-asked", "STUN: requests", 1, stun=True),
)
CLIENTS = (
    client("logins", "logins", 64),
    client("duplicates", "one key, {count} times", 200, many=2000),
    client("keyupdates-in-a-packet", "a KeyUpdate before each byte of a packet", 64),
    client("packets-in-records", "a packet, a byte a record", 64, short=False),
    client("pings", "pings", 16),
    client("pings-unread", "pings, and the answers unread", 16, short=False),
    client("tiny-frames", "frames of no known kind", 16),
    client("to-nobody", "small packets to nobody", 16, short=False),
    client("disco-to-nobody", "disco packets to nobody", 16),
    client("watching", "the wish to watch, without the mesh key", 64, short=False),
    client(
        "leaves",
        "{count} that leave in one moment",
        2000,
        many=10_000,
        plain=True,
        rate=0,
    ),
    client("gone", "clients that leave 64 others", 16),
    client(
        "trickling",
        "{count} that take little, their queues filled",
        400,
        many=1500,
        rate=0,
        growth=QUEUES,
    ),
)
ATTACKS: Sequence[Attack] = (*TLS, *HTTP, *WEBSOCKET, *LOGIN, *STUN, *CLIENTS)
