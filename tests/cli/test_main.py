import re
import ssl
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

import derp
from derp.cli import main
from derp.config import Config, flag_table
from derp.errors import StartError
from tests.support.config import make_config

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """Stand in for the supervisor, and keep what it was asked to serve."""
    configs: list[Config] = []
    monkeypatch.setitem(sys.modules, "derp.service.standalone", SimpleNamespace(run=configs.append))
    for flag in flag_table({}, root=True):
        if flag.variable:
            monkeypatch.delenv(flag.variable, raising=False)
    return configs


@pytest.fixture
def run(served: list[Config], capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*argv: str) -> tuple[int, str, str]:
        code = main.main(argv)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_serves_what_it_is_told_to(run: Run, served: list[Config]):
    assert run("-dev", "-stun=false") == (0, "", "")
    assert served == [
        make_config(
            dev=True, stun=False, a=served[0].listening.addresses, certdir=served[0].tls.certdir
        )
    ]


def test_workers_get_the_same_arguments(
    run: Run, served: list[Config], monkeypatch: pytest.MonkeyPatch
):
    started: list[object] = []
    stand_in = SimpleNamespace(run=lambda *what: started.extend(what))
    monkeypatch.setitem(sys.modules, "derp.workers.supervisor", stand_in)
    for count, expected in (("3", 3), ("auto", 0)):
        argv = ("-dev", "-workers", count, "-stun=false")
        assert run(*argv) == (0, "", "")
        config, arguments = started
        assert isinstance(config, Config)
        assert config.limits.workers == expected
        assert arguments == argv
        started.clear()
    assert not served


