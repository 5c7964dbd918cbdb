"""The loads: what the client is told to do, which figures count, and the goal of each."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

Result = Mapping[str, Any]


@dataclass(frozen=True)
class Figure:
    """One figure of a load. `goal` is of the ratio ours : theirs, `limit` is of ours itself.

    What has neither is reported only.
    """

    what: str
    get: Callable[[Result], float]
    unit: str
    more_is_better: bool
    goal: float | None = None
    scale: float = 1.0
    limit: float | None = None


@dataclass(frozen=True)
class Load:
    """One load: arguments of the client, and those that are others in the quick form."""

    name: str
    title: str
    arguments: Mapping[str, str]
    figures: tuple[Figure, ...]
    quick: Mapping[str, str] = field(default_factory=dict)
    plain: bool = False
    in_quick: bool = True
    most_rounds: int = 99
    sweep: str = ""
    """For the loads of --growth: what grows in a row of them, and `at` says how far."""
    at: int = 0
    has_ceiling: bool = False
    """Whether the client's own limit means something for it: see --ceiling."""
    peers: bool = False
    """Whether peers.py does it, with real tailscaled, and not the load client."""
    mesh: bool = False
    """Whether two relays, meshed, take the place of one: senders are at one, receivers at the
    other. See mesh.py."""
    workers: int = 0
    """With how many processes ours serves where relay and client share both cores; see workers.py.
    0 where each has a core of its own."""
    ours_only: bool = False
    """Whether the Go derper has nothing to be compared with."""
    group: str = ""
    """A name by which --only and --skip mean this load and others of its kind."""
    flags: tuple[str, ...] = ()
    """More flags of both relays."""

    def is_among(self, names: Collection[str]) -> bool:
        """Return whether this load or its group is named."""
        return self.name in names or self.group in names


def rate(goal: float | None, what: str = "arrive") -> Figure:
    return Figure(what, lambda r: r["rate"], "k/s", True, goal, 1e-3)


def cpu(goal: float | None = None) -> Figure:
    return Figure("CPU each", lambda r: r["cpu_each"], "µs", False, goal)


def p50(goal: float | None = None) -> Figure:
    return Figure("p50", lambda r: r["latency"]["p50"], "µs", False, goal)


def p99(goal: float | None = None) -> Figure:
    return Figure("p99", lambda r: r["latency"]["p99"], "µs", False, goal)


def lost(limit: float | None = None) -> Figure:
    return Figure("lost", lambda r: r["lost_share"], "%", False, None, 100, limit)


def extra(name: str) -> Callable[[Result], float]:
    return lambda r: r["extra"][name]


BEST = {"load": "best", "trial": "1s", "seconds": "3s", "grain": "0.03"}
QUICK_BEST = {
    "trial": "150ms",
    "warmup": "50ms",
    "seconds": "300ms",
    "grain": "0.1",
    "budget": "4s",
}
QUICK = {"warmup": "200ms", "seconds": "500ms"}


def best(name: str, title: str, goal: float | None, **more: str) -> Load:
    figures = (rate(goal, "best rate"), cpu())
    return Load(name, title, BEST | more, figures, QUICK_BEST, has_ceiling="websocket" not in more)


def many(clients: int, each: int) -> Load:
    return Load(
        f"many-{clients}x{each}",
        f"{clients} clients, {each} packets/s each",
        {"load": "many", "clients": str(clients), "rate": str(each), "seconds": "10s"},
        (cpu(1.0), p50(1.0), p99(1.0), lost()),
        {"seconds": "1500ms", "warmup": "300ms"},
        in_quick=(clients, each) in {(200, 20), (1000, 5)},
    )


def idle(clients: int) -> Load:
    return Load(
        f"idle-{clients}",
        f"{clients} idle clients",
        # Longer than the 60 to 65 s between keep-alives.
        {"load": "idle", "clients": str(clients), "settle": "10s", "seconds": "70s"},
        (
            Figure("memory each (PSS)", extra("pss_each"), "KB", False, 0.35, 1e-3),
            Figure("CPU", extra("cpu_ms_per_s"), "ms/s", False, 1.0 if clients == 5000 else None),
        ),
        {"settle": "2s", "seconds": "2s"},
        in_quick=clients == 1000,
        most_rounds=3,
    )


