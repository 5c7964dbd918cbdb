"""All targets, each for a time: `python -m tests.fuzz.session [--seconds N] [TARGET...]`.

Two targets run at once. New inputs are kept in a temporary folder, those that break a target in
--findings: put one into the corpus, with the fault mended. --into puts the table into a page. Ends
with 1 if anything was found, or if the fault planted on purpose was not.
"""

import argparse
import multiprocessing
import multiprocessing.connection
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from bench.record import surroundings
from tests.fuzz import one
from tests.fuzz.table import Run, into, table
from tests.fuzz.targets import MAX_INPUT, TARGETS, planted

CORPUS: Final = Path(__file__).parent / "corpus"
_DONE: Final = re.compile(r"#(\d+)\s+DONE\s+cov: (\d+)")
_INPUT_TIMEOUT: Final = 20
"""Seconds after which an input counts as a finding of its own: a parser that hangs."""
_PATIENCE: Final = 120.0
"""Seconds by which a target may be late to end."""
_AT_ONCE: Final = 2
_LAST_LINES: Final = 40
_FORK: Final = multiprocessing.get_context("fork")


class Fuzzing:
    """One target that is being fuzzed, in a child of this process."""

    def __init__(self, target: str, seconds: int, findings: Path, folder: Path) -> None:
        self._target = target
        self._said = folder / f"{target}.log"
        self._deadline = time.monotonic() + seconds + _PATIENCE
        new, seeds = folder / target, CORPUS / target
        new.mkdir()
        findings.mkdir(parents=True, exist_ok=True)
        arguments = [
            f"-max_total_time={seconds}",
            f"-max_len={MAX_INPUT}",
            f"-timeout={_INPUT_TIMEOUT}",
            f"-artifact_prefix={findings}/{target}-",
            "-print_final_stats=0",
            str(new),
            *([str(seeds)] if seeds.exists() else []),
        ]
        self._process = _FORK.Process(target=one.run, args=(target, arguments, self._said))
        self._process.start()
        self.sentinel = self._process.sentinel

    def is_over(self) -> bool:
        """Return whether the child has ended; one that is far too late is killed."""
        if time.monotonic() > self._deadline:
            self._process.kill()
            self._process.join()
        return not self._process.is_alive()

    def result(self) -> Run:
        """Return how it ended."""
        said = self._said.read_text(errors="replace") if self._said.exists() else ""
        found = _DONE.search(said)
        executions, coverage = map(int, found.groups()) if found else (0, 0)
        trouble = ""
        if self._process.exitcode or not executions:
            last = said.splitlines()[-_LAST_LINES:]
            trouble = "\n".join([*last, f"ended with {self._process.exitcode}"])
        return Run(self._target, executions, coverage, trouble)


def fuzz(names: Sequence[str], seconds: int, findings: Path) -> Iterator[Run]:
    """Fuzz targets, some at once; return how each ended, as it ends."""
    waiting, running = list(names), list[Fuzzing]()
    with tempfile.TemporaryDirectory() as folder:
        while waiting or running:
            while waiting and len(running) < _AT_ONCE:
                running.append(Fuzzing(waiting.pop(0), seconds, findings, Path(folder)))
            multiprocessing.connection.wait([each.sentinel for each in running], timeout=1.0)
            for each in [each for each in running if each.is_over()]:
                running.remove(each)
                yield each.result()


def main() -> int:
    """Run the targets that the command line names; return the exit code."""
    parser = argparse.ArgumentParser(description="Fuzz the parsers.")
    parser.add_argument("targets", nargs="*", choices=[[], *TARGETS], metavar="TARGET")
    parser.add_argument("--seconds", type=int, default=30, help="for each target")
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--into", type=Path, metavar="FILE", help="a page for the table")
    options = parser.parse_args()
    if options.into:
        try:
            into(options.into.read_text(), "")
        except (OSError, ValueError) as error:
            parser.error(f"--into {options.into}: {error}")
    with tempfile.TemporaryDirectory() as elsewhere:
        if not next(fuzz([planted.__name__], 60, Path(elsewhere))).trouble:
            print("the fault planted on purpose was not found: this looks for nothing")
            return 1
    names = options.targets or list(TARGETS)
    failed = False
    runs = []
    for run in fuzz(names, options.seconds, options.findings):
        runs.append(run)
        shown = f"{run.target:20} {run.executions:10,} executions {run.coverage:6,} edges"
        print(shown, flush=True)
        if run.trouble:
            failed = True
            print(f"{run.trouble}\n{run.target}: see {options.findings}/", flush=True)
    print(f"{len(names)} targets, {options.seconds} s each")
    if options.into:
        made = table(runs, options.seconds, surroundings())
        options.into.write_text(into(options.into.read_text(), made))
    return failed


if __name__ == "__main__":
    sys.exit(main())
