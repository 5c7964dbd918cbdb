"""Measure relays under two real tailscaled, over an emulated wide-area link.

How it is done
  Each case has its own network namespaces: one for each tailscaled, one for the relay and the
  control server. Two links join them: pairs of TUN devices between which a program of ours
  (emulator/) carries each packet, with a delay, a rate, a drop-tail buffer and random loss each
  way. The relay is the only way from node to node. One relay after the other, each started anew,
  every second round in the other order, with the same losses drawn.

  A bulk flow of one or four TCP streams goes from one node to the other, over the tailnet. Beside
  it, and before it, a UDP packet each 20 ms is sent back by the other. Goodput is counted where it
  arrives, from three seconds after the start.

What a case's name says
  tun or userspace   tailscaled with a TUN device, or without, through its SOCKS5 proxy
  40ms               the round trip from node to node; half of it is to the relay
  100mbit            the rate of both links; 100to10mbit: of the sender's and of the receiver's
  loss0.5            per cent of the packets that each link loses, each way
  cubic or bbr       the congestion control of all three hosts
  x4                 how many streams the bulk flow has

  A link's buffer has what its rate brings in one round trip, but at least 20 ms of it and 30 kB.

What keeps it honest
  There is a figure only if tailscaled says before and after that its way is the relay, and if the
  relay has counted as many bytes. A lost ping counts as slower than all others. The emulator tells
  how many packets it delivered more than a millisecond late: where it was more than one in a
  hundred, or the machine had no time left, it is said below the table. `--check` measures the
  links alone.

It needs root, network namespaces and TUN devices. When it ends, all that it started is gone.
"""

import argparse
import contextlib
import json
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import trustme

from bench import peers, record
from bench.record import first_line, said
from bench.report import around_marks, render
from bench.run import last_words
from bench.servers import BenchError, resolved
from bench.wan import cable, check, plot, table
from bench.wan.cases import QUICK, Case, choose
from bench.wan.measure import measure
from bench.wan.net import network
from tests.interop import golang
from tests.interop.netns import NoNamespacesError, check_possible
from tests.interop.relay import TestCA

BINARIES = record.HERE / "bin" / "wan"
NEEDS = ("osrouter",)
"""What tailscaled must have for a TUN device, and has not elsewhere in the tests."""
BEGIN, END = "<!-- wan -->", "<!-- /wan -->"
OVERHEAD_SECONDS = 16
FAULTS = (BenchError, AssertionError, OSError, subprocess.SubprocessError)
"""What may go wrong in one case, and need not in the next."""
AVAILABLE = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")


def main() -> int:
    options = parse(sys.argv[1:])
    expected = BenchError, NoNamespacesError, golang.NoGoError, RuntimeError
    return record.exit_code("bench.wan", lambda: act(options), *expected)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.wan.run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--relay",
        action="append",
        metavar="NAME=COMMAND",
        help="a relay to measure; repeatable, the first is the one that is judged (default:"
        " `ours` is this Python's `-m derp`, `derper` the Go derper in PATH). An older tree:"
        " --relay 'older=env --chdir=TREE TREE/.venv/bin/python -m derp'",
    )
    parser.add_argument(
        "--case", action="append", default=[], metavar="PATTERN", help="as a shell's; repeatable"
    )
    parser.add_argument("--quick", action="store_true", help="four cases")
    parser.add_argument("--list", action="store_true", help="only tell the cases, and how long")
    parser.add_argument("--check", action="store_true", help="measure the links without a relay")
    parser.add_argument("--rounds", type=int, default=1, metavar="N")
    parser.add_argument("--seconds", type=float, default=8, metavar="S", help="default: 8 a case")
    parser.add_argument(
        "--buffer-ms", type=float, metavar="MS", help="of a link's rate (default: see above)"
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the losses")
    parser.add_argument("--older", default="older", metavar="NAME", help="whose goodput to reach")
    parser.add_argument("--theirs", default="derper", metavar="NAME", help="whose ping to reach")
    parser.add_argument(
        "--binaries", type=Path, metavar="DIR", help="with tailscaled and derpcheck, built there"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="default: in bench/results/")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="the table goes there, too")
    parser.add_argument(
        "--into",
        type=Path,
        metavar="FILE",
        help=f"the table goes between {BEGIN} and {END} of a Markdown file",
    )
    parser.add_argument("--plots", type=Path, metavar="DIR", help="draw the results there, as SVG")
    parser.add_argument("--table", type=Path, metavar="FILE", help="only print a file's table")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where all logs stay")
    options = parser.parse_args(arguments)
    try:
        options.cases = choose([*options.case, *(QUICK if options.quick else ())])
        options.relays = relays(options.relay)
        if options.into:
            # Before anything is measured: it would be for nothing.
            around_marks(options.into.read_text(), BEGIN, END)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    return options


def relays(given: Sequence[str] | None) -> dict[str, list[str]]:
    """Return the commands by name. Raises ValueError."""
    found: dict[str, list[str]] = {}
    for one in given or (f"ours={shlex.quote(sys.executable)} -m derp", "derper=derper"):
        name, equals, command = one.partition("=")
        words = shlex.split(command)
        if not (name and equals and words):
            raise ValueError(f"--relay {one}: want NAME=COMMAND")
        if name in found:
            raise ValueError(f"--relay {one}: there are two of that name")
        found[name] = words
    return found


