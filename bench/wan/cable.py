"""The emulator's process: cables of TUN devices between network namespaces."""

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.servers import BenchError
from bench.wan.cases import Wire
from tests.interop.netns import Namespace
from tests.interop.relay import die_with_parent

BENCH = Path(__file__).resolve().parents[1]
BINARY = BENCH / "bin" / "emulator"
STOP_SECONDS = 10
DEVICE = "eth{}"
QUEUE_PACKETS = 10_000
"""What the kernel keeps until the emulator reads it: never the shortest queue of a case."""
EMULATOR_PRIORITY, CLOCK_PRIORITY = 3, 2
"""Of SCHED_FIFO: what keeps the time goes before what is measured, or tells of the machine only."""


def build() -> None:
    """Build the emulator. Raises BenchError."""
    try:
        subprocess.run(["go", "build", "-o", str(BINARY), "./wan/emulator"], cwd=BENCH, check=True)
    except FileNotFoundError as error:
        raise BenchError("the emulator needs Go 1.26 or later to be built") from error
    except subprocess.CalledProcessError as error:
        raise BenchError("the emulator can't be built; Go has said why") from error


def ahead(priority: int) -> None:
    """For a child before it becomes its program: go before all others, where that is allowed."""
    die_with_parent()
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))


@dataclass(frozen=True)
class End:
    """One end of a cable: a device with an address in a namespace."""

    space: Namespace
    device: str
    address: str
    network: str
    default: str = ""
    """Where all else goes; nowhere if empty."""

    def told(self) -> dict[str, str]:
        return {"Namespace": f"/proc/{self.space.holder.pid}/ns/net", "Device": self.device}


@dataclass(frozen=True)
class Cable:
    """Two ends, and the wire from the first to the second; the way back has the same."""

    ends: tuple[End, End]
    wire: Wire
    congestion: str
    """The congestion control of TCP over it.

    The routes have it, and not the namespaces' sysctl, which takes only what the machine's own
    allows to everybody.
    """

    def told(self) -> dict[str, Any]:
        ends = [end.told() for end in self.ends]
        return {"Ends": ends, "There": self.wire.told(), "Back": self.wire.told()}


class Emulator:
    """One that runs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def finish(self) -> list[dict[str, Any]]:
        """End it, and the devices with it; return for each cable what became of the packets."""
        try:
            output, _ = self._process.communicate(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise BenchError("the emulator does not end") from None
        if self._process.returncode:
            raise BenchError(f"the emulator ended with {self._process.returncode}")
        reports: list[dict[str, Any]] = json.loads(output)
        return reports


@contextlib.contextmanager
def emulated(cables: Sequence[Cable], seed: int) -> Iterator[Emulator]:
    """Lay the cables, and take them away at the end. Raises BenchError."""
    network = {"Seed": seed, "Cables": [cable.told() for cable in cables]}
    process = subprocess.Popen(
        [str(BINARY), json.dumps(network)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: ahead(EMULATOR_PRIORITY),  # noqa: PLW1509 -- there are no threads
    )
    try:
        assert process.stdout
        if process.stdout.readline() != "ready\n":
            raise BenchError("the emulator did not start; it has said why")
        for end, congestion in ((end, one.congestion) for one in cables for end in one.ends):
            run, congctl = end.space.run, ("congctl", congestion)
            run("ip", "address", "add", end.address, "dev", end.device, "noprefixroute")
            # Without addresses of IPv6 nothing is sent before the other end is up.
            bare = ["mtu", "1500", "txqueuelen", str(QUEUE_PACKETS), "addrgenmode", "none"]
            run("ip", "link", "set", end.device, *bare)
            run("ip", "link", "set", end.device, "up")
            run("ip", "route", "add", end.network, "dev", end.device, *congctl)
            if end.default:
                run("ip", "route", "add", "default", "via", end.default, *congctl)
        yield Emulator(process)
    finally:
        process.kill()
        process.communicate()
