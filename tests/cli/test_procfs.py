import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from derp.cli import healthcheck
from derp.cli.procfs import (
    arguments_of,
    directory_of,
    flags_in,
    relay_of_container,
    variables_of,
)
from tests.process import derper

Run = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    "before",
    [
        ["/app/venv/bin/python", "/app/derper"],
        ["derper"],
        ["python3", "-m", "derp"],
        ["/dev/init", "--", "/app/entrypoint", "/app/derper"],
        ["derper", "-socket", "/run/derper"],
    ],
)
def test_what_is_behind_the_name(before: list[str]):
    assert flags_in([*before, "-a", ":8443", "--hostname=x"]) == ["-a", ":8443", "--hostname=x"]
    assert flags_in(before) == []


@pytest.mark.parametrize("before", [["python3", "-P", "-m", "derp"], ["/app/derper"]])
def test_a_worker_has_the_flags_of_its_supervisor(before: list[str]):
    worker = [*before, "worker", "16"]
    assert flags_in([*worker, "-workers", "2", "-a", ":1"]) == ["-workers", "2", "-a", ":1"]
    assert flags_in(worker) == []
    # As a flag's value it is a word like any other.
    assert flags_in([*before, "-hostname", "worker", "-dev"]) == ["-hostname", "worker", "-dev"]


@pytest.mark.parametrize(
    "line", [[], ["sleep", "9"], ["sh", "-c", "derper -a :1 | cat"], ["derper2", "-a"], ["derp"]]
)
def test_other_programs_have_no_flags(line: list[str]):
    assert flags_in(line) == []


@pytest.mark.slow
def test_a_process(tmp_path: Path):
    (tmp_path / "7").mkdir()
    line = b"python\0/usr/bin/derper\0-hostname\0\xff.example\0"
    (tmp_path / "7" / "cmdline").write_bytes(line)
    assert arguments_of(7, tmp_path) == ["-hostname", "\udcff.example"]
    # A kernel thread, or a process that has ended and not been waited for.
    (tmp_path / "7" / "cmdline").write_bytes(b"")
    assert arguments_of(7, tmp_path) == []
    sleeping = subprocess.Popen([sys.executable, "-c", "input()", "derper", "-a", ":1"], stdin=-1)
    with sleeping:
        assert sleeping.stdin is not None
        found = Path(f"/proc/{sleeping.pid}/cmdline")
        while b"input" not in found.read_bytes():
            os.sched_yield()
        assert arguments_of(sleeping.pid) == ["-a", ":1"]
        sleeping.stdin.close()


def test_variables(tmp_path: Path):
    assert variables_of(7, tmp_path) == {}
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "environ").write_bytes(b"DERP_DOMAIN=x=y\0nothing\0DERP_STUN=\0")
    assert variables_of(7, tmp_path) == {"DERP_DOMAIN": "x=y", "DERP_STUN": ""}


@pytest.mark.slow
def test_a_health_check_with_the_variables_of_the_relay(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("DERP_CERT_MODE", "manual")
    with derper(tmp_path) as relay:
        monkeypatch.delenv("DERP_CERT_MODE")
        ports = ["-a", f"127.0.0.1:{relay.port('HTTPS')}", "-stun-port", str(relay.port("STUN"))]
        found = variables_of(relay.process.pid)
        assert found["DERP_CERT_MODE"] == "manual"
        assert run("healthcheck", "-of", str(relay.process.pid), *ports)[0] == 0


def test_no_process(run: Run):
    missing = int(Path("/proc/sys/kernel/pid_max").read_text()) + 1
    code, out, err = run("healthcheck", "-of", str(missing))
    assert (code, out) == (2, "")
    assert err == f"derper: -of {missing}: no such file or directory\n"
    assert run("healthcheck", "-of", "one")[0] == 2
    assert run("healthcheck", "-of", "-1")[0] == 2


@pytest.mark.slow
def test_a_health_check_with_the_flags_of_the_relay(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("DERP_DOMAIN", "your-hostname.com")
    with derper(tmp_path) as relay:
        # It has picked its ports itself.
        ports = ["-a", f"127.0.0.1:{relay.port('HTTPS')}", "-stun-port", str(relay.port("STUN"))]
        code, out, err = run("healthcheck", "-of", str(relay.process.pid), *ports)
        assert (code, err) == (0, "")
        assert out.startswith("healthy: DERP at ")
        # Without its flags, the check takes it for a relay without TLS.
        assert run("healthcheck", *ports)[0] == 1


@pytest.mark.slow
@pytest.mark.parametrize("command", ["healthcheck", "derpmap"])
def test_of_a_worker(tmp_path: Path, run: Run, command: str):
    with derper(tmp_path, "-workers", "2") as relay:
        ports = ["-a", f"127.0.0.1:{relay.port('HTTPS')}", "-stun-port", str(relay.port("STUN"))]
        relay.wait_for("workers share the work")
        parent = relay.process.pid
        # Each is the child of the thread that has started it.
        threads = Path(f"/proc/{parent}/task").glob("*/children")
        children = [child for thread in threads for child in thread.read_text().split()]
        assert len(children) == 2
        wanted = run(command, "-of", str(parent), *ports)
        assert wanted[0] == 0
        for child in children:
            assert b"\0worker\0" in Path(f"/proc/{child}/cmdline").read_bytes()
            code, out, err = run(command, "-of", child, *ports)
            assert (code, err) == (0, "")
            if command == "derpmap":
                assert out == wanted[1]
            else:
                assert out.startswith("healthy: DERP at ")


def test_help(run: Run):
    assert "-of PID" in run("healthcheck", "-h")[1]
    assert "-of PID" in run("derpmap", "-h")[1]


def test_a_check_takes_less_than_a_container_runtime_waits() -> None:
    assert healthcheck.TIMEOUT < 5


def processes(proc: Path, **lines: str) -> Path:
    """Make a /proc with these command lines, words with spaces between them, by process ID."""
    for pid, line in lines.items():
        (proc / pid.removeprefix("p")).mkdir()
        words = "".join(f"{word}\0" for word in line.split())
        (proc / pid.removeprefix("p") / "cmdline").write_text(words)
    (proc / "net").mkdir()
    return proc


@pytest.mark.parametrize(
    ("lines", "pid"),
    [
        ({"p1": "/sbin/init", "p7": "derper"}, 0),
        ({"p1": "/app/venv/bin/python /app/derper", "p9": "sleep 9"}, 1),
        ({"p1": "derper -c=/k", "p8": "derper clients", "p9": "derper kick x -dev"}, 1),
        ({"p1": "derper -workers 2", "p8": "python3 -m derp worker 7 -workers 2"}, 1),
        ({"p1": "/dev/init -- /app/entrypoint /app/derper", "p7": "python /app/derper -c=/k"}, 7),
        ({}, 0),
    ],
)
def test_the_relay_of_a_container(tmp_path: Path, lines: dict[str, str], pid: int):
    assert relay_of_container(processes(tmp_path, **lines)) == pid


def test_where_a_process_works(tmp_path: Path):
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "cwd").symlink_to("/somewhere")
    assert directory_of(7, tmp_path) == Path("/somewhere")
    assert directory_of(8, tmp_path) == Path.cwd()