def test_reads_the_environment(run: Run, served: list[Config], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DERP_STUN_PORT", "1234")
    run("-dev")
    assert served[0].stun.port == 1234


def warnings_of(capfd: pytest.CaptureFixture[str], *argv: str) -> list[str]:
    assert main.main(argv) == 0
    lines = capfd.readouterr().err.splitlines()
    assert all(" level=warning msg=" in line for line in lines)
    return [line.partition(" msg=")[2] for line in lines]


def test_what_is_no_mistake_is_a_warning_in_the_log(
    served: list[Config], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("DERP_STUN_PORT", "udp://10.0.0.1:3478")
    monkeypatch.setenv("TS_DEBUG_VERBOSE_DROPS", "nodekey:00")
    bools, port, knob = warnings_of(capfd, "-verify-clients", "false", "-dev")
    assert bools.startswith('"-verify-clients false: read as -verify-clients=false, ')
    assert port.startswith('"DERP_STUN_PORT=udp://10.0.0.1:3478: ignored, ')
    assert knob.startswith('"TS_DEBUG_VERBOSE_DROPS is set, and has no effect here: ')
    assert (served[0].verification.tailscaled, served[0].general.dev, served[0].stun.port) == (
        False,
        True,
        3478,
    )


def test_a_worker_leaves_the_warnings_to_its_supervisor(
    served: list[Config], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    ran: list[Config] = []
    stand_in = SimpleNamespace(
        adopt_rpc_socket=lambda words: words, run=lambda sock, config: ran.append(config)
    )
    monkeypatch.setattr("derp.workers.worker", stand_in, raising=False)
    monkeypatch.setitem(sys.modules, "derp.workers.worker", stand_in)
    monkeypatch.setattr(main.signal, "signal", lambda *_: None)  # type: ignore[attr-defined]
    assert warnings_of(capfd, "worker", "3", "-dev", "-stun", "false") == []
    assert [config.stun.enabled for config in ran] == [False]


def test_debug_logs_that_are_no_bool_are_wrong(
    run: Run, served: list[Config], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("DERP_DEBUG_LOGS", "much")
    assert run("-dev") == (2, "", "derper: DERP_DEBUG_LOGS=much: want true or false\n")
    assert not served


def test_reads_its_own_arguments(run: Run, served: list[Config], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["derper", "-dev", "-stun-port", "4321"])
    assert main.main() == 0
    assert served[0].stun.port == 4321


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (("-stun-port", "x"), "-stun-port x: want a port from 0 to 65535"),
        (("-dev", "--stun-port=65536"), "--stun-port=65536: want a port from 0 to 65535"),
        (("-dev", "-a", "b", "-a"), "-a: nothing comes after it; want a value"),
        (("-hostnam",), "-hostnam: no such flag; did you mean -hostname?"),
        (
            ("-dev", "-home", "a\nb"),
            "-home 'a\\nb': want blank, hidden, or a URL that begins with ",
        ),
        (
            ("-dev", "-secrets-url", "x"),
            "-secrets-url: setec servers are not supported; leave it out, and use -mesh-psk-file",
        ),
        (("-dev", "-mesh-with", "a,,b"), "-mesh-with a,,b: want no empty entry, but host, "),
        (("-certmode=manual", "-c=/k", "-certdir="), "-certdir='': want a directory for"),
    ],
)
def test_a_wrong_value_is_one_line_and_code_2(
    run: Run, served: list[Config], argv: tuple[str, ...], line: str
):
    code, out, err = run(*argv)
    assert (code, out, served) == (2, "", [])
    assert err.startswith(f"derper: {line}")
    assert err.endswith("\n")
    assert err.count("\n") == 1


def test_what_the_machine_refuses_is_one_line_and_code_1(run: Run, monkeypatch: pytest.MonkeyPatch):
    def refuse(config: Config) -> None:
        raise StartError("can't listen on :1: in use")

    monkeypatch.setitem(sys.modules, "derp.service.standalone", SimpleNamespace(run=refuse))
    assert run("-dev") == (1, "", "derper: can't listen on :1: in use\n")


@pytest.mark.parametrize("flag", ["-h", "-help", "--help"])
def test_help(run: Run, served: list[Config], monkeypatch: pytest.MonkeyPatch, flag: str):
    monkeypatch.setenv("HOME", "/home/derp")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    code, out, err = run("-dev", flag)
    assert (code, err, served) == (0, "", [])
    assert out.startswith("Usage: derper [flags]\n")
    assert "\n       derper derpmap [flags] " in out
    assert "\n       derper healthcheck [flags] " in out
    lines = out.splitlines()
    assert max(map(len, lines)) <= 100
    assert max(len(line) for line in lines if not line.startswith("  -")) <= 80
    for entry in flag_table({}, root=True):
        assert re.search(rf"^  .*-{entry.name}\b", out, re.MULTILINE), entry.name
        if entry.variable and not entry.unsupported:
            assert re.search(
                rf"^  -{entry.name} .*variable {entry.variable}( or \w+)?\)$", out, re.MULTILINE
            )


def test_version(run: Run, served: list[Config]):
    code, out, err = run("-version")
    assert (code, err, served) == (0, "", [])
    python = re.escape(sys.version.split()[0])
    openssl = re.escape(" ".join(ssl.OPENSSL_VERSION.split()[:2]))
    assert re.fullmatch(rf"\d+\.\d+\.\d+\S* \(trio-derper, Python {python}, {openssl}\)\n", out)


def test_the_version_is_that_of_the_distribution():
    assert metadata.version("trio-derper") == derp.__version__


def python(*argv: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environ = {"PYTHONPATH": str(Path(derp.__file__).parents[1])}
    return subprocess.run(
        [sys.executable, *argv],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=cwd,
        env=environ,
        check=False,
    )


@pytest.mark.slow
def test_the_command_itself(tmp_path: Path):
    wrong = python("-m", "derp", "-c", "new/derper.key", "-a", ":70000", cwd=tmp_path)
    assert wrong.returncode == 2
    assert wrong.stdout == ""
    assert wrong.stderr == (
        "derper: -a :70000: want :port, ip:port or [ip6]:port, with a port from 0 to 65535, "
        "or unix:/path\n"
    )
    assert list(tmp_path.iterdir()) == []
    helped = python("-m", "derp", "--help", cwd=tmp_path)
    assert (helped.returncode, helped.stderr) == (0, "")


@pytest.mark.slow
def test_help_loads_neither_trio_nor_tls(tmp_path: Path):
    code = (
        "import sys; from derp.cli.main import main; main(['-h']);"
        "print(*sys.modules, file=sys.stderr)"
    )
    loaded = python("-c", code, cwd=tmp_path).stderr.split()
    assert "derp.cli.main" in loaded
    assert {"trio", "ssl", "cryptography", "derp.cli.probe"}.isdisjoint(loaded)


@pytest.mark.slow
def test_the_relay_loads_no_commands(tmp_path: Path):
    code = "import sys, derp.cli.main, derp.service.standalone; print(*sys.modules)"
    loaded = python("-c", code, cwd=tmp_path).stdout.split()
    assert "derp.service.standalone" in loaded
    assert "derp.cli.probe" not in loaded


@pytest.mark.parametrize("command", ["derpmap", "healthcheck"])
def test_commands(run: Run, served: list[Config], command: str):
    code, out, err = run(command, "-h")
    assert (code, err, served) == (0, "", [])
    assert out.startswith(f"Usage: derper {command} [flags]\n")
    code, out, err = run("-dev", command)
    assert (code, out, served) == (2, "", [])
    assert err.startswith(f"derper: {command}: not a flag; ")


_LEFT_BEHIND = """
import threading
from derp.cli import main as cli

def main():
    threading.Thread(target=threading.Event().wait).start()
    print("done")
    return 3

cli.main = main
cli.script()
"""


@pytest.mark.slow
def test_a_thread_that_is_left_behind_delays_no_exit():
    done = subprocess.run(
        [sys.executable, "-c", _LEFT_BEHIND],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, "done\n", "")