def steady(thousands: int, burst: int = 1) -> Load:
    """One packet at a time has goals: no more CPU time while the core has time, and much less when
    it has none; bursts, as TCP makes them, are there to compare."""
    name, title = f"cpu-{thousands}k", f"one pair at {thousands},000 packets/s"
    goal: float | None = 0.6 if thousands >= 100 else 1.0
    delay = None if thousands >= 100 else 1.2
    if burst > 1:
        name, title = f"{name}-bursts", f"{title}, {burst} at a time"
        goal = delay = None
    return Load(
        name,
        title,
        {"load": "rate", "rate": str(thousands * 1000), "burst": str(burst)},
        (cpu(goal), p50(delay), p99(delay), lost()),
        QUICK,
        in_quick=burst == 1,
    )


def mesh(thousands: int) -> Load:
    return Load(
        f"mesh-{thousands}k",
        f"one pair across two meshed relays, {thousands},000 packets/s",
        {"load": "rate", "rate": str(thousands * 1000)},
        (replace(cpu(0.6), what="CPU of both, each"), p50(), lost()),
        QUICK,
        in_quick=thousands == 10,
        mesh=True,
    )


def both_cores(
    name: str, title: str, arguments: Mapping[str, str], **more: Any
) -> tuple[Load, Load]:
    """Return a load of 8 pairs on both cores, and the same for one process of ours."""
    size = 1400
    load = Load(
        f"workers-{name}",
        f"both cores, 8 pairs, {title}",
        {"pairs": "8", "size": str(size), **arguments},
        (
            rate(None),
            Figure("arrive", lambda r: r["rate"] * size, "MB/s", True, None, 1e-6),
            lost(),
            replace(cpu(), what="CPU of all processes, each"),
            Figure("memory of all (PSS)", extra("pss"), "MB", False, None, 1e-6),
            Figure("load's share of both cores", extra("client_cores"), "%", False, None, 50),
            Figure("pairs across processes", extra("across"), "of 8", False),
        ),
        in_quick=False,
        workers=2,
        **more,
    )
    title = f"{load.title}: ours with one worker"
    return load, replace(load, name=f"{load.name}-one", title=title, workers=1, ours_only=True)


def in_kernel() -> Figure:
    return Figure("in the kernel", extra("kernel"), "KB", False, None, 1e-3)


def shares(name: str, title: str, arguments: Mapping[str, str], **more: Any) -> Load:
    return Load(
        f"shares-{name}",
        f"8 senders to one receiver {title}",
        {"load": "shares", "senders": "8", "seconds": "10s", "warmup": "2s", **arguments},
        (
            Figure("smallest share : largest", extra("fairness"), "%", True, None, 100, 80),
            rate(None),
            lost(),
            in_kernel(),
        ),
        {"warmup": "300ms", "seconds": "1500ms"},
        most_rounds=3,
        group="queues",
        **more,
    )


def ping(name: str, title: str, limit: float | None, **more: str) -> Load:
    """A line of 10 Mbit/s that is sent twice as much; the pings are 128 bytes, 50 a second."""
    return Load(
        name,
        f"pings beside bulk, receiver at 10 Mbit/s{title}",
        {"load": "ping", "take": "10", "offer": "2", "warmup": "3s", "seconds": "12s", **more},
        (
            Figure("p50", lambda r: r["latency"]["p50"], "ms", False, None, 1e-3),
            Figure("p99", lambda r: r["latency"]["p99"], "ms", False, None, 1e-3, limit),
            lost(),
            Figure("bulk", extra("bulk"), "Mbit/s", True, None, 8e-6),
            in_kernel(),
        ),
        {"warmup": "1s", "seconds": "2s"},
        in_quick=not more,
        most_rounds=3,
        group="queues",
    )


