"""Starts a derper as a subprocess: the one under test, or the Go derper as the reference.

A `Relay` is a command, its flags and its ports; it can be stopped, killed and started again with
the same key on the same ports. Everything listens on loopback unless told otherwise, everything
is bounded by a deadline, and no process outlives the tests: the kernel kills a relay when the
process that started it is gone.
"""

import contextlib
import ctypes
import itertools
import json
import os
import random
import re
import shlex
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import attrs
import trustme

from tests.patience import PATIENCE

REPO = Path(__file__).resolve().parents[2]

START_TIMEOUT = STOP_TIMEOUT = PATIENCE

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent() -> None:
    """For `preexec_fn`: the child gets SIGKILL when the tests are gone, however they ended."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def command_under_test(choice: str, go_derper: Path) -> list[str]:
    """`ours`, `go`, or any command line."""
    if choice == "ours":
        return [sys.executable, "-m", "derp"]
    if choice == "go":
        return [str(go_derper)]
    return shlex.split(choice)


PORTS = range(20_000, 32_000)
"""Below those that the kernel gives to outgoing connections, of which these tests make many."""
SLICES = 8
SLICE = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % SLICES
"""Which of PORTS are ours, where several processes run tests side by side."""
_ports = itertools.cycle(random.sample(PORTS[SLICE::SLICES], len(PORTS[SLICE::SLICES])))


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port that nobody uses, at any address of IPv4; another one each time, by and large."""
    while True:
        port = next(_ports)
        with socket.socket(socket.AF_INET, kind) as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            return port


def write_key_file(path: Path, private: bytes) -> None:
    """The Go derper's key file."""
    path.write_text(json.dumps({"PrivateKey": f"privkey:{private.hex()}"}, indent="\t"))
    path.chmod(0o600)


@attrs.frozen
class TestCA:
    """A certificate authority for these tests, and where Go finds it."""

    __test__ = False

    ca: trustme.CA
    pem: Path

    def issue(self, folder: Path, hostname: str, *more: str) -> None:
        """Write `hostname`.crt and .key, as -certmode manual reads them."""
        leaf = self.ca.issue_cert(hostname, *more)
        leaf.private_key_pem.write_to_path(folder / f"{hostname}.key")
        (folder / f"{hostname}.key").chmod(0o600)
        chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
        (folder / f"{hostname}.crt").write_bytes(chain)


class RelayError(AssertionError):
    """The relay did not start, did not stay up, or did not stop as it should."""


