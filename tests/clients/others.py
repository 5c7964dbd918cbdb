"""Clients that are not tailscaled: Tailscale's in Rust, and the one that it has for browsers.

Each is a program that, for each line that it reads, has two clients talk through the relay at a
port of 127.0.0.1, and prints "ok" or why not.
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs

from tests.clients.checks import CHECKS, COMMAND, PINNED
from tests.clients.releases import BIN, CannotBuildError, run
from tests.interop import golang
from tests.interop.relay import Relay, TestCA, environment
from tests.interop.tailnet import background

HERE = Path(__file__).resolve().parent
ANSWER_TIMEOUT = 120


@attrs.frozen
class Other:
    """Such a program; `build` returns its command, behind which goes what `takes` returns."""

    name: str
    built_with: str
    build: Callable[[], list[str]]
    takes: Callable[[Relay], str]


def ts_derp() -> list[str]:
    """Raises CannotBuildError."""
    folder = BIN / "ts_derp"
    command = ["cargo", "build", "--locked", "--target-dir", f"{folder}"]
    run(["nice", *command], HERE / "ts_derp", os.environ)
    return [f"{folder / 'debug/derptalk'}"]


def browsers() -> list[str]:
    """Raises CannotBuildError."""
    made = BIN / "derp.wasm"
    env = {**golang.go_environment(), "GOOS": "js", "GOARCH": "wasm"}
    go = f"{golang.find_go()}"
    flags = ["-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-p=2"]
    run(["nice", go, "build", *flags, "-o", f"{made}", "./cmd/derpwasm"], golang.HERE, env)
    root = run([go, "env", "GOROOT"], golang.HERE, env).strip()
    if not shutil.which("node"):
        raise CannotBuildError("node is not installed")
    # A browser has websockets; node 20 has to be told.
    glue = f"{root}/lib/wasm/wasm_exec_node.js"
    return ["node", "--experimental-websocket", "--stack-size=8192", glue, f"{made}"]


OTHERS = (
    Other("ts_derp 0.6.1", "Rust", ts_derp, lambda relay: f"{relay.port}"),
    Other("derphttp in WebAssembly, 1.102.5", "Go, js/wasm", browsers, lambda relay: relay.url),
)


def play(other: Other, ca: TestCA, folder: Path) -> Iterator[tuple[str, str]]:
    """Yield each column's name, and what is to stand there. Raises CannotBuildError."""
    command = other.build()
    ca.issue(folder, "localhost")
    relay = Relay("relay", COMMAND, folder)
    relay.start()
    try:
        env = environment(NODE_EXTRA_CA_CERTS=f"{ca.pem}")
        with talking([*command, other.takes(relay)], folder, env) as talk:
            told = talk()
            *first, restart = CHECKS
            yield from ((name, told) for name in first)
            relay.kill()
            relay.start()
            yield restart, talk()
            yield PINNED, "-"
    finally:
        relay.kill()


@contextlib.contextmanager
def talking(command: list[str], folder: Path, env: dict[str, str]) -> Iterator[Callable[[], str]]:
    """Run the program; what is yielded has it talk once, and returns a cell of the table."""
    with background(
        ["timeout", f"{2 * ANSWER_TIMEOUT}", *command],
        folder / "client.log",
        env,
        stdin=subprocess.PIPE,
    ) as process:

        def talk() -> str:
            assert process.stdin
            assert process.stdout
            process.stdin.write("\n")
            process.stdin.flush()
            said = process.stdout.readline().strip() or "the client ended"
            return "yes" if said == "ok" else f"no: {said[:120].replace('|', '/')}"

        yield talk