def act(options: argparse.Namespace) -> int:
    if options.table:
        show(json.loads(options.table.read_text()), options)
        return 0
    if options.list:
        each = options.seconds + OVERHEAD_SECONDS
        minutes = len(options.cases) * len(options.relays) * options.rounds * each / 60
        print("\n".join(case.name for case in options.cases))
        print(f"{len(options.cases)} cases, {len(options.relays)} relays: {minutes:.0f} minutes")
        return 0
    check_machine()
    cable.build()
    if options.check:
        print(render(check.rows(options.seconds, options.seed)))
        return 0
    options.relays = {
        name: resolved(f"--relay {name}=", words) for name, words in options.relays.items()
    }
    cases, left_out = with_congestion_control(options.cases)
    binaries = find_binaries(options.binaries)
    return measure_all(options, cases, left_out, binaries)


def check_machine() -> None:
    """Raises NoNamespacesError, saying what can't be had here."""
    check_possible(("ip", "ss", "unshare", "nsenter", "env"))
    tried = subprocess.run(
        ["unshare", "--net", "--", "ip", "tuntap", "add", "dev", "eth0", "mode", "tun"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if tried.returncode:
        raise NoNamespacesError(f"there are no TUN devices: {last_words(tried)}")


def with_congestion_control(cases: Sequence[Case]) -> tuple[list[Case], list[str]]:
    """Return the cases that this kernel can do, and a line for those that it can't.

    Raises BenchError where none is left.
    """
    if shutil.which("modprobe"):
        subprocess.run(["modprobe", "-q", "tcp_bbr"], check=False)
    there = AVAILABLE.read_text().split()
    kept = [case for case in cases if case.congestion in there]
    lacking = sorted({case.congestion for case in cases} - set(there))
    lines = [f"left out, for this kernel has no {name}: all cases with it" for name in lacking]
    for line in lines:
        print(f"bench.wan: {line}", file=sys.stderr)
    if not kept:
        raise BenchError("no case is left")
    return kept, lines


def find_binaries(folder: Path | None) -> dict[str, Path]:
    """Build tailscaled and its helper, unless they are given. Raises BenchError and build's."""
    if folder is None:
        folder = BINARIES
        folder.mkdir(parents=True, exist_ok=True)
        print("bench.wan: building tailscaled; the first time takes minutes", file=sys.stderr)
        peers.build(folder, NEEDS)
    binaries = {name: folder.resolve() / name for name in (*peers.PACKAGES, "tailscale")}
    if missing := [name for name, path in binaries.items() if not path.exists()]:
        raise BenchError(f"{folder} has no {', '.join(missing)}")
    return binaries


def measure_all(
    options: argparse.Namespace,
    cases: Sequence[Case],
    left_out: Sequence[str],
    binaries: dict[str, Path],
) -> int:
    found = record.Record(list(options.relays), left_out)
    about = record.surroundings() | {
        "rounds": options.rounds,
        "seconds": options.seconds,
        "buffer_ms": options.buffer_ms,
        "seed": options.seed,
        "relays": {name: said([*words, "-version"]) for name, words in options.relays.items()},
        "commands": {name: shlex.join(words) for name, words in options.relays.items()},
    }
    with contextlib.ExitStack() as stack:
        folder = options.keep
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="derp-wan-")))
        folder = folder.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        ca = TestCA(trustme.CA(key_type=trustme.KeyType.ECDSA), folder / "ca.pem")
        ca.ca.cert_pem.write_to_path(ca.pem)
        for number in range(1, options.rounds + 1):
            order = list(options.relays)
            order = order if number % 2 else order[::-1]
            for case in cases:
                for name in order:
                    where = f"round {number}, {case.name}, {name}"
                    home = Path(tempfile.mkdtemp(prefix=f"{number}-{name}-", dir=folder))
                    try:
                        result = tried(
                            case, options.relays[name], binaries, ca, home, options, number
                        )
                    except FAULTS as error:
                        found.fail(where, error)
                        continue
                    found.add(case.name, name, number, result)
                    cells = table.rows({case.name: {name: [result]}})[1]
                    print(f"{where}: {' | '.join(cells[2:])}", file=sys.stderr, flush=True)
    judged = next(iter(options.relays))
    verdicts = table.verdicts(found.results, judged, options.older, options.theirs)
    document = found.document(about, verdicts=verdicts)
    path = record.save(document, options.json, "wan-")
    show(document, options)
    return record.end(document, path)


def show(document: dict[str, Any], options: argparse.Namespace) -> None:
    page = table.page(document)
    if options.markdown:
        options.markdown.write_text(page)
    if options.into:
        before, after = around_marks(options.into.read_text(), BEGIN, END)
        options.into.write_text(f"{before}\n\n{page}\n{after}")
    if options.plots:
        options.plots.mkdir(parents=True, exist_ok=True)
        for name, drawing in plot.drawings(document["results"]):
            (options.plots / name).write_text(drawing)
    print(page)


def tried(
    case: Case,
    command: Sequence[str],
    binaries: dict[str, Path],
    ca: TestCA,
    folder: Path,
    options: argparse.Namespace,
    number: int,
) -> dict[str, Any]:
    """Return what a case with one relay showed. Raises FAULTS where it fails a second time."""
    seed = options.seed + number - 1
    buffer = None if options.buffer_ms is None else options.buffer_ms / 1e3
    for last in (False, True):
        home = folder / ("second" if last else "first")
        home.mkdir()
        try:
            with network(case, command, binaries, ca, home, seed=seed, buffer=buffer) as net:
                return measure(net, options.seconds)
        except FAULTS as error:
            if last:
                raise
            print(f"{case.name}: once more, since {first_line(error)}", file=sys.stderr)
    raise AssertionError("unreachable")


if __name__ == "__main__":
    sys.exit(main())
