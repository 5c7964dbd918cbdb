"""The commands that ask a running relay: derper clients, kick, deny, allow, limit."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from derp.cli import control, procfs
from tests.cli.controlled import done, listing, relay
from tests.patience import PATIENCE

Run = Callable[..., tuple[int, str, str]]
KEY = f"nodekey:{'cd' * 32}"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "derper.sock"


@pytest.fixture(autouse=True)
def _no_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procfs, "relay_of_container", lambda: 0)


class TestWhereItIs:
    def test_beside_the_key_file(self, run: Run, path: Path) -> None:
        with relay(path, listing()):
            assert run("clients", "-c", str(path.with_name("derper.key"))) == (
                0,
                "no client is connected\n",
                "",
            )

    def test_by_flag_and_by_variable(
        self, run: Run, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with relay(path, listing()):
            assert run("clients", f"--control-socket={path}")[0] == 0
            monkeypatch.setenv("DERP_CONTROL_SOCKET", str(path))
            assert run("clients")[0] == 0
            monkeypatch.delenv("DERP_CONTROL_SOCKET")
            monkeypatch.setenv("DERP_KEY_FILE", str(path.with_name("derper.key")))
            assert run("clients")[0] == 0

    @pytest.mark.slow
    def test_that_of_a_process(self, run: Run, path: Path) -> None:
        """Its working directory counts for a path that is not absolute."""
        command = [sys.executable, "-c", "input()", "derper", "-c", "derper.key"]
        with (
            relay(path, listing()),
            subprocess.Popen(command, stdin=-1, cwd=path.parent) as process,
        ):
            assert process.stdin is not None
            cmdline = Path(f"/proc/{process.pid}/cmdline")
            while b"input" not in cmdline.read_bytes():
                pass
            assert run("clients", "-of", str(process.pid))[0] == 0
            process.stdin.close()

    def test_that_of_a_containers_relay(
        self, run: Run, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(procfs, "relay_of_container", lambda: 7)
        monkeypatch.setattr(procfs, "arguments_of", lambda pid: ["-c", f"{path.parent}/derper.key"])
        monkeypatch.setattr(procfs, "variables_of", lambda pid: {})
        with relay(path, listing()):
            assert run("clients")[0] == 0
            # What the operator says goes before.
            code, _, err = run("clients", "-c", f"{path.parent}/other.key")
        assert code == 1
        assert "other.sock: no such socket" in err

    @pytest.mark.parametrize("label", ["c", "of", "control-socket", "laptop"])
    def test_a_label_is_no_flag(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, label: str
    ) -> None:
        monkeypatch.setattr(procfs, "relay_of_container", lambda: 7)
        monkeypatch.setattr(procfs, "arguments_of", lambda pid: ["-c", f"{path.parent}/derper.key"])
        monkeypatch.setattr(procfs, "variables_of", lambda pid: {})
        arguments = control.parse([label], {}, (), words=True)
        assert arguments is not None
        assert [*arguments.words] == [label]
        assert arguments.settings["of"].value == 7

    @pytest.mark.parametrize("flags", [("-dev",), ("-control-socket=none",)])
    def test_a_relay_that_has_none(self, run: Run, flags: tuple[str, ...]) -> None:
        code, out, err = run("clients", *flags)
        assert (code, out) == (2, "")
        assert err.startswith(
            "derper: this relay has no control socket; start it with one, or name"
        )


class TestWhatIsWrong:
    """Each has one line, which ends with what to do."""

    def fails(self, run: Run, path: Path, *words: str) -> str:
        code, out, err = run(*(words or ("clients",)), "-control-socket", str(path))
        assert (code, out) == (1, "")
        (line,) = err.splitlines()
        return line

    def test_no_socket(self, run: Run, path: Path) -> None:
        line = self.fails(run, path)
        assert line == (
            f"derper: {path}: no such socket; start the relay, or name the relay with -of PID, "
            "or its socket with -control-socket"
        )

    def test_one_that_was_left_behind(self, run: Run, path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(path))
        assert "its relay has ended; start it, or name" in self.fails(run, path)

    @pytest.mark.parametrize("error", [13, 1])
    def test_one_of_another_user(
        self, run: Run, path: Path, monkeypatch: pytest.MonkeyPatch, error: int
    ) -> None:
        def refuse(sock: socket.socket, address: object) -> None:
            raise OSError(error, os.strerror(error))

        class Refusing(socket.socket):
            connect = refuse  # type: ignore[assignment]

        monkeypatch.setattr(socket, "socket", Refusing)
        line = self.fails(run, path)
        assert f"user {os.geteuid()} may not use it; run this as root, or as the relay's" in line

    def test_what_is_no_socket(self, run: Run, path: Path) -> None:
        path.mkdir()
        assert "name the relay with -of" in self.fails(run, path)

    @pytest.mark.parametrize(
        ("answers", "message"),
        [
            ([{"v": 1, "error": "want another key"}], "derper: want another key"),
            ([None], "the relay has closed the connection; "),
            ([b"<html>"], "what answers is no derper, or one of another version"),
            ([b"x" * (2 << 20)], "want a line of at most"),
            ([{"v": 1}], "is no derper"),
            ([{"v": 2, "clients": [], "more": False}], "is no derper"),
            ([{"v": 1, "clients": [7], "more": False}], "is no derper"),
        ],
    )
    def test_what_the_relay_says(
        self, run: Run, path: Path, answers: list[Any], message: str
    ) -> None:
        with relay(path, lambda request: answers):
            assert message in self.fails(run, path)

    def test_a_relay_that_hangs(
        self, run: Run, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(control, "TIMEOUT", 0.05)
        with relay(path, lambda request: []):
            assert "timed out; look into the relay's log" in self.fails(run, path)


def test_clients_as_json(run: Run, path: Path) -> None:
    with relay(path, listing({"key": KEY}, {"sent": 7})) as asked:
        code, out, err = run("clients", "--json", "-control-socket", str(path))
    assert (code, err) == (0, "")
    first, second = map(json.loads, out.splitlines())
    assert (first["key"], second["sent"]) == (KEY, 7)
    assert asked.asked == [{"v": 1, "do": "clients"}]


def test_clients_as_a_table(run: Run, path: Path) -> None:
    with relay(path, listing({"sent": 2000, "home": True}, {"received": 5_000_000})):
        _, out, _ = run("clients", "-control-socket", str(path))
    head, most, least, both = out.splitlines()
    assert head.split() == ["key", "address", "since", "sent", "received"]
    assert most.split()[-2:] == ["5.00", "MB"]
    assert least.endswith(" home")
    assert both == "2 clients, 2.00 kB to them, 5.00 MB from them"


def test_workers_that_do_not_answer_are_told_of(run: Run, path: Path) -> None:
    with relay(path, lambda _: [{"v": 1, "clients": [], "more": False, "silent": [1]}]):
        missing = "worker 1 did not answer, and its clients are missing"
        assert run("clients", "-control-socket", str(path)) == (0, f"{missing}\n", "")
        told = f"derper: clients: {missing}; run it again\n"
        assert run("clients", "--json", "-control-socket", str(path)) == (0, "", told)


class TestSteering:
    @pytest.mark.parametrize("command", ["kick", "deny", "allow"])
    def test_one_key(self, run: Run, path: Path, command: str) -> None:
        with relay(path, done) as asked:
            for words in (
                (command, KEY, "-control-socket", str(path)),
                (command, "-control-socket", str(path), "-dev=false", KEY),
                (command, f"-control-socket={path}", "-poller", "--", KEY),
            ):
                assert run(*words) == (0, f"{command} it was\n", "")
        assert asked.asked == [{"v": 1, "do": command, "key": KEY}] * 3

    @pytest.mark.parametrize(
        ("words", "rate"),
        [
            (("10 Mbit/s",), "10 Mbit/s"),
            (("10", "Mbit/s"), "10 Mbit/s"),
            (("10Mbit/s",), "10Mbit/s"),
            (("unlimited",), "unlimited"),
            (("none",), None),
        ],
    )
    def test_a_rate(self, run: Run, path: Path, words: tuple[str, ...], rate: str | None) -> None:
        with relay(path, done) as asked:
            assert run("limit", "x", *words, "-control-socket", str(path))[0] == 0
        assert asked.asked == [{"v": 1, "do": "limit", "key": "x", "rate": rate}]

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (("kick",), "kick: want one key; -h explains it"),
            (("kick", "a", "b"), "kick: want one key"),
            (("deny",), "deny: want a key, and a label if you like; -h explains it"),
            (("limit", "a"), 'limit: want a key and a rate such as "10 Mbit/s", unlimited or none'),
            (("limit", "a", "10"), 'limit: 10: want a rate such as "10 Mbit/s"'),
            (("limit", "a", "10", "Mb/s"), "limit: 10 Mb/s: want a rate"),
            (("kick", "a", "-nosuch"), "-nosuch: no such flag"),
            (("clients", "a"), "a: not a flag"),
        ],
    )
    def test_what_is_no_order(self, run: Run, words: tuple[str, ...], message: str) -> None:
        code, out, err = run(*words, "-control-socket", "/nonexistent")
        assert (code, out) == (2, "")
        assert message in err
        assert len(err.splitlines()) == 1

    @pytest.mark.parametrize(
        "command", ["clients", "kick", "deny", "allow", "limit", "top", "keys"]
    )
    def test_help(self, run: Run, command: str) -> None:
        code, out, err = run(command, "-h")
        assert (code, err) == (0, "")
        assert out.startswith(f"Usage: derper {command} ")
        assert "-of PID" in out
        assert max(map(len, out.splitlines())) <= 80


@pytest.mark.slow
def test_the_command_alone(path: Path) -> None:
    """It needs no more than it is told, and no variable."""
    with relay(path, listing()):
        found = subprocess.run(
            [sys.executable, "-m", "derp", "clients", "-control-socket", str(path)],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            env={},
            check=False,
        )
    assert (found.returncode, found.stderr) == (0, "")