@attrs.define
class Relay:
    """One derper. `flags` come after those that every relay here gets."""

    name: str
    command: Sequence[str]
    folder: Path
    host: str = "127.0.0.1"
    listen: str = "127.0.0.1"
    """The address part of -a; empty means every address."""
    hostname: str = "localhost"
    tls: bool = True
    certmode: str = "manual"
    certdir: Path = attrs.field(default=attrs.Factory(lambda self: self.folder, takes_self=True))
    stun: bool = False
    flags: Sequence[str] = ()
    prefix: Sequence[str] = ()
    """A command that runs the relay, e.g. in a network namespace."""
    env: Mapping[str, str] | None = None
    """Its whole environment; ours unless given."""
    start_timeout: float = START_TIMEOUT
    may_panic: bool = False
    """The Go derper does, and goes on, when a client's key is all zeros."""
    port: int = attrs.field(factory=free_port)
    http_port: int = attrs.field(factory=free_port)
    stun_port: int = attrs.field(factory=lambda: free_port(socket.SOCK_DGRAM))
    process: subprocess.Popen[bytes] | None = None

    @property
    def key_file(self) -> Path:
        return self.folder / "derper.key"

    @property
    def log_file(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    @property
    def url(self) -> str:
        """What Go's derphttp client is given."""
        if self.tls:
            return f"https://{self.hostname}:{self.port}/derp"
        return f"http://{self.host}:{self.port}/derp"

    def arguments(self) -> list[str]:
        flags = ["-a", f"{self.listen}:{self.port}", "-c", str(self.key_file)]
        if self.tls:
            flags += ["-certmode", self.certmode, "-certdir", str(self.certdir)]
            flags += ["-hostname", self.hostname, "-http-port", str(self.http_port)]
        else:
            flags += ["-http-port", "-1"]
        flags += ["-stun", "-stun-port", str(self.stun_port)] if self.stun else ["-stun=false"]
        return [*flags, *self.flags]

    def start(self) -> None:
        """Start it and wait until it accepts connections. Raises RelayError."""
        self.launch()
        self.wait_until_it_accepts()

    def launch(self) -> None:
        """Start it, and don't wait."""
        assert self.process is None
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, *self.command, *self.arguments()],
                cwd=REPO,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent,  # noqa: PLW1509 — no threads here yet
            )

    def wait_until_it_accepts(self) -> None:
        """Raises RelayError."""
        assert self.process
        deadline = time.monotonic() + self.start_timeout
        while not self.accepts():
            if self.process.poll() is not None:
                raise RelayError(f"{self.name} ended with {self.process.returncode}:\n{self.log}")
            if time.monotonic() > deadline:
                self.kill()
                raise RelayError(
                    f"{self.name} accepts nothing after {self.start_timeout:.0f} s:\n{self.log}"
                )
            time.sleep(0.05)

    def accepts(self) -> bool:
        """Whether something listens on the relay's port, seen from where the relay is."""
        if self.prefix:
            looked = subprocess.run(
                [*self.prefix, "cat", "/proc/net/tcp", "/proc/net/tcp6"],
                capture_output=True,
                text=True,
                timeout=START_TIMEOUT,
                check=True,
            )
            return bool(re.search(rf":{self.port:04X} [0-9A-F]+:0000 0A ", looked.stdout))
        try:
            socket.create_connection((self.host, self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def wait_for_log(self, pattern: str) -> re.Match[str]:
        """The first place in the log that matches; it may be written soon. Raises RelayError."""
        deadline = time.monotonic() + self.start_timeout
        while not (match := re.search(pattern, self.log)):
            if time.monotonic() > deadline:
                raise RelayError(f"{self.name} never logged {pattern}:\n{self.log}")
            time.sleep(0.05)
        return match

    def peak_memory(self) -> int:
        """The most that it ever had, in kB."""
        assert self.process
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)[0])

    def check_alive(self) -> None:
        if self.process is None or self.process.poll() is not None:
            raise RelayError(f"{self.name} is gone:\n{self.log}")

    def kill(self) -> None:
        """The hard way, as a crash or a power cut would."""
        if self.process:
            self.process.kill()
            self.process.wait(STOP_TIMEOUT)
            self.process = None

    def stop(self) -> None:
        """SIGTERM must end it with status 0, and its log must hold no stack trace.

        Raises RelayError otherwise; the process is gone either way.
        """
        if not self.process:
            return
        died = self.process.poll()
        self.process.terminate()
        try:
            status = self.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            status = None
        self.kill()
        if died is not None:
            raise RelayError(f"{self.name} had ended by itself with {died}:\n{self.log}")
        if status != 0:
            raise RelayError(f"{self.name} ended with {status} after SIGTERM:\n{self.log}")
        if not self.may_panic and re.search(
            r"^Traceback|^panic:|^goroutine \d", self.log, re.MULTILINE
        ):
            raise RelayError(f"{self.name} logged a stack trace:\n{self.log}")


@contextlib.contextmanager
def running(relay: Relay) -> Iterator[Relay]:
    """A relay for as long as the block runs, stopped with `stop`, or killed when it failed."""
    try:
        relay.start()
        yield relay
    except BaseException:
        relay.kill()
        raise
    relay.stop()


def certificate_chain(relay: Relay) -> list[bytes]:
    """The DER certificates that the relay sends, unverified, leaf first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection((relay.host, relay.port), timeout=10) as raw,
        context.wrap_socket(raw, server_hostname=relay.hostname) as tls,
    ):
        return chain_sent(tls)


def chain_sent(tls: ssl.SSLSocket) -> list[bytes]:
    """The DER certificates that the other side sent, as it sent them."""
    if sys.version_info >= (3, 13):
        return tls.get_unverified_chain()
    return [
        ssl.PEM_cert_to_DER_cert(certificate.public_bytes())
        for certificate in tls._sslobj.get_unverified_chain()  # type: ignore[attr-defined]
    ]


def environment(**more: str) -> dict[str, str]:
    """What the Go programs run with: nothing of ours but PATH and a proxy-free world."""
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "HOME": "/nonexistent", **more}
