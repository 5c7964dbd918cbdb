"""Measure this relay beside the Go derper: the same loads, in alternation, on the same machine.

How it is done
  One relay (or one mesh of two) runs at a time, started anew for every load and pinned to one
  core; the load client, a Go program in load/, is pinned to another. Each round puts every load on
  both relays, one right after the other, and every second round in the other order. The figures
  are medians over the rounds, with half of the range as the spread; a ratio is the median of the
  rounds' own ratios.

  CPU time is that of the relay's own process with all threads and descendants, read from the
  kernel by the client at the very beginning and end of the measured time.

What keeps it honest
  - Both relays run at the highest priority (nice -20, where that is allowed), and so does the
    client: what else the machine does shall not be what loses a packet.
  - Both relays get the same flags, the same kind of certificate (copies of one P-256 pair), the
    same client and the same limits. Neither is tuned, and both log to a file.
  - The client sends as tailscaled does: one packet a frame, one frame a TLS 1.3 record, fast
    start. Bigger records would help ours; a load of its own shows by how much.
  - Every byte that arrives is checked, and so are sender, order and number of the packets. A
    wrong byte, a wrong order, a duplicate or a lost connection fails the load: no figure then.
  - Senders are paced as evenly as can be: a burst would fill the Go derper's queue of 32 packets.
    Where the client falls behind its schedule it leaves packets out, and the rate it reports is
    what it did offer. "No loss" means that not one packet of a run was lost; a rate gets three
    tries before it counts as too high, on both sides, since the machine may have had something
    else to do. What is reported is what arrived in a confirming run.
  - Is the client what limits a rate? The columns "cores" give the share of its core that each side
    was busy, s for the server and c for the client, which spins and counts the time in which it
    found nothing to do. A relay at 100 % beside a client below it is what was measured. `--ceiling`
    adds what the client reaches with a relay that does next to nothing (load/mirror.go).
  - One load has no load client: two real tailscaled, in network namespaces that only the relay
    joins, move 200 MB of TCP. Everything but the relay shares the client's core. It counts only if
    the SHA-256 is right at the far end, tailscaled says that its way is the relay, and the relay's
    own counters grew by as much. Where that can't be done, a line below the table says why.
  - A load across a mesh has two relays of one kind, both on the server's core: senders at one,
    receivers at the other, and CPU time is that of both. It counts only if the relays' own counters
    of forwarded packets say that all that arrived went from the one to the other, once.
  - In a load of workers, one relay has both cores, and the client shares them with it: the Go
    derper as it is, ours as several processes (`-workers`). The client does not spin then, but
    sleeps for 0.1 ms between two looks, and goes before either relay when it has something to do,
    so that it offers what it should; the table says what share of both cores it takes. The kernel
    deals the processes their clients at random, and a packet between two of them costs more: the
    table says how many pairs were dealt so. The closed loop takes the mean over eight deals. The
    search for the best rate has a new deal for each of its three tries of a rate: it finds what a
    good deal can do.
  - A load of queues (--only queues) has receivers that take less than they are sent. What waits for
    them shall wait in the relay: they have little room in the kernel, and the table says how much
    the kernel held on both sides of the connection all the same. Senders do not slow down.
  - What other processes took of the two cores is measured, and said below the table. Failed tries
    during which they did are repeated. Figures that count are made on a machine without others.

Results, with versions, commit and machine, go to a JSON file; tables and plots are made from that:
`--table FILE --into docs/speed.md` puts them into a page without measuring anything. By hand it is
run as `python -m bench.run`, from the project's folder.
"""

import argparse
import contextlib
import json
import os
import shlex
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from bench import mesh, plot, record, report, workers
from bench.loads import GROWTH, LOADS, Load
from bench.record import HERE, ROOT, said
from bench.servers import (
    BenchError,
    Program,
    Running,
    pinned,
    raise_descriptor_limit,
    resolved,
    running,
)

PEERS = (sys.executable, "-m", "bench.peers")
LOAD_SECONDS = 300
BUILD_SECONDS = 1200
DISTURBED = 0.02
GROUPS = {load.group for load in LOADS} - {""}
SUSPICIOUS = ("traceback", "error", "exception", "panic", "fatal", "warning")
EXPECTED = "any client may use this relay"
"""A warning of ours at the start, which may come when the load has begun."""


