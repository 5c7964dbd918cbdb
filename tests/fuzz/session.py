"""All targets, each for a time: `python -m tests.fuzz.session [--seconds N] [TARGET...]`.

Two targets run at once. New inputs are kept in a temporary folder, those that break a target in
--findings: put one into the corpus, with the fault mended. Ends with 1 if anything was found, or if
the fault planted on purpose was not.
"""

import argparse
import concurrent.futures
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

from tests.fuzz.targets import MAX_INPUT, TARGETS, planted

CORPUS: Final = Path(__file__).parent / "corpus"
_DONE: Final = re.compile(r"#(\d+)\s+DONE\s+cov: (\d+)")
_INPUT_TIMEOUT: Final = 20
"""Seconds after which an input counts as a finding of its own: a parser that hangs."""
_LAST_LINES: Final = 40


class Run(NamedTuple):
    """How the run of one target ended."""

    target: str
    executions: int
    coverage: int
    """Edges of the program's code that were reached."""
    trouble: str
    """The end of what was printed, where an input was found or nothing was run; else empty."""


def fuzz(target: str, seconds: int, findings: Path) -> Run:
    """Run one target in a process of its own."""
    findings.mkdir(parents=True, exist_ok=True)
    seeds = CORPUS / target
    with tempfile.TemporaryDirectory() as new:
        command = [
            *(sys.executable, "-m", "tests.fuzz.one", target),
            f"-max_total_time={seconds}",
            f"-max_len={MAX_INPUT}",
            f"-timeout={_INPUT_TIMEOUT}",
            f"-artifact_prefix={findings}/{target}-",
            "-print_final_stats=0",
            new,
            *([str(seeds)] if seeds.exists() else []),
        ]
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=seconds + 120,
            check=False,
        )
    found = _DONE.search(done.stdout)
    executions, coverage = map(int, found.groups()) if found else (0, 0)
    trouble = ""
    if done.returncode or not executions:
        trouble = "\n".join(done.stdout.splitlines()[-_LAST_LINES:])
    return Run(target, executions, coverage, trouble)


def main() -> int:
    """Run the targets that the command line names; return the exit code."""
    parser = argparse.ArgumentParser(description="Fuzz the parsers.")
    parser.add_argument("targets", nargs="*", choices=[[], *TARGETS], metavar="TARGET")
    parser.add_argument("--seconds", type=int, default=30, help="for each target")
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as elsewhere:
        if not fuzz(planted.__name__, 60, Path(elsewhere)).trouble:
            print("the fault planted on purpose was not found: this looks for nothing")
            return 1
    names = options.targets or list(TARGETS)
    failed = False
    with concurrent.futures.ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        runs = [pool.submit(fuzz, name, options.seconds, options.findings) for name in names]
        for run in (each.result() for each in runs):
            print(f"{run.target:20} {run.executions:10,} executions {run.coverage:6,} edges")
            if run.trouble:
                failed = True
                print(f"{run.trouble}\n{run.target}: see {options.findings}/", flush=True)
    print(f"{len(names)} targets, {options.seconds} s each")
    return failed


if __name__ == "__main__":
    sys.exit(main())
