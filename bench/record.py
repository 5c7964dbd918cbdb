"""A run of a benchmark: how it ends, what it was made with, and the file of its results."""

import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RESULTS = HERE / "results"
CONGESTION_CONTROL = Path("/proc/sys/net/ipv4/tcp_congestion_control")
SHOWN_LENGTH = 200


def exit_code(program: str, act: Callable[[], int], *expected: type[Exception]) -> int:
    """Return the exit code of `act`; an `expected` error is one line on stderr, and 1."""
    # What was started is stopped on the way out.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return act()
    except expected as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return 130


class Record:
    """The results of a run by load or case and by relay, and its failures."""

    def __init__(self, relays: Sequence[str], failures: Sequence[str] = ()) -> None:
        """Begin the run's time. `relays` are names in the order that tables have."""
        self.failures = [*failures]
        self._relays = relays
        self._found: dict[str, dict[str, list[Any]]] = {}
        self._begin = time.monotonic()
        self._load_before = os.getloadavg()

    def add(self, load: str, relay: str, number: int, result: dict[str, Any]) -> None:
        """Add what round `number`, from 1, has found."""
        self._found.setdefault(load, {}).setdefault(relay, []).append(result | {"round": number})

    def fail(self, where: str, error: Exception) -> None:
        """Add a failure, and print the whole of it."""
        self.failures.append(f"{where}: FAILED: {first_line(error)}")
        print(f"{where}: FAILED: {error}", file=sys.stderr)

    @property
    def results(self) -> dict[str, dict[str, list[Any]]]:
        """The results of each round by load or case, then by relay."""
        return {
            load: {relay: by_relay[relay] for relay in self._relays if relay in by_relay}
            for load, by_relay in self._found.items()
        }

    def document(self, about: dict[str, Any], **more: Any) -> dict[str, Any]:
        """End the run's time; return what is to be saved."""
        about = about | {
            "load_before": self._load_before,
            "took_seconds": round(time.monotonic() - self._begin, 1),
        }
        return {"about": about, "results": self.results, "failures": self.failures, **more}


def save(document: dict[str, Any], path: Path | None, prefix: str = "") -> Path:
    """Write a document to `path`, by default to a new file in results/; return the path."""
    path = path or RESULTS / f"{prefix}{datetime.now(UTC):%Y%m%d-%H%M%S}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path


def end(document: dict[str, Any], path: Path) -> int:
    """Say how long the run took, and where its results are; return the exit code."""
    print(f"{document['about']['took_seconds']:.0f} s; results in {path}")
    return 1 if document["failures"] else 0


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [repr(error)])[0][:SHOWN_LENGTH]


def surroundings() -> dict[str, Any]:
    """Return what does not depend on what is measured: date, commit, machine."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": said(["git", "rev-parse", "HEAD"]),
        "changed_files": len(said(["git", "status", "--porcelain"]).splitlines()),
        "machine": f"{model}, {os.cpu_count()} cores, {platform.machine()}",
        "kernel": platform.release(),
        "congestion_control": CONGESTION_CONTROL.read_text().strip(),
    }


def said(command: Sequence[str], directory: Path = ROOT) -> str:
    """Return what a command prints, as for -version."""
    try:
        done = subprocess.run(
            command, cwd=directory, capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"unknown ({error})"
    return (done.stdout or done.stderr).strip()
