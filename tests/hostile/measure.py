"""One attack on one relay: started anew, alone on its core; attackers and victims on another.

The victims are a process of its own that goes before the attackers whenever it has something to
do. It sends a packet every 2 ms from one client to another, on a schedule that does not wait for
the relay; one that is lost counts as 10 s late.
"""

import contextlib
import dataclasses
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bench.servers import HOST, BenchError, Program, free_port, pinned, running
from bench.usage import cpu_seconds, pss
from tests.hostile.attacks import Attack, Door

REFUSING = Path(__file__).with_name("refusing.py")
SERVER_CORE, CLIENT_CORE = 0, 1
QUIET_SECONDS = 0.3
SAMPLE_SECONDS = 0.1
PATIENCE = 60.0
NICEST = 19
REFERENCE = 0.015
"""Seconds that `compute` takes on the slowest core for which docs/security.md promises 50 ms."""


@dataclasses.dataclass(frozen=True)
class Seen:
    """What became of requests of one kind; times in milliseconds."""

    sent: int
    lost: int
    p50: float
    p99: float
    max: float


@dataclasses.dataclass(frozen=True)
class Measured:
    """What an attack has come to."""

    quiet: Seen
    """The victims' packets before the attack."""
    pair: Seen
    """And during it."""
    stun: Seen
    logins: Seen
    """Those who came meanwhile, from another network than the attackers."""
    cpu: float
    """Seconds, of the relay, from the first byte until the victims' last packet had arrived."""
    seconds: float
    """How long that was."""
    memory: int
    """Of the relay before the attack, in bytes (PSS)."""
    growth: int
    """By how much it was more at most."""
    logged: int
    """Bytes in the log."""
    tracebacks: int
    waited: float
    """Seconds for which the relay could have run and was not let, by others on its core."""
    late: float
    """Milliseconds by which the victims themselves were late at most."""
    sent: int
    """Bytes that the attackers have sent, with the headers of IP and above."""
    attacked: float
    """Seconds that it took them."""
    opened: int
    ended: int
    """Connections of theirs, and of those the ones that the relay has ended."""
    admitted: int
    refused: int
    notes: Mapping[str, int]
    """What went wrong for attackers and victims, and how often."""
    slowness: float = 1.0
    """How many times as long as on the reference core a computation takes; 1 at least."""


def measure(program: Program, attack: Attack, load: Path, work: Path, seconds: float) -> Measured:
    """Attack a relay. Raises BenchError if it can't be done, or is the relay's end."""
    with contextlib.ExitStack() as stack:
        more: list[str] = []
        if attack.refused:
            admission = stack.enter_context(child([sys.executable, str(REFUSING)]))
            more = ["-verify-client-url", admission.line()]
        if attack.listed:
            more = [*more, "-proxy-protocol-from", attack.listed]
        metrics_door = f"{HOST}:{free_port(socket.SOCK_STREAM)}"
        if attack.door is Door.METRICS:
            more = [*more, "-metrics-addr", metrics_door]
        (relay,) = stack.enter_context(
            running(program, (SERVER_CORE,), work, plain=attack.plain, more=more)
        )
        where = ["-address", relay.address, *(["-plain"] if attack.plain else [])]
        at = where
        if attack.door is not None:
            socket_path = f"unix:{relay.log.with_name('derper.sock')}"
            door = metrics_door if attack.door is Door.METRICS else socket_path
            at = ["-address", door, "-plain"]
        asks = ["-stun", relay.stun] if attack.stun else []
        victims = stack.enter_context(child([str(load), "victim", *where, *asks], ahead=True))
        victims.expect("ready")
        if attack.refused:
            admission.say("refuse")
        attackers = stack.enter_context(
            child([str(load), "attack", *at, *arguments(attack, relay.stun, seconds)])
        )
        attackers.expect("ready")
        time.sleep(QUIET_SECONDS)
        logged = relay.log.stat().st_size
        slow = slowness()
        memory, waited = pss(relay.pid), not_let(relay.pid)
        begin, cpu = time.monotonic(), cpu_seconds(relay.pid)
        victims.say("begin")
        attackers.say("begin")
        most = memory
        while not attackers.has_said(SAMPLE_SECONDS):
            most = max(most, pss(relay.pid))
        attackers.expect("done")
        victims.say("end")
        told = json.loads(victims.line())
        cpu, lasted = cpu_seconds(relay.pid) - cpu, time.monotonic() - begin
        waited, most = not_let(relay.pid) - waited, max(most, pss(relay.pid))
        attackers.say("end")
        outcome = json.loads(attackers.line())
        log = relay.log.read_bytes()[logged:]
        return Measured(
            quiet=Seen(**told["quiet"]),
            pair=Seen(**told["pair"]),
            stun=Seen(**told["stun"]),
            logins=Seen(**told["logins"]),
            cpu=cpu,
            seconds=lasted,
            memory=memory,
            growth=most - memory,
            logged=len(log),
            tracebacks=log.count(b"Traceback"),
            waited=waited,
            late=told["late"],
            sent=outcome["sent"],
            attacked=outcome["seconds"],
            opened=outcome["opened"],
            ended=outcome["ended"],
            admitted=outcome["admitted"],
            refused=outcome["refused"],
            notes={
                **{f"attackers: {what}": n for what, n in outcome["notes"].items()},
                **{f"newcomers: {what}": n for what, n in told["kept_out"].items()},
                **{f"victims: {what}": n for what, n in told["broken"].items()},
            },
            slowness=slow,
        )


