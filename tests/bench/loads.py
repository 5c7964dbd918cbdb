"""The loads: what the client is told to do, which figures count, and the goal of each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Result = Mapping[str, Any]


@dataclass(frozen=True)
class Figure:
    """One figure of a load. `goal` is of the ratio ours : theirs; None is reported only."""

    what: str
    get: Callable[[Result], float]
    unit: str
    more_is_better: bool
    goal: float | None = None
    scale: float = 1.0


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


def rate(goal: float | None, what: str = "arrive") -> Figure:
    return Figure(what, lambda r: r["rate"], "k/s", True, goal, 1e-3)


def cpu(goal: float | None = None) -> Figure:
    return Figure("CPU each", lambda r: r["cpu_each"], "µs", False, goal)


def p50(goal: float | None = None) -> Figure:
    return Figure("p50", lambda r: r["latency"]["p50"], "µs", False, goal)


def p99(goal: float | None = None) -> Figure:
    return Figure("p99", lambda r: r["latency"]["p99"], "µs", False, goal)


LOST = Figure("lost", lambda r: r["lost_share"], "%", False, None, 100)

BEST = {"load": "best", "trial": "1s", "seconds": "3s", "grain": "0.03"}
QUICK_BEST = {"trial": "200ms", "warmup": "100ms", "seconds": "400ms", "grain": "0.08"}
QUICK = {"warmup": "200ms", "seconds": "600ms"}


def best(name: str, title: str, goal: float | None, plain: bool = False, **more: str) -> Load:
    figures = (rate(goal, "best rate"), cpu())
    return Load(name, title, BEST | more, figures, QUICK_BEST, plain)


def many(clients: int, each: int) -> Load:
    return Load(
        f"many-{clients}x{each}",
        f"{clients} clients, {each} packets/s each",
        {"load": "many", "clients": str(clients), "rate": str(each), "seconds": "10s"},
        (cpu(1.0), p50(1.0), p99(1.0), LOST),
        {"seconds": "1500ms", "warmup": "300ms"},
        in_quick=(clients, each) in {(200, 20), (1000, 5)},
    )


def steady(thousands: int) -> Load:
    return Load(
        f"cpu-{thousands}k",
        f"one pair at {thousands},000 packets/s",
        {"load": "rate", "rate": str(thousands * 1000)},
        (cpu(0.6), p50(), LOST),
        QUICK,
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
        (rate(6.0), LOST, cpu()),
        QUICK,
    ),
    Load("flat-1", "flat out, one pair", {"load": "flat"}, (rate(10.0), LOST, cpu()), QUICK),
    Load(
        "flat-8",
        "flat out, 8 pairs",
        {"load": "flat", "pairs": "8"},
        (rate(10.0), LOST, cpu()),
        QUICK,
    ),
    steady(10),
    steady(30),
    steady(100),
    Load("rtt", "one at a time, there and back", {"load": "rtt"}, (p50(1.0), p99(1.0)), QUICK),
    many(200, 5),
    many(200, 20),
    many(1000, 5),
    many(1000, 20),
    best("plain-1400", "no loss, one pair, plain HTTP", None, plain=True),
    best("packed-1400", "no loss, one pair, 11 packets a TLS record", None, pack="11"),
)
