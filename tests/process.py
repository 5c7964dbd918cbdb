"""The command as a process: started with free ports, its log read, always ended."""

import re
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, Queue

from tests.patience import PATIENCE


class Derper:
    """A running derper; `log` holds its lines so far, of standard output and error."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.log: list[str] = []
        self._lines: Queue[str] = Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))

    def wait_for(self, pattern: str) -> "re.Match[str]":
        """Wait for a log line in which `pattern` is found, also among those seen before."""
        for line in self.log:
            if match := re.search(pattern, line):
                return match
        while True:
            try:
                line = self._lines.get(timeout=PATIENCE)
            except Empty:
                raise AssertionError(f"no line with {pattern!r} in {self.log}") from None
            self.log.append(line)
            if match := re.search(pattern, line):
                return match

    def port(self, what: str) -> int:
        """Return the port on which HTTPS, HTTP or STUN is served."""
        return int(self.wait_for(rf"what={what} address=127\.0\.0\.1:(\d+)")[1])

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self) -> int:
        """Ask it to stop; return its exit code."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Wait for its end; return its exit code, with the whole log read."""
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        while not self._lines.empty():
            self.log.append(self._lines.get())
        return code


@contextmanager
def derper(
    home: Path,
    *flags: str,
    tls: bool = True,
    descriptors: int | None = None,
    module: str = "derp",
) -> Iterator[Derper]:
    """Run derper on loopback, or where -a says, with files in `home`; `flags` are added.

    `descriptors` limits how many files it may have open; `module` is run in place of derp.
    """
    usual = [] if "-a" in flags else ["-a", "127.0.0.1:0"]
    usual += ["-c", str(home / "derper.key"), "-stun-port", "0"]
    if tls:
        usual += ["-certmode", "manual", "-certdir", str(home / "certs"), "-http-port", "0"]
        usual += ["-hostname", "127.0.0.1"]
    limit = ["sh", "-c", f'ulimit -n {descriptors} && exec "$@"', "sh"] if descriptors else []
    process = subprocess.Popen(
        [*limit, sys.executable, "-m", module, *usual, *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    running = Derper(process)
    try:
        yield running
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        running.wait()
        assert process.stdout is not None
        process.stdout.close()


def insecure() -> ssl.SSLContext:
    """Make a client context that takes any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
