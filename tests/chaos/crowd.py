"""The session's side of the clients' program."""

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.interop.relay import REPO, die_with_parent

ANSWER_SECONDS = 120.0


class CrowdError(Exception):
    """The clients' program ended, or gave no answer."""


class Crowd:
    """The clients, as a process; `order` has them do something."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process
        self._text = b""

    def order(self, do: str, **more: Any) -> Any:
        """Give an order; return its answer. Raises CrowdError."""
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps({"do": do, **more}).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise CrowdError(f"the clients' program is gone: {error}") from None
        return json.loads(self._line())

    def _line(self) -> bytes:
        assert self._process.stdout
        deadline = time.monotonic() + ANSWER_SECONDS
        while b"\n" not in self._text:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                raise CrowdError(f"the clients' program gives no answer for {ANSWER_SECONDS} s")
            data = os.read(self._process.stdout.fileno(), 1 << 20)
            if not data:
                raise CrowdError("the clients' program has ended")
            self._text += data
        line, _, self._text = self._text.partition(b"\n")
        return line

    def inside(self) -> frozenset[int]:
        """Return the numbers of the clients that are logged in."""
        return frozenset(self.order("say")["inside"])


@contextlib.contextmanager
def crowd(folder: Path, plan: dict[str, Any]) -> Iterator[Crowd]:
    """Run the clients' program for as long as the block runs; see load.Plan."""
    file = folder / "plan.json"
    file.write_text(json.dumps(plan))
    with (folder / "load.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.load", str(file)],
            cwd=REPO,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            preexec_fn=die_with_parent,  # noqa: PLW1509 -- the one thread reads a pipe
        )
    try:
        yield Crowd(process)
    finally:
        process.kill()
        process.communicate()