def stall(milliseconds: int) -> Load:
    """The line could take 20 Mbit/s, so that it takes a while to catch up.

    Meanwhile the queue stands, and single packets of it may be dropped: so it isn't 100 %.
    """
    return Load(
        f"stall-{milliseconds}",
        f"10 Mbit/s, receiver stalls for {milliseconds / 1000:g} s",
        {
            "load": "stall",
            "take": "20",
            "offer": "0.5",
            "stall": f"{milliseconds}ms",
            "settle": "3s",
            "seconds": "12s",
        },
        (
            Figure("of the newest 32 of the stall arrive", extra("tail"), "%", True, None, 100, 90),
            Figure("lost in a stall", extra("lost_each"), "packets", False),
            Figure("until the delay is below 20 ms", extra("recovery"), "ms", False),
            Figure("delay max", extra("longest"), "ms", False),
            in_kernel(),
        ),
        {"settle": "1500ms", "seconds": "2s"},
        in_quick=False,
        most_rounds=3,
        group="queues",
    )


LOADS: tuple[Load, ...] = (
    best("best-1400", "no loss, one pair, 1400 bytes", 4.0, size="1400"),
    best("best-200", "no loss, one pair, 200 bytes", 6.0, size="200"),
    best("best-8-pairs", "no loss, 8 pairs, 1400 bytes", 3.0, pairs="8"),
    best("best-8-to-1", "no loss, 8 senders to one", 3.0, senders="8"),
    Load(
        "inflight",
        "512 packets in flight, one pair",
        {"load": "inflight", "window": "512"},
        (rate(6.0), lost(0.1), cpu()),
        QUICK,
        has_ceiling=True,
    ),
    Load(
        "flat-1",
        "flat out, one pair",
        {"load": "flat"},
        (rate(10.0), lost(), cpu()),
        QUICK,
        has_ceiling=True,
    ),
    Load(
        "flat-8",
        "flat out, 8 pairs",
        {"load": "flat", "pairs": "8"},
        (rate(10.0), lost(), cpu()),
        QUICK,
        has_ceiling=True,
    ),
    steady(1),
    steady(10),
    steady(30),
    steady(100),
    steady(10, burst=16),
    steady(30, burst=16),
    steady(100, burst=16),
    Load("rtt", "one at a time, there and back", {"load": "rtt"}, (p50(1.0), p99(1.0)), QUICK),
    many(200, 5),
    many(200, 20),
    many(1000, 5),
    many(1000, 15),
    many(1000, 20),
    mesh(10),
    mesh(30),
    replace(
        best("mesh-best", "no loss, one pair across two meshed relays", None),
        in_quick=False,
        has_ceiling=False,
        mesh=True,
    ),
    *both_cores("8-pairs", "no loss", BEST | {"budget": "90s"}),
    *both_cores(
        "inflight",
        "32 packets in flight each",
        {"load": "inflight", "window": "32", "deals": "8", "seconds": "8s"},
    ),
    *both_cores("cpu", "30,000 packets/s", {"load": "rate", "rate": "30000"}),
    Load(
        "slow",
        "a receiver at 1 Mbit/s beside 2 fast pairs",
        {"load": "slow", "pairs": "2", "settle": "10s", "seconds": "10s"},
        (
            Figure("fast: rate kept", extra("kept"), "%", True, None, 100, 90),
            Figure("fast: lost", lambda r: r["lost_share"], "%", False, None, 100, 0),
            Figure("slow: delay p50", lambda r: r["latency"]["p50"], "ms", False, None, 1e-3),
            Figure("slow: delay max", lambda r: r["latency"]["max"], "ms", False, None, 1e-3, 500),
        ),
        {"settle": "1500ms", "seconds": "1500ms"},
    ),
    # What waits shall wait in the relay: receivers have 16 KiB in the kernel, and a relay's kernel
    # little for such; see load/queues.go. The line "in the kernel" tells what it was. The senders
    # do not slow down: 2 means twice what the receiver takes; bursts come from all at one moment.
    shares(
        "slow",
        "at 10 Mbit/s, in bursts of 32",
        {"take": "10", "offer": "2", "burst": "32"},
    ),
    shares("fast", "that takes all, flat out", {"seconds": "3s"}, in_quick=False),
    ping("ping-slow", "", 100),
    ping("ping-slow-own", ", by the same sender", None, own="true"),
    stall(500),
    stall(1000),
    Load(
        "trickle",
        "1500 receivers at 500 bytes/s, 10 packets/s to each",
        {
            "load": "trickle",
            "clients": "1500",
            "take": "0.004",
            "rate": "10",
            "settle": "5s",
            "seconds": "20s",
        },
        (
            Figure("memory grown (PSS)", extra("grown"), "MB", False, None, 1e-6, 100),
            Figure("CPU", extra("cpu"), "% of a core", False, None, 100),
            in_kernel(),
        ),
        in_quick=False,
        most_rounds=3,
        group="queues",
        # Else both would end them: their kernels hear only after seconds that so little was taken.
        flags=("-tcp-write-timeout=5m", "-tcp-user-timeout=5m"),
    ),
    Load(
        "login",
        "logins, 16 at once",
        {"load": "login", "seconds": "5s"},
        (rate(1.1, "logins"), cpu(0.9)),
        {"seconds": "1500ms"},
    ),
    idle(1000),
    idle(5000),
    Load(
        "stun",
        "STUN, 128 requests under way",
        {"load": "stun", "seconds": "3s"},
        (rate(1.0, "answers"), cpu(1.0)),
        {"seconds": "500ms"},
    ),
    Load(
        "stun-1k",
        "STUN, 1000 requests/s, one at a time",
        {"load": "stun", "steady": "true", "rate": "1000", "seconds": "3s"},
        (cpu(1.0), p50(1.0)),
        in_quick=False,
    ),
    Load(
        "tailscaled",
        "200 MB from one tailscaled to another",
        {"bytes": "200000000"},
        (
            Figure("CPU", extra("cpu_per_gb"), "s/GB", False, 0.6),
            Figure("rate", extra("mb_per_s"), "MB/s", True),
        ),
        in_quick=False,
        peers=True,
    ),
    best("websocket", "no loss, one pair, websocket", 1.0, websocket="true", start="10000"),
    replace(best("plain", "no loss, one pair, plain HTTP", None), plain=True, in_quick=False),
    Load(
        "inflight-packed",
        "512 in flight, 11 packets a TLS record",
        {"load": "inflight", "window": "512", "pack": "11"},
        (rate(None), lost(), cpu()),
        QUICK,
        in_quick=False,
    ),
)


