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
CROWD = 500
"""Connections: about as many as one network may have before they log in."""
CONNECTION_BYTES = 64 << 10
"""Bytes of each connection, besides."""
LOGGED = 256 << 10
"""Bytes by which the log may grow in ten seconds, of attackers who have no more than the link."""
PENDING = 160 * MIB
"""Bytes for all together who have not logged in, whatever they do."""
QUEUES = 144 * MIB
"""Bytes for the queues of all clients together."""


class Who(enum.Enum):
    """Who attacks."""

    STRANGER = "without a login"
    OPERATOR = "by who may look at the relay"
    CLIENT = "by clients that have logged in"


class Door(enum.Enum):
    """Where an attack comes in, other than where clients do."""

    METRICS = "-metrics-addr"
    CONTROL = "the control socket"


@dataclass(frozen=True)
class Attack:
    """One attack. Its name is that in bench/load/attacks.go."""

    who: Who
    name: str
    says: str
    """What is done, for whoever reads the table; {count} is how often at once."""
    count: int
    many: int = 0
    """The same in the long form; 0 for no more."""
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
    """Whether it comes from thousands of networks, and not from one; or a proxy says so."""
    refused: bool = False
    """Whether an admission server says no, after 60 ms, to one after the other."""
    listed: str = ""
    """Networks of proxies with PROXY headers (-proxy-protocol-from); empty for none."""
    door: Door | None = None
    stun: bool = False
    """Whether the victims ask STUN, too, and their answers count like packets."""
    growth: int = LITTLE
    """By how much the relay's memory (PSS) may grow: bytes, and CONNECTION_BYTES for each."""
    cpu: float | None = None
    """The share of a core that the relay may be busy, where that is what the attack is after."""

    @property
    def id(self) -> str:
        return f"{self.name}-spread" if self.spread else self.name

    @property
    def promised(self) -> bool:
        """Whether the promise about lateness holds against it."""
        return self.who is not Who.CLIENT and 0 < self.rate <= LINK

    @property
    def ours_alone(self) -> bool:
        """Whether the Go derper has nothing of the kind."""
        return bool(self.listed or self.door)

    @property
    def most(self) -> int:
        """Return the bytes by which the relay's memory may grow in all."""
        most = self.growth + self.count * CONNECTION_BYTES
        return min(PENDING, most) if self.who is Who.STRANGER else most

    @property
    def title(self) -> str:
        return self.says.format(count=f"{self.count:,}")

    def long(self) -> "Attack":
        """Return the same as it is in the long form."""
        return replace(self, count=self.many or self.count, seconds=self.long_seconds)


stranger = partial(Attack, Who.STRANGER)
client = partial(Attack, Who.CLIENT)
flood = partial(stranger, count=64, many=CROWD)
held = partial(stranger, growth=PENDING)
AT_ONCE = {"rate": 0, "seconds": 1.0, "long_seconds": 1.0}
EVERYWHERE = {"spread": True}
ONLY_LONG = {"short": False}

