"""The links alone: is what the emulator gives what was stated?

One link between two namespaces, with plain UDP and TCP over it.
"""

import contextlib
import time
from collections.abc import Iterator

from bench.wan.cable import Cable, Emulator, End, emulated
from bench.wan.cases import Case
from bench.wan.figures import arrived, pings
from bench.wan.measure import ECHO_PORT, PING_INTERVAL, SINK_PORT, emulation, helper, sleep_until
from tests.interop.netns import Namespace

CASES = tuple(
    Case("tun", rtt, rate, rate, loss, "cubic", 4)
    for rtt, rate, loss in ((4, 10, 0), (40, 10, 0), (40, 100, 0), (80, 100, 0.5), (4, 1000, 0))
)
HEAD = (
    *("stated: round trip, ms", "Mbit/s", "loss, %"),
    *("ping idle, ms", "goodput, Mbit/s", "ping p50 under load", "lost, %"),
    *("packets late, %", "latest, ms"),
)


def rows(seconds: float, seed: int) -> list[tuple[str, ...]]:
    """Return a table. Raises BenchError."""
    table: list[tuple[str, ...]] = [HEAD]
    for case in CASES:
        with _linked(case, seed) as (emulator, left, right):
            with (
                helper(right, "sink", "10.88.1.1", SINK_PORT) as sink,
                helper(right, "echo", "10.88.1.1", ECHO_PORT, in_time=True),
                helper(
                    *(left, "ping", "10.88.1.1", ECHO_PORT, str(PING_INTERVAL)), in_time=True
                ) as ping,
            ):
                idle = (time.monotonic(), time.monotonic() + 1)
                sleep_until(idle[1])
                with helper(left, "push", "10.88.1.1", SINK_PORT, str(case.streams)) as push:
                    sleep_until(time.monotonic() + 1)
                    begin = time.monotonic()
                    sleep_until(begin + seconds)
                    end = time.monotonic()
                    push.finish()
                sent = ping.finish()
                size = arrived(sink.finish(), begin, end)
            told = emulation(emulator.finish())
            quiet, loaded = pings(sent, *idle), pings(sent, begin, end)
            figures = (
                quiet["p50_ms"] or 0,
                size * 8 / (end - begin) / 1e6,
                loaded["p50_ms"] or 0,
                told["lost_share"] * 100,
                told["late_share"] * 100,
                told["latest_ms"],
            )
            stated = (str(case.rtt / 2), str(case.up), f"{case.loss:g}")
            table.append((*stated, *(f"{figure:.2f}" for figure in figures)))
    return table


@contextlib.contextmanager
def _linked(case: Case, seed: int) -> Iterator[tuple[Emulator, Namespace, Namespace]]:
    with contextlib.ExitStack() as stack:
        left, right = Namespace.make(), Namespace.make()
        for space in (left, right):
            stack.callback(space.close)
        ends = (
            End(left, "eth0", "10.88.1.2/24", "10.88.1.0/24"),
            End(right, "eth0", "10.88.1.1/24", "10.88.1.0/24"),
        )
        cable = Cable(ends, case.wire(case.up), case.congestion)
        emulator = stack.enter_context(emulated([cable], seed))
        yield emulator, left, right
