"""One storm on one relay: started anew, alone on its core; the crowd and what is asked on another.

Two clients have been there before the crowd comes: one sends the other a packet every 2 ms, as in
tests/hostile.
"""

import contextlib
import http.client
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.servers import Program, Running, running
from bench.usage import cpu_seconds, pss
from tests.hostile.measure import SERVER_CORE, Seen, child, not_let
from tests.process import insecure
from tests.storms.crowd import crowd
from tests.storms.sources import Count, sources
from tests.storms.storms import Storm

SAMPLE_SECONDS = 0.25
SETTLE_SECONDS = 0.5
PATIENCE = 30.0


@dataclass(frozen=True)
class Kind:
    """What became of those that belong, or of the strangers."""

    count: int
    here: int
    """How many are in at the end."""
    ever: int
    most: int
    """How many have been in, and how many at once at most."""
    lost: int
    """Connections that the relay has ended after the login."""
    refused: Mapping[str, int]
    """How tries ended that came to nothing, and how often each did."""
    tries: int
    """How many the one had to make that had to make most, until it was in."""
    half: float
    most_of_them: float
    last: float
    """Seconds until half, 99 of 100 and all of them had been in; 0 for never."""

    @property
    def refusals(self) -> int:
        return sum(self.refused.values())


@dataclass(frozen=True)
class Measured:
    """What a storm has come to."""

    belong: Kind
    strangers: Kind
    pair: Seen
    """The packets of those who have been there before, during the storm."""
    asked: Sequence[Count]
    cpu: float
    """Seconds, of the relay."""
    memory: int
    """Of the relay before the storm, and its peak, in bytes (PSS)."""
    peak: int
    waited: float
    """Seconds for which the relay could have run and was not let, by others on its core."""
    late: float
    """Milliseconds by which those two were late themselves."""
    ends: Mapping[str, int]
    """How many connections our relay has ended, by reason, and verdicts by source and outcome."""
    tracebacks: int
    broken: Mapping[str, int]


def measure(program: Program, storm: Storm, load: Path, work: Path) -> Measured:
    """Have a storm. Raises BenchError if it can't be, or is the relay's end."""
    folder = work / f"{storm.id}-{program.name}-{time.monotonic_ns()}"
    folder.mkdir()
    watched = crowd(2, 0)
    comers = crowd(storm.count, storm.strangers)
    keys = [comer.public for comer in (*watched, *comers) if comer.belongs]
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(sources(storm, keys, load, folder))
        (relay,) = stack.enter_context(
            running(program, (SERVER_CORE,), work, more=list(source.flags))
        )
        where = ["-address", relay.address]
        who = [
            f"-{name}={bytes(one.private).hex()}"
            for name, one in zip(("from", "to"), watched, strict=True)
        ]
        pair = stack.enter_context(child([str(load), "victim", *where, *who, "-alone"], ahead=True))
        pair.expect("ready")
        limits = ["-limit", f"{storm.limit}s", "-settle", f"{SETTLE_SECONDS}s"]
        storming = stack.enter_context(child([str(load), "storm", *where, *limits]))
        for comer in comers:
            storming.say(comer.line)
        storming.say("ready?")
        storming.expect("ready")
        memory, waited, cpu = pss(relay.pid), not_let(relay.pid), cpu_seconds(relay.pid)
        peak = memory
        pair.say("begin")
        storming.say("begin")
        deadline = time.monotonic() + storm.limit + PATIENCE
        while not storming.has_said(SAMPLE_SECONDS) and time.monotonic() < deadline:
            peak = max(peak, pss(relay.pid))
        storming.expect("done")
        peak = max(peak, pss(relay.pid))
        cpu, waited = cpu_seconds(relay.pid) - cpu, not_let(relay.pid) - waited
        pair.say("end")
        told = json.loads(pair.line())
        ends = reasons(relay)
        storming.say("end")
        kinds = json.loads(storming.line())
        return Measured(
            belong=kind(kinds["in"]),
            strangers=kind(kinds["out"]),
            pair=Seen(**told["pair"]),
            asked=source.counts(),
            cpu=cpu,
            memory=memory,
            peak=peak,
            waited=waited,
            late=told["late"],
            ends=ends,
            tracebacks=relay.log.read_bytes().count(b"Traceback"),
            broken=told["broken"],
        )


def kind(told: Mapping[str, Any]) -> Kind:
    return Kind(
        count=told["count"],
        here=told["in"],
        ever=told["ever"],
        most=told["most"],
        lost=told["lost"],
        refused=told["refused"],
        tries=told["tries"],
        half=told["half"],
        most_of_them=told["p99"],
        last=told["all"],
    )


SHOWN = re.compile(r"^\S*(?:connection_ends|admissions)\S*\{(.*)\} (\d+)$", re.MULTILINE)


def reasons(relay: Running) -> dict[str, int]:
    """Return why our relay has ended connections, and the outcomes of asking.

    The Go derper counts none of that.
    """
    host, _, port = relay.address.partition(":")
    connection = http.client.HTTPSConnection(host, int(port), context=insecure(), timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.request("GET", "/debug/varz")
        page = connection.getresponse().read().decode()
    found = ((labels.replace('"', ""), int(count)) for labels, count in SHOWN.findall(page))
    return {labels: count for labels, count in found if count}