def main() -> int:
    options = parse(sys.argv[1:])
    return record.exit_code("bench", lambda: measure(options), BenchError)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="loads: "
        + ", ".join(load.name for load in LOADS)
        + "; groups of them: "
        + ", ".join(sorted(GROUPS)),
    )
    parser.add_argument(
        "--ours",
        default=f"{sys.executable} -m derp",
        metavar="COMMAND",
        help="our relay (default: this Python's `-m derp`)",
    )
    parser.add_argument(
        "--ours-tree", default=str(ROOT), metavar="DIR", help="where that command runs"
    )
    parser.add_argument(
        "--theirs", default="derper", metavar="COMMAND", help="the Go derper (default: in PATH)"
    )
    parser.add_argument("--quick", action="store_true", help="a first look, under two minutes")
    parser.add_argument("--rounds", type=int, metavar="N", help="default: 5; with --quick 1")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        help="only this load or group; repeatable",
    )
    parser.add_argument("--skip", action="append", default=[], metavar="NAME", help="all but this")
    parser.add_argument(
        "--growth", action="store_true", help="how cost grows: clients, sizes, destinations"
    )
    parser.add_argument(
        "--ceiling", action="store_true", help="also find out how much the client itself can do"
    )
    parser.add_argument(
        "--server",
        choices=["ours", "theirs", "mirror"],
        help="only this relay, for profiling: see --load and --seconds; tells the process id",
    )
    parser.add_argument("--load", metavar="NAME", help="the same as --only NAME")
    parser.add_argument(
        "--seconds", type=float, metavar="S", help="measured time of each load, in place of its own"
    )
    parser.add_argument("--server-core", type=int, default=0, metavar="N")
    parser.add_argument("--client-core", type=int, default=1, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE", help="default: in results/")
    parser.add_argument("--table", type=Path, metavar="FILE", help="only print a file's table")
    parser.add_argument(
        "--plots", type=Path, metavar="DIR", help="draw the results of --growth there, as SVG"
    )
    parser.add_argument(
        "--into",
        type=Path,
        metavar="FILE",
        help=f"put the results between {report.BEGIN} and {report.END} in a Markdown file",
    )
    options = parser.parse_args(arguments)
    if options.load:
        options.only.append(options.load)
    known = {load.name for load in (*LOADS, *GROWTH)} | GROUPS
    for name in options.only + options.skip:
        if name not in known:
            parser.error(f"there is no load {name!r}; there are {', '.join(sorted(known))}")
    if options.into:
        # Before anything is measured: it would be for nothing.
        try:
            report.around_marks(options.into.read_text())
        except (OSError, ValueError) as error:
            parser.error(f"--into {options.into}: {error}")
    if options.rounds is None:
        options.rounds = 1 if options.quick or options.server else 5
    return options


def measure(options: argparse.Namespace) -> int:
    if options.table:
        document = json.loads(options.table.read_text())
        show((*LOADS, *GROWTH), document, options)
        return 0
    raise_descriptor_limit()
    check_cores(options)
    chosen = choose(options)
    client = build_client()
    programs = choose_programs(options, client)
    remarks: list[str] = []
    if any(load.peers for load in chosen) and (lacking := build_peers()):
        remarks += [f"{load.name} left out, no figure: {lacking}" for load in chosen if load.peers]
        chosen = [load for load in chosen if not load.peers]
    found = record.Record([program.name for program in programs])
    about = describe(options, programs)
    with tempfile.TemporaryDirectory(prefix="derp-bench-") as directory:
        for number in range(options.rounds):
            order = programs if number % 2 == 0 else programs[::-1]
            for load in chosen:
                if number >= load.most_rounds:
                    continue
                for program in order:
                    if load.ours_only and program.name != workers.OURS:
                        continue
                    if program.name == "mirror" and not (load.has_ceiling and number == 0):
                        continue
                    where = f"round {number + 1}, {load.name}, {program.name}"
                    try:
                        result = one(program, load, client, options, Path(directory), remarks)
                    except BenchError as error:
                        found.fail(where, error)
                        continue
                    found.add(load.name, program.name, number + 1, result)
                    print(f"{where}: {brief(load, result)}", file=sys.stderr)
    if disturbed := report.disturbances(found.results, DISTURBED):
        remarks.append("not alone: other processes used a core during " + disturbed)
    document = found.document(about, remarks=sorted(set(remarks)))
    path = record.save(document, options.json)
    show(chosen, document, options)
    for line in [*document["failures"], *document["remarks"]]:
        print(f"! {line}")
    return record.end(document, path)


def show(loads: Sequence[Load], document: Any, options: argparse.Namespace) -> None:
    results = document["results"]
    print(report.render(report.rows(loads, results)))
    if options.plots:
        options.plots.mkdir(parents=True, exist_ok=True)
        for name, drawing in plot.sweeps(loads, results):
            (options.plots / name).write_text(drawing)
    if options.into:
        options.into.write_text(report.into(options.into.read_text(), document, loads))


def choose(options: argparse.Namespace) -> list[Load]:
    if options.only:
        return [load for load in (*LOADS, *GROWTH) if load.is_among(options.only)]
    return [
        load
        for load in (GROWTH if options.growth else LOADS)
        if not load.is_among(options.skip) and (load.in_quick or not options.quick)
    ]


def choose_programs(options: argparse.Namespace, client: Path) -> list[Program]:
    commands = {
        "theirs": (shlex.split(options.theirs), ROOT),
        "ours": (shlex.split(options.ours), Path(options.ours_tree).resolve()),
        "mirror": ([str(client), "mirror"], ROOT),
    }
    if options.server:
        names = [options.server]
    else:
        names = ["theirs", "ours", "mirror"] if options.ceiling else ["theirs", "ours"]
    programs = []
    for name in names:
        command, directory = commands[name]
        programs.append(Program(name, resolved(f"--{name} ", command), directory))
    return programs


def check_cores(options: argparse.Namespace) -> None:
    there = os.sched_getaffinity(0)
    if options.server_core == options.client_core:
        raise BenchError("--server-core and --client-core: want two different cores")
    for core in (options.server_core, options.client_core):
        if core not in there:
            raise BenchError(f"core {core} is not there; there are {sorted(there)}")


def build_client() -> Path:
    binary = HERE / "bin" / "load"
    try:
        subprocess.run(["go", "build", "-o", str(binary), "./load"], cwd=HERE, check=True)
    except FileNotFoundError as error:
        raise BenchError("the load client needs Go 1.26 or later to be built") from error
    except subprocess.CalledProcessError as error:
        raise BenchError("the load client can't be built; Go has said why") from error
    return binary


def build_peers() -> str:
    """Build what the load of real peers needs; return why that can't be had here, if it can't."""
    binaries = HERE / "bin"
    print("bench: building tailscaled; the first time takes minutes", file=sys.stderr)
    done = subprocess.run(
        [*PEERS, "build", str(binaries)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS,
        check=False,
    )
    return last_words(done) if done.returncode else ""


def one(
    program: Program,
    load: Load,
    client: Path,
    options: argparse.Namespace,
    directory: Path,
    remarks: list[str],
) -> Any:
    """Start a relay, put one load on it, stop it; return what the client found."""
    put = transfer if load.peers else put_load
    done, said_meanwhile = put(program, load, client, options, directory)
    remarks += [
        f"{program.name} said during {load.name}: {line[:160]}"
        for line in said_meanwhile.splitlines()
        if any(word in line.lower() for word in SUSPICIOUS) and EXPECTED not in line
    ]
    if done.returncode:
        raise BenchError(last_words(done))
    result = json.loads(done.stdout)
    if result.get("errors"):
        raise BenchError("; ".join(result["errors"][:3]))
    for note, count in (result.get("notes") or {}).items():
        remarks.append(f"{program.name} told its clients during {load.name}: {note} ({count})")
    return result


def put_load(
    program: Program, load: Load, client: Path, options: argparse.Namespace, directory: Path
) -> tuple[subprocess.CompletedProcess[str], str]:
    """Start the relay, or both, and the load client; return how that ended.

    And what was logged meanwhile: not before, as when one relay is up and the other is not yet, nor
    behind. Raises BenchError also where a mesh's packets went another way, or the relay's processes
    are not those that it should have.
    """
    arguments = dict(load.arguments)
    if options.quick:
        arguments |= load.quick
    if options.seconds:
        arguments["seconds"] = f"{options.seconds}s"
    both = (options.server_core, options.client_core)
    cores, client_cores = (both, both) if load.workers else ((both[0],), (both[1],))
    with start(program, load, cores, directory) as relays:
        command = [str(client), "-address", relays[0].address, "-stun", relays[0].stun]
        for relay in relays:
            command += ["-pid", str(relay.pid)]
            if options.server:
                print(f"{program.name} is process {relay.pid}", file=sys.stderr)
        command += [f"-server-core={options.server_core}", f"-client-core={options.client_core}"]
        if load.plain:
            command.append("-plain")
        if load.mesh:
            command += ["-second", relays[1].address]
        if load.workers:
            command.append("-shared")
        command += [f"-{name}={value}" for name, value in arguments.items()]
        logged = [relay.log.stat().st_size for relay in relays]
        done = run_pinned(command, client_cores, ahead=bool(load.workers))
        if not done.returncode and (found := faults(program, load, done.stdout, relays, directory)):
            raise BenchError("; ".join(found))
        ends = (relay.log.read_bytes()[n:] for relay, n in zip(relays, logged, strict=True))
        return done, b"".join(ends).decode(errors="replace")


def start(
    program: Program, load: Load, cores: Collection[int], directory: Path
) -> contextlib.AbstractContextManager[list[Running]]:
    """Return what starts the relay, or both, as the load wants it."""
    if load.mesh:
        return mesh.meshed(program, cores, directory)
    if load.workers:
        return workers.crew(program, load.workers, cores, directory)
    return running(program, cores, directory, plain=load.plain, more=load.flags)


def faults(
    program: Program, load: Load, output: str, relays: Sequence[Running], directory: Path
) -> list[str]:
    """Return what the load client can't know, and forbids to count what it has found."""
    result = json.loads(output)
    if load.mesh:
        trusted = ssl.create_default_context(cafile=directory / mesh.CERTIFICATE)
        return mesh.faults(result, *mesh.counters(relays, trusted))
    if load.workers and not result.get("errors"):
        return workers.faults(program.name, load.workers, result["extra"])
    return []


def transfer(
    program: Program, load: Load, _client: Path, options: argparse.Namespace, directory: Path
) -> tuple[subprocess.CompletedProcess[str], str]:
    """Let peers.py start the relay and two tailscaled; return how that ended, and the log."""
    folder = Path(tempfile.mkdtemp(dir=directory))
    command = [*PEERS, "transfer", "--binaries", str(HERE / "bin")]
    command += ["--folder", str(folder), "--directory", str(program.directory)]
    command += [f"--server-core={options.server_core}", f"--client-core={options.client_core}"]
    command += [f"--{name}={value}" for name, value in load.arguments.items()]
    command += [f"--name={program.name}", "--", *program.command]
    log = folder / "relay.log"
    log.touch()
    done = run_pinned(command, (options.client_core,), show_stderr=bool(options.server))
    return done, log.read_text(errors="replace")


def run_pinned(
    command: Sequence[str],
    cores: Collection[int],
    *,
    ahead: bool = False,
    show_stderr: bool = False,
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=None if show_stderr else subprocess.PIPE,
            text=True,
            timeout=LOAD_SECONDS,
            preexec_fn=lambda: pinned(cores, ahead=ahead),
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"the client did not end within {LOAD_SECONDS} s") from error


def last_words(done: subprocess.CompletedProcess[str]) -> str:
    lines = (done.stderr or "").strip().splitlines()
    return lines[-1] if lines else "no result"


def brief(load: Load, result: Any) -> str:
    figures = (
        f"{figure.what} {report.number(figure.get(result) * figure.scale)} {figure.unit}"
        for figure in load.figures
    )
    return ", ".join(figures) + f" ({report.use([result])})"


def describe(options: argparse.Namespace, programs: Sequence[Program]) -> dict[str, Any]:
    """Return what the figures were measured with: commit, versions, machine."""
    about = record.surroundings() | {
        "client": said(["go", "version"]),
        "quick": options.quick,
        "rounds": options.rounds,
        "command": report.command(sys.argv[1:]),
    }
    for program in programs:
        about[program.name] = said([*program.command, "-version"], program.directory)
    ours = shlex.split(options.ours)
    if Path(ours[0]).name.startswith("python"):
        code = "import trio; print(trio.__version__)"
        about["trio"] = said([ours[0], "-c", code])
    return about


if __name__ == "__main__":
    sys.exit(main())
