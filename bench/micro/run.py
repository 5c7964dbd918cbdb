"""Time the pieces of the hot path one by one, so that a regression has an address.

The pieces, each in a file of its own beside this one:
  scanner     derp.wire.trains: from the bytes of a client to trains of packets
  forwarding  derp.wire.forwarding: trains on their way to and from another relay
  sendqueue   derp.relay.sendqueue: what waits for a slow client, and what is dropped there
  tls         derp.net.tls: decrypting, encrypting, shaking hands

How to run
  nox -s micro                              try everything once, without a figure worth reading
  nox -s micro -- -o before.json            measure (some minutes); `--fast` halves it
  nox -s micro -- --rigorous -o before.json measure twice as long
  nox -s micro -- --fast --piece tls        one piece only
  ... -- --help                             pyperf's other options, as --affinity

How to compare
  Measure before and after a change, on a machine that does nothing else, then
    .nox/micro/bin/python -m pyperf compare_to before.json after.json --table
  A figure is the time of the whole operation that its name tells, not of one packet. Whether a
  difference means anything is pyperf's to say; `python -m pyperf system tune` makes it surer.

What keeps it honest
  Each benchmark checks what its piece does, byte by byte, every time before the clock starts: a
  piece that is broken fails, instead of being fast. Preparing input, undoing what was done, and
  all that the other end of a connection has to do happen while the clock stands still.

Whether the whole relay became faster or slower is told by `nox -s bench`, not by this.
"""

import argparse
import ssl

import pyperf

from bench.micro import forwarding, scanner, sendqueue, tls

PIECES = {"scanner": scanner, "forwarding": forwarding, "sendqueue": sendqueue, "tls": tls}


def main() -> None:
    runner = pyperf.Runner(
        program_args=("-m", "bench.micro.run"),
        metadata={"openssl": ssl.OPENSSL_VERSION},
        add_cmdline_args=pass_to_workers,
    )
    runner.argparser.add_argument("--piece", choices=PIECES, help="measure this piece only")
    only = runner.parse_args().piece
    for piece in [only] if only else PIECES:
        for name, measure in PIECES[piece].BENCHMARKS.items():
            runner.bench_time_func(f"{piece}: {name}", measure)


def pass_to_workers(command: list[str], options: argparse.Namespace) -> None:
    if options.piece:
        command += ["--piece", options.piece]


if __name__ == "__main__":
    main()
