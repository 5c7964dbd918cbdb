"""A relay whose log goes through a pipe, as into a log collector, which may stop reading."""

import fcntl
import os
import threading
import time
from pathlib import Path

import attrs

from tests.interop.relay import Relay

PIPE_SIZE = 4096
"""Bytes that it holds: the least that there is, so that it is full soon."""
F_SETPIPE_SZ = 1031


@attrs.define
class PipedRelay(Relay):
    """A relay, and what reads its log."""

    collected: Path = attrs.field(kw_only=True)
    """Where the log ends up."""
    _reads: threading.Event = attrs.field(init=False, factory=threading.Event)

    @property
    def log(self) -> str:
        return self.collected.read_text(errors="replace") if self.collected.exists() else ""

    def open_pipe(self) -> None:
        """Make the pipe, and begin to read; to be called once, before the first start."""
        os.mkfifo(self.log_file)
        # Open at both ends: the relay may come and go without an end of file.
        pipe = os.open(self.log_file, os.O_RDWR)
        fcntl.fcntl(pipe, F_SETPIPE_SZ, PIPE_SIZE)
        self._reads.set()
        threading.Thread(target=self._read, args=(pipe,), daemon=True).start()

    def block_log(self) -> None:
        self._reads.clear()

    def unblock_log(self) -> None:
        self._reads.set()

    def _read(self, pipe: int) -> None:
        with self.collected.open("ab", buffering=0) as file:
            while True:
                self._reads.wait()
                file.write(os.read(pipe, PIPE_SIZE))

    def settle_log(self, seconds: float) -> None:
        """Wait until nothing more has come into the log for a moment."""
        deadline, before = time.monotonic() + seconds, -1
        while before != (before := len(self.log)) and time.monotonic() < deadline:
            time.sleep(0.3)