def growing() -> tuple[Load, ...]:
    """Return the loads that show how the cost of a packet grows with one thing or another."""
    clients = (
        Load(
            f"clients-{n}",
            f"{n} clients, 5000 packets/s in all",
            {"load": "many", "clients": str(n), "rate": str(5000 / n), "warmup": "2s"},
            (cpu(), p50(), p99()),
            {"seconds": "1s"},
            sweep="clients",
            at=n,
        )
        for n in (100, 300, 1000, 3000, 10_000)
    )
    sizes = (
        Load(
            f"size-{n}",
            f"packets of {n} bytes, up to 512 in flight",
            {"load": "inflight", "size": str(n), "window": str(max(4, min(512, 700_000 // n)))},
            (cpu(), rate(None), lost()),
            {"seconds": "500ms"},
            sweep="bytes of a packet",
            at=n,
        )
        for n in (64, 200, 500, 1400, 4096, 16_384, 65_536)
    )
    destinations = (
        Load(
            f"destinations-{n}",
            f"one sender, {n} destinations in turn, 20,000 packets/s",
            {"load": "rate", "dests": str(n), "rate": "20000"},
            (cpu(), p50(), lost()),
            {"seconds": "500ms"},
            sweep="destinations of a sender",
            at=n,
        )
        for n in (1, 3, 10, 30, 100, 300, 1000)
    )
    return (*clients, *sizes, *destinations)


GROWTH = growing()
