"""One case with one relay: start all, send, and return what was seen."""

import contextlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench import peers
from bench.servers import BenchError
from bench.usage import cpu_seconds
from bench.wan.cable import CLOCK_PRIORITY, ahead
from bench.wan.figures import arrived, pings
from bench.wan.net import Net
from tests.interop.netns import Namespace
from tests.interop.relay import die_with_parent
from tests.interop.tailnet import Tailnet

TRAFFIC = Path(__file__).with_name("traffic.py")
SINK_PORT, ECHO_PORT = 9000, 9001
PING_INTERVAL = 0.02
IDLE_SECONDS = 2.0
WARM_UP_SECONDS = 3.0
"""After it a flow's first bursts are over at the longest round trip, too."""
END_SECONDS = 20


@dataclass
class Helper:
    """A traffic.py that runs."""

    what: str
    process: subprocess.Popen[str]

    def finish(self) -> Any:
        """End it, and return what it tells. Raises BenchError."""
        try:
            output, _ = self.process.communicate(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            raise BenchError(f"{self.what} does not end") from None
        if self.process.returncode:
            raise BenchError(f"{self.what} ended with {self.process.returncode}")
        return json.loads(output) if output else None


@contextlib.contextmanager
def helper(
    space: Namespace, what: str, host: str, port: int, *more: str, in_time: bool = False
) -> Iterator[Helper]:
    """Start traffic.py and wait until it is ready; `in_time` for one that looks at the clock."""
    process = subprocess.Popen(
        [*space.prefix, sys.executable, str(TRAFFIC), what, host, str(port), *more],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=partial(ahead, CLOCK_PRIORITY) if in_time else die_with_parent,  # noqa: PLW1509
    )
    try:
        assert process.stdout
        if process.stdout.readline() != "ready\n":
            raise BenchError(f"{what} did not start; it has said why")
        yield Helper(what, process)
    finally:
        process.kill()
        process.communicate()


def measure(net: Net, seconds: float) -> dict[str, Any]:
    """Return the figures of one case. Raises BenchError for what forbids to count it."""
    tailnet = net.tailnet
    assert tailnet.relay.process
    relay = tailnet.relay.process.pid
    here, there = net.listen, tailnet.bob.address()
    left, right = tailnet.alice.space, tailnet.bob.space
    before, dropped = peers.path_and_counters(tailnet), drops(tailnet)
    streams = str(net.case.streams)
    with (
        helper(right, "sink", here, SINK_PORT) as sink,
        helper(right, "echo", here, ECHO_PORT, in_time=True),
        helper(
            *(left, "ping", there, ECHO_PORT, str(PING_INTERVAL), *net.proxy), in_time=True
        ) as ping,
    ):
        idle = (time.monotonic() + 0.5, time.monotonic() + 0.5 + IDLE_SECONDS)
        sleep_until(idle[1])
        congestion = ("--congestion", net.case.congestion)
        with helper(left, "push", there, SINK_PORT, streams, *net.proxy, *congestion) as push:
            sleep_until(time.monotonic() + WARM_UP_SECONDS)
            begin, used, machine = time.monotonic(), cpu_seconds(relay), machine_seconds()
            sleep_until(begin + seconds)
            end, used_then, machine_then = time.monotonic(), cpu_seconds(relay), machine_seconds()
            check_congestion_control(net)
            push.finish()
        sent = ping.finish()
        samples = sink.finish()
    tailnet.relay.check_alive()
    after, dropped_then = peers.path_and_counters(tailnet), drops(tailnet)
    cables = net.emulator.finish()
    size = arrived(samples, begin, end)
    grown = {name: after[name] - before[name] for name in ("received", "sent")}
    paths = before["paths"] + after["paths"]
    fetched = {"error": "", "bytes": size, "sha256": ""}
    if found := peers.faults(fetched, size, "", paths, grown):
        raise BenchError("; ".join(found))
    if not size:
        raise BenchError("nothing arrived in the measured time")
    cpu = used_then - used
    busy, whole = (b - a for a, b in zip(machine, machine_then, strict=True))
    return {
        "seconds": end - begin,
        "bytes": size,
        "goodput_mbit": size * 8 / (end - begin) / 1e6,
        "idle": pings(sent, *idle),
        "loaded": pings(sent, begin, end),
        "relay_cpu": cpu / (end - begin),
        "cpu_s_per_gb": cpu / size * 1e9,
        "machine_busy": busy / whole,
        "relay_drops": {
            reason: count - dropped.get(reason, 0) for reason, count in dropped_then.items()
        },
        "emulator": emulation(cables),
        "cables": cables,
    }


def drops(tailnet: Tailnet) -> dict[str, int]:
    """Return how many packets the relay has dropped, by the reasons that it tells."""
    url = f"http://127.0.0.1:{tailnet.relay.http_port}/debug/varz"
    script = f"import urllib.request as u; print(u.urlopen({url!r}).read().decode())"
    page = tailnet.middle.run(sys.executable, "-c", script)
    found: dict[str, int] = {}
    for labels, count in re.findall(r"^derp_packets_dropped\{(.*)\} (\d+)$", page, re.MULTILINE):
        reason = re.findall(r'reason="(\w+)"', labels)[0]
        found[reason] = found.get(reason, 0) + int(count)
    return found


def check_congestion_control(net: Net) -> None:
    """Ask the kernel what the relay's connections have. Raises BenchError."""
    port = f"sport = :{net.tailnet.relay.port}"
    said = net.tailnet.middle.run("ss", "-tinH", "state", "established", port)
    kinds = [line.split() for line in said.splitlines() if line.startswith("\t")]
    if not kinds or any(net.case.congestion not in words for words in kinds):
        raise BenchError(f"the relay's connections do not use {net.case.congestion}: {said}")


def emulation(cables: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return whether the link was what was stated, as far as the emulator knows."""
    ways = [cable[way] for cable in cables for way in ("There", "Back")]
    packets = sum(way["Packets"] for way in ways)
    return {
        "late_share": sum(way["Late"] for way in ways) / max(1, packets),
        "latest_ms": max(way["LatestNanoseconds"] for way in ways) / 1e6,
        "lost_share": sum(way["Lost"] for way in ways) / max(1, packets),
        "dropped": sum(way["Dropped"] for way in ways),
        "refused": sum(cable["Refused"] for cable in cables),
    }


def machine_seconds() -> tuple[float, float]:
    """Return for how long all cores were in use, and how long there were any, in ticks."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    idle = fields[3] + fields[4]
    return sum(fields) - idle, sum(fields)


def sleep_until(when: float) -> None:
    time.sleep(max(0.0, when - time.monotonic()))
