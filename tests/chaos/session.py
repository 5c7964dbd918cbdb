"""Faults come to a relay in use, and its books have to balance.

    python -m tests.chaos.session [--seconds N] [--seed N] [--clients N] [--runs RUN...]
                                  [--into FILE]

Runs: `all` has every fault come to our relay with workers; `ours` those that the Go derper knows,
too, to one process of ours; `derper` the same to the Go derper. Ends with 1 if any book of ours did
not balance; it ends by itself in any case.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from types import FrameType

from bench.record import surroundings
from bench.servers import raise_descriptor_limit
from tests.chaos import files, outside, processes, resources, setting
from tests.chaos.crowd import CrowdError, crowd
from tests.chaos.fault import Fault
from tests.chaos.run import Run
from tests.chaos.stage import GROUPS, PLAIN_GROUPS, Member, Stage, cast
from tests.chaos.table import Outcome, into, origin, table
from tests.interop import golang

FAULTS: Mapping[str, type[Fault]] = {
    fault.name: fault
    for fault in (
        processes.KillWorker,
        processes.StopWorker,
        processes.KillRelay,
        processes.StopRelay,
        processes.StepClock,
        processes.FlapPeer,
        resources.FewDescriptors,
        resources.LittleMemory,
        resources.NoDisk,
        resources.BlockLog,
        outside.AdmissionAway,
        outside.TailnetAway,
        outside.AuthorityAway,
        files.ReplaceCertificate,
        files.ReplaceList,
        files.ChangePolicy,
    )
}
RUNS = ("all", "ours", "derper")
MORE_SECONDS = 900
"""How much longer than its schedule a run may take: for its start, and the waits after rounds."""


class Options(argparse.Namespace):
    seconds: float
    seed: int
    clients: int
    traffic: float
    churn: float
    runs: list[str]
    only: list[str]
    keep: Path | None
    into: Path | None


def parse() -> Options:
    parser = argparse.ArgumentParser(
        prog="chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=600.0, help="of faults, for each relay")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--clients", type=int, default=2000)
    parser.add_argument("--traffic", type=float, default=300.0, help="packets a second, of all")
    parser.add_argument("--churn", type=float, default=5.0, help="clients that leave in a second")
    parser.add_argument("--runs", nargs="+", default=["all"], choices=RUNS, help="see above")
    parser.add_argument("--only", nargs="+", default=[], choices=FAULTS, metavar="FAULT")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="for the logs")
    parser.add_argument("--into", type=Path, metavar="FILE", help="a page for the table")
    options = parser.parse_args(namespace=Options())
    if options.into:
        try:
            into(options.into.read_text(), "")
        except (OSError, ValueError) as error:
            parser.error(f"--into {options.into}: {error}")
    return options


def main() -> int:
    """Run what the command line asks for; return the exit code."""
    options = parse()
    # What was started is stopped, and what was mounted is taken away, on the way out.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    raise_descriptor_limit()
    try:
        binaries = golang.build()
    except golang.NoGoError as error:
        print(f"chaos: {error}")
        return 1
    print(f"repeat it with --seed {options.seed} --clients {options.clients}", flush=True)
    outcomes: dict[str, Outcome] = {}
    with tempfile.TemporaryDirectory(prefix="derper-chaos-") as temporary:
        work = options.keep or Path(temporary)
        for name, groups, set_stage in _relays(options, binaries):
            folder = work / name
            folder.mkdir(parents=True)
            outcomes[name] = _run(options, name, folder, groups, set_stage)
    made = table(outcomes)
    print(f"\n{made}\n")
    if options.into:
        busy = os.getloadavg()[2]
        about = origin(surroundings(), options.clients, options.seed, options.seconds, busy)
        options.into.write_text(into(options.into.read_text(), f"{made}\n\n{about}"))
    failures = [
        f"{name}: {line}"
        for name, outcome in outcomes.items()
        for line in outcome.failures
        if name != "derper"
    ]
    print("\n".join(failures) or "all books balance", flush=True)
    return bool(failures)


SetStage = Callable[[Path, Sequence[Member], random.Random], AbstractContextManager[Stage]]


def _relays(
    options: Options, binaries: Mapping[str, Path]
) -> Iterator[tuple[str, list[str], SetStage]]:
    """Yield the name of each run, the groups of its clients, and what sets its stage."""
    known: dict[str, tuple[list[str], SetStage]] = {
        "all": (GROUPS, partial(setting.full, binaries)),
        "ours": (PLAIN_GROUPS, partial(setting.plain, setting.OURS)),
        "derper": (PLAIN_GROUPS, partial(setting.plain, [str(binaries["derper"])])),
    }
    for name in dict.fromkeys(options.runs):
        yield name, *known[name]


def _run(
    options: Options, name: str, folder: Path, groups: list[str], set_stage: SetStage
) -> Outcome:
    chance = random.Random(options.seed)
    members = cast(options.clients, chance, groups)
    signal.signal(signal.SIGALRM, _too_late)
    signal.alarm(int(options.seconds) + MORE_SECONDS)
    outcome = Outcome()
    try:
        with set_stage(folder, members, chance) as stage:
            plan = {
                "seed": options.seed,
                "relays": [
                    (relay.host, relay.port, relay.hostname) for relay in (stage.relay, stage.peer)
                ],
                "clients": [
                    (member.private.hex(), stage.home(n), n in stage.belonging)
                    for n, member in enumerate(members)
                ],
                "traffic": options.traffic,
            }
            with crowd(folder, plan) as clients:
                known = _known(options, stage)
                run = Run(name, stage, clients, known, options.churn, outcome)
                run.play(options.seconds, options.seed)
    except (CrowdError, OSError, AssertionError) as error:
        outcome.failures.append(f"the run was broken off: {str(error).splitlines()[0]}")
    finally:
        signal.alarm(0)
    return outcome


def _known(options: Options, stage: Stage) -> dict[str, type[Fault]]:
    """Return the faults that this stage can have."""
    known = {name: fault for name, fault in FAULTS.items() if stage.workers or fault.go}
    if stage.workers and stage.clock is None:
        del known[processes.StepClock.name]
    if stage.workers and stage.state is None:
        print("no disk is taken away: no file system can be mounted here", flush=True)
        del known[resources.NoDisk.name]
    return {name: known[name] for name in options.only or known if name in known}


def _too_late(number: int, frame: FrameType | None) -> None:
    raise TimeoutError("it took too long, and was ended")


if __name__ == "__main__":
    sys.exit(main())