TLS = (
    stranger("keyupdates", "KeyUpdates", 200, **ONLY_LONG),
    stranger("keyupdates-asking", "KeyUpdates that ask for one", 200),
    stranger("keyupdates-at-once", "2,300 KeyUpdates at once on {count}", 200, cpu=0.6, **AT_ONCE),
    stranger("keyupdates-in-a-head", "a KeyUpdate before each byte of a head", 200),
    stranger("empty-records", "empty records", 200),
    stranger("alerts", "warnings", 200, **ONLY_LONG),
    flood("hellos", "a ClientHello, then away"),
    flood("hellos", "a ClientHello from everywhere, then away", **EVERYWHERE, **ONLY_LONG),
    held("hellos-held", "{count} with a ClientHello and no more", 500, many=5000, long_seconds=3),
    held(
        "hellos-claimed",
        "{count} with the head of a long ClientHello",
        2000,
        long_seconds=1,
        **ONLY_LONG,
    ),
    held(
        "hellos-claimed",
        "{count} with the head of a long ClientHello, from everywhere",
        2000,
        long_seconds=1,
        **EVERYWHERE,
    ),
    flood("hello-in-pieces", "a ClientHello, a byte a segment"),
    flood("hello-in-records", "a ClientHello, a byte a record", **ONLY_LONG),
    flood("handshakes", "handshakes"),
    flood("handshakes", "handshakes from everywhere", **EVERYWHERE),
    held("idle", "{count} idle connections", 1000, many=10_000, long_seconds=6),
    held(
        "idle",
        "{count} idle connections from everywhere",
        1000,
        many=10_000,
        long_seconds=6,
        **EVERYWHERE,
    ),
)
HTTP = (
    stranger("head-in-pieces", "a head, a byte a segment", 4, seconds=3, cpu=0.85),
    flood("head-in-records", "a head, a byte a record"),
    held("slow-heads", "{count} heads, two bytes a second", 500, many=5000, **ONLY_LONG),
    flood("tiny-headers", "thousands of tiny headers"),
    stranger("requests", "requests on {count} connections", CROWD),
    stranger("requests", "requests on {count} from everywhere", 2000, **EVERYWHERE),
    flood("requests-unread", "requests, the answers unread", **ONLY_LONG),
    flood("body", "a body without end", **ONLY_LONG),
    flood("body-in-chunks", "a body in chunks of a byte"),
    flood("connections", "connections closed at once"),
    stranger("closes", "{count} closed in one moment", 3000, many=10_000, plain=True, **AT_ONCE),
)
WEBSOCKET = (
    flood("websocket-bytes", "websocket messages of a byte", **ONLY_LONG),
    flood("websocket-empty", "empty websocket messages", **ONLY_LONG),
    flood("websocket-fragments", "empty websocket fragments"),
    flood("websocket-pings", "websocket pings"),
    flood("websocket-claimed", "a websocket message of 2^62 bytes"),
)
LOGIN = (
    held(
        "infos-held",
        "{count} with 256 KiB of client info but for a byte",
        1000,
        **AT_ONCE,
        **ONLY_LONG,
    ),
    held(
        "infos-held",
        "{count} with 256 KiB of client info, from everywhere",
        1000,
        **AT_ONCE,
        **EVERYWHERE,
    ),
    stranger("info-in-pieces", "the end of 256 KiB of client info, a byte a segment", 2),
    flood("info-in-records", "256 KiB of client info, a byte a record"),
    flood("junk-logins", "logins whose box can't be opened", plain=True),
    flood("replays", "one login replayed", plain=True),
    stranger("strangers", "{count} strangers at once, refused slowly", 120, many=300, refused=True),
    stranger(
        "strangers",
        "{count} strangers from everywhere, refused slowly",
        120,
        many=300,
        refused=True,
        **EVERYWHERE,
        **ONLY_LONG,
    ),
)
proxied = partial(stranger, listed="127.66.6.0/24")
"""By who can connect from a proxy's network, from which all attackers come."""
PROXY = (
    proxied("proxy-slow-lines", "{count} PROXY lines, two bytes a second", 500, **ONLY_LONG),
    proxied("proxy-header-in-pieces", "64 KiB of PROXY header, a byte a segment", 64),
    proxied("proxy-tlvs", "64 KiB of TLVs in a PROXY header", 64, many=CROWD, **ONLY_LONG),
    proxied("proxy-half-headers", "{count} with 64 KiB of TLVs but for a few", 200, **AT_ONCE),
    proxied("proxy-clients", "handshakes of one network's clients, by a proxy", 64),
    proxied("proxy-clients", "handshakes of all networks' clients, by a proxy", 64, **EVERYWHERE),
    proxied(
        "proxy-hellos",
        "a ClientHello of all networks' clients, by a proxy",
        64,
        **EVERYWHERE,
        **ONLY_LONG,
    ),
    proxied("proxy-local", "a ClientHello behind a LOCAL header", 64, **ONLY_LONG),
    stranger("proxy-lines", "PROXY lines of who is no proxy", 64, listed="127.99.0.0/16"),
)
STUN = (
    stranger("stun-attributes", "STUN: requests with 357 attributes", 1, stun=True),
    proxied("stun-proxied", "STUN: requests behind PROXY headers", 1, stun=True),
    stranger("stun-junk", "STUN: malformed requests", 1, stun=True),
    stranger("stun-asked", "STUN: requests", 1, stun=True),
)
operator = partial(Attack, Who.OPERATOR)
OPERATORS = (
    operator("pages", "garbage, floods and slow requests on /debug/", 24, many=64),
    operator("door", "the same on the metrics door", 20, many=64, door=Door.METRICS),
    operator("control", "the same on the control socket", 16, many=64, door=Door.CONTROL),
)
CLIENTS = (
    client("logins", "logins", 64),
    client("duplicates", "one key, {count} times", 200, many=2000, long_seconds=4),
    client("keyupdates-in-a-packet", "a KeyUpdate before each byte of a packet", 64),
    client("packets-in-records", "a packet, a byte a record", 64, **ONLY_LONG),
    client("pings", "pings", 16),
    client("pings-unread", "pings, the answers unread", 16, **ONLY_LONG),
    client("tiny-frames", "frames of no known kind", 16, **ONLY_LONG),
    client("to-nobody", "small packets to nobody", 16, **ONLY_LONG),
    client("disco-to-nobody", "disco packets to nobody", 16),
    client("watching", "the wish to watch, without the mesh key", 64, **ONLY_LONG),
    client("leaves", "{count} that leave in one moment", 2000, many=10_000, plain=True, **AT_ONCE),
    client("gone", "clients that leave 64 others", 16),
    client(
        "trickling",
        "{count} that take little, their queues filled",
        400,
        many=1500,
        rate=0,
        long_seconds=5,
        growth=QUEUES,
    ),
)
ATTACKS: Sequence[Attack] = (*TLS, *HTTP, *WEBSOCKET, *LOGIN, *PROXY, *STUN, *OPERATORS, *CLIENTS)
