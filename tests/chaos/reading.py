"""What a relay says of itself, and what the kernel says of it."""

import contextlib
import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

from bench.usage import pss, tree
from tests.interop.relay import REPO, Relay

TIMEOUT = 20.0
WORKER = b"worker"


def page(relay: Relay, path: str) -> str:
    """Raises OSError, also for an answer that is no success."""
    url = f"http://{relay.host}:{relay.http_port}{path}"
    with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
        return str(answer.read().decode())


def figures(relay: Relay) -> dict[str, float]:
    """Return the metrics that are one number. Raises OSError."""
    found = {}
    for line in page(relay, "/debug/varz").splitlines():
        name, _, value = line.rpartition(" ")
        with contextlib.suppress(ValueError):
            found[name] = float(value)
    return found


def is_consistent(relay: Relay) -> bool:
    """Whether the relay's own check finds nothing. Raises OSError."""
    return "ConsistencyCheck okay" in page(relay, "/debug/check")


def listed(relay: Relay) -> list[str]:
    """Return the node keys that `derper clients` lists, but those of mesh peers."""
    clients = (json.loads(line) for line in ask(relay, "clients", "--json").splitlines())
    return [client["key"] for client in clients if not client.get("mesh")]


def accounts(relay: Relay, file: Path) -> dict[str, int]:
    """Return the bytes that were received from each node key."""
    lines = ask(relay, "accounts", "-accounts", str(file), "-csv").splitlines()
    place = lines[0].split(",").index("received")
    return {row[0]: int(row[place]) for row in (line.split(",") for line in lines[1:])}


def ask(relay: Relay, command: str, *arguments: str) -> str:
    """Run a command of the program on the running relay. Raises OSError if it fails."""
    flags = [] if command == "accounts" else ["-c", str(relay.key_file)]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "derp", command, *flags, *arguments],
            cwd=REPO,
            capture_output=True,
            text=True,
            timeout=3 * TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        raise OSError(f"derper {command}: no end after {late.timeout} s") from None
    if done.returncode:
        raise OSError(f"derper {command}: {done.stderr.strip()}")
    return done.stdout


def workers(relay: Relay) -> list[int]:
    """Return the process ids of the workers; of a relay that has none, its own."""
    assert relay.process
    own = relay.process.pid
    found = []
    for pid in tree(own)[1:]:
        with contextlib.suppress(OSError):
            if WORKER in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                found.append(pid)
    return found or [own]


def memory(relay: Relay) -> int:
    """Return the bytes of all its processes (PSS)."""
    assert relay.process
    return pss(relay.process.pid)


def descriptors(relay: Relay) -> int:
    """Return how many files all its processes have open."""
    assert relay.process
    found = 0
    for pid in tree(relay.process.pid):
        with contextlib.suppress(OSError):
            found += len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return found


def stack_traces(log: str) -> list[str]:
    """Return the last line of each stack trace, and each line that names a bug."""
    found = re.findall(r"^Traceback.*?\n(?=\S)(\S[^\n]*)", log, re.MULTILINE | re.DOTALL)
    return [*found, *re.findall(r"^(?:panic: .*|.*\bbug\b.*)$", log, re.MULTILINE)]