def arguments(attack: Attack, stun: str, seconds: float) -> list[str]:
    given = ["-name", attack.name, "-count", str(attack.count), "-rate", str(attack.rate)]
    given += ["-seconds", f"{attack.seconds or seconds}s", "-stun", stun]
    if attack.spread:
        given.append("-spread")
    return [*given, *(["-proxied"] if attack.listed else [])]


class Child:
    """A program that is told, and tells, line by line."""

    def __init__(self, process: "subprocess.Popen[bytes]", name: str) -> None:
        self._process = process
        self._name = name
        self._said = b""

    def say(self, word: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(f"{word}\n".encode())
            self._process.stdin.flush()

    def has_said(self, seconds: float) -> bool:
        """Wait for a while; return whether there is something to read."""
        return bool(self._said) or bool(select.select([self._process.stdout], [], [], seconds)[0])

    def line(self) -> str:
        """Return what it says next. Raises BenchError if that is nothing."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + PATIENCE
        while b"\n" not in self._said:
            if not self.has_said(max(0.0, deadline - time.monotonic())):
                raise BenchError(f"{self._name} says nothing for {PATIENCE:.0f} s")
            more = os.read(self._process.stdout.fileno(), 1 << 16)
            if not more:
                raise BenchError(f"{self._name}: {self._last_words()}")
            self._said += more
        line, _, self._said = self._said.partition(b"\n")
        return line.decode()

    def expect(self, word: str) -> None:
        if (said := self.line()) != word:
            raise BenchError(f"{self._name} says {said!r} in place of {word!r}")

    def _last_words(self) -> str:
        assert self._process.stderr is not None
        lines = self._process.stderr.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it has ended without a word"


@contextlib.contextmanager
def child(command: Sequence[str], *, ahead: bool = False) -> Iterator[Child]:
    """Start a program on the clients' core, and end it."""

    def prepare() -> None:
        pinned((CLIENT_CORE,), ahead=ahead)
        if not ahead and os.geteuid() != 0:
            # Where victims can't be put before others, attackers are put behind.
            os.nice(NICEST)

    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=prepare,  # noqa: PLW1509 -- there are no threads
    ) as process:
        try:
            yield Child(process, command[1])
        finally:
            process.kill()


def compute() -> int:
    return sum(number * number for number in range(200_000))


def slowness() -> float:
    """Return how many times as long as on the reference core a computation takes; 1 at least."""
    took = []
    for _ in range(5):
        begin = time.perf_counter()
        compute()
        took.append(time.perf_counter() - begin)
    return max(1.0, min(took) / REFERENCE)


def not_let(pid: int) -> float:
    """Return for how long a process has had to wait for its core, or a hypervisor kept that."""
    _ran, waited, _slices = Path(f"/proc/{pid}/schedstat").read_text().split()
    return int(waited) / 1e9 + stolen()


def stolen() -> float:
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name == f"cpu{SERVER_CORE}":
            return int(fields[7]) / os.sysconf("SC_CLK_TCK")
    return 0.0
