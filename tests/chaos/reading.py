"""What a relay says of itself, and what the kernel says of it."""

import contextlib
import csv
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from bench.usage import pss, tree
from derp.cli.control import Connection
from derp.errors import StartError
from derp.wire.control import Request
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
    """Return the node keys that `derper clients` lists, but those of mesh peers. Raises OSError."""
    with _control(relay) as connection:
        clients = connection.clients()
        if connection.silent:
            raise OSError(f"{connection.silent} workers did not say who is connected")
    return [client["key"] for client in clients if not client["mesh"]]


def steer(relay: Relay, command: str, key: str) -> None:
    """Do what `derper deny`, or the like, does. Raises OSError."""
    with _control(relay) as connection:
        connection.steer(Request(command, key))


@contextlib.contextmanager
def _control(relay: Relay) -> Iterator[Connection]:
    """Connect to the control socket, without the program that would be started otherwise."""
    try:
        with contextlib.closing(Connection(relay.folder / "derper.sock")) as connection:
            yield connection
    except StartError as error:
        raise OSError(str(error)) from None


def accounts(file: Path) -> dict[str, int]:
    """Return the bytes that were received from each node key, as `derper accounts` prints them."""
    printed = subprocess.run(
        [sys.executable, "-m", "derp", "accounts", "-accounts", str(file), "-csv"],
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=3 * TIMEOUT,
        check=True,
    ).stdout
    return {row["key"]: int(row["received"]) for row in csv.DictReader(printed.splitlines())}


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
