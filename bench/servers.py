"""Starting and stopping the relays: one at a time, pinned to its cores, on loopback only."""

import contextlib
import ctypes
import os
import resource
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

HOST = "127.0.0.1"
START_SECONDS = 20.0
STOP_SECONDS = 8.0
PR_SET_PDEATHSIG = 1
HIGHEST_PRIORITY = -20


class BenchError(Exception):
    """The benchmark can't go on; the message says why, in one line."""


@dataclass(frozen=True)
class Program:
    """A relay that can be started: the command that takes the Go derper's flags."""

    name: str
    command: list[str]
    directory: Path


@dataclass
class Running:
    """A relay that is up."""

    pid: int
    address: str
    stun: str
    log: Path


def resolved(flag: str, command: Sequence[str]) -> list[str]:
    """Return a command that begins with a path. Raises BenchError, which begins with `flag`."""
    executable = shutil.which(command[0]) if command else None
    if executable is None:
        raise BenchError(f"{flag}{shlex.join(command)}: there is no such program")
    return [os.path.abspath(executable), *command[1:]]  # noqa: PTH100 -- a venv's links must stay


def raise_descriptor_limit() -> int:
    """Allow as many open files as the hard limit does, here and in what is started from here."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def pinned(cores: Collection[int], *, ahead: bool = False) -> None:
    """For a child before it becomes its program: pin it, and let it not outlive the driver.

    Where that is allowed, it also goes before whatever else the machine does. With autogroups,
    nice values count among the processes of one session only, and the session has its own. One that
    is `ahead` goes before all that were started from here, too, whenever it has something to do.
    """
    os.setsid()
    os.sched_setaffinity(0, cores)
    if ahead:
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, HIGHEST_PRIORITY)
        Path("/proc/self/autogroup").write_text(str(HIGHEST_PRIORITY))
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def free_port(kind: socket.SocketKind) -> int:
    """Return a port of 127.0.0.1 that nobody has at the moment."""
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind((HOST, 0))
        port: int = sock.getsockname()[1]
        return port


@contextlib.contextmanager
def running(
    program: Program,
    cores: Collection[int],
    work: Path,
    *,
    plain: bool = False,
    port: int = 0,
    more: Sequence[str] = (),
    variables: Mapping[str, str] | None = None,
) -> Iterator[list[Running]]:
    """Start a relay, wait until it accepts, and stop it at the end; what comes is a list of one.

    All relays get copies of one self-signed P-256 certificate, which the first one makes. One that
    needs it gets a certain port, `more` flags, and environment variables.
    """
    home = work / f"{program.name}-{time.monotonic_ns()}"
    home.mkdir()
    shared, own = work / "certs", home / "certs"
    if shared.exists():
        shutil.copytree(shared, own)
    else:
        own.mkdir()
    port, stun_port = port or free_port(socket.SOCK_STREAM), free_port(socket.SOCK_DGRAM)
    flags = ["-c", str(home / "derper.key"), "-a", f"{HOST}:{port}", "-stun-port", str(stun_port)]
    if not plain:
        flags += ["-certmode", "manual", "-certdir", str(own), "-hostname", HOST]
        flags += ["-http-port", "-1"]
    log = home / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*program.command, *flags, *more],
            cwd=program.directory,
            env={**os.environ, **(variables or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: pinned(cores),  # noqa: PLW1509 -- there are no threads
        )
    try:
        wait_until_it_accepts(process, port, program, log)
        yield [Running(process.pid, f"{HOST}:{port}", f"{HOST}:{stun_port}", log)]
        if process.poll() is not None:
            raise BenchError(f"{program.name} ended during the load: {last_line(log)}")
        # Not before: a relay may listen before it has made its pair.
        if not plain and not shared.exists():
            shutil.copytree(own, shared)
    finally:
        stop(process)


def wait_until_it_accepts(
    process: subprocess.Popen[bytes], port: int, program: Program, log: Path
) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise BenchError(f"{program.name} did not start: {last_line(log)}")
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1):
            return
        time.sleep(0.05)
    raise BenchError(f"{program.name} accepts nothing after {START_SECONDS:.0f} s")


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
