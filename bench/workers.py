"""One relay on both cores, which the load client shares with it: ours as several processes.

The kernel deals the processes their connections, at random; which of them has which, the client
reads from the kernel, too. The Go derper is one process, and uses both cores as it is.
"""

import contextlib
import socket
import ssl
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from bench.mesh import counters
from bench.servers import HOST, BenchError, Program, Running, free_port, last_line, running

OURS = "ours"
LIVING = "derper_workers"
"""The metric that a relay of one process has not."""
START_SECONDS = 20.0


@contextlib.contextmanager
def crew(
    program: Program, workers: int, cores: Collection[int], work: Path
) -> Iterator[list[Running]]:
    """Start a relay, wait until all of its processes serve, and stop it at the end.

    Connections that come before would all be dealt to the first one.
    """
    port = free_port(socket.SOCK_STREAM)
    more = flags(program.name, workers)
    with running(program, cores, work, port=port, more=more) as relays:
        # One that shows its certificate has shared it, or has made one to be shared.
        certificate = ssl.get_server_certificate((HOST, port), timeout=START_SECONDS)
        trusted = ssl.create_default_context(cadata=certificate)
        deadline = time.monotonic() + START_SECONDS
        while program.name == OURS and living(relays, trusted) != workers:
            if time.monotonic() > deadline:
                raise BenchError(f"not all workers live: {last_line(relays[0].log)}")
            time.sleep(0.05)
        yield relays


def living(relays: Sequence[Running], trusted: ssl.SSLContext) -> float:
    """Return how many processes serve, by the relay's own account."""
    (counter,) = counters(relays, trusted)
    return counter.get(LIVING, 1)


def flags(relay: str, workers: int) -> Sequence[str]:
    """Return what a relay has to be told."""
    return ("-workers", str(workers)) if relay == OURS else ()


def faults(relay: str, workers: int, extra: Mapping[str, float]) -> list[str]:
    """Return what forbids to count a load: processes other than those asked for.

    `extra` has means over all deals: one deal without one of them shows.
    """
    serving = workers if relay == OURS else 1
    # One that has workers is one process more, which serves nobody itself.
    processes = serving + 1 if serving > 1 else 1
    wanted = (("serving", "processes had clients", serving), ("processes", "processes", processes))
    return [
        f"{extra[name]:g} {what}, and should have been {count}"
        for name, what, count in wanted
        if extra[name] != count
    ]
