"""The command `derper top`: what it shows, and that it leaves the terminal as it was."""

import io
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from certs.installing import how_to_install
from derp.cli import procfs
from derp.cli.topview import TopView
from tests.cli.controlled import FIELDS, listing, relay
from tests.patience import PATIENCE

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _no_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procfs, "relay_of_container", lambda: 0)


def client(number: int, **changes: Any) -> dict[str, Any]:
    fields = {"connection": str(number), "key": f"nodekey:{number:064x}", "since": time.time()}
    return FIELDS | fields | changes


def shown(view: TopView, width: int = 120, height: int = 24) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, height=height).print(view.render(width, height))
    return [line.rstrip() for line in out.getvalue().splitlines()]


class TestView:
    def test_rates_and_their_order(self) -> None:
        view = TopView()
        before = [client(number, sent=1000 * number) for number in range(3)]
        view.sampled(before, (), 5.0)
        head, _, heads, first, *_ = shown(view)
        assert head == "derper: 3 clients, 0 bit/s to them, 0 bit/s from them; q ends this"
        # There is no rate yet: those that have moved most come first.
        assert heads.split() == [
            "key",
            "address",
            "since",
            "to",
            "it",
            "from",
            "it",
            "sent",
            "received",
        ]
        assert first.split() == [
            "000000000000",
            *["192.0.2.1", "0s", "…", "…", "2.00", "kB", "0", "B"],
        ]
        after = [client(0, received=500, label="[red]"), *before[1:], client(9, sent=10**9)]
        view.sampled(after, (), 7.0)
        head, _, heads, first, second, *_ = shown(view)
        assert head == "derper: 4 clients, 0 bit/s to them, 2.00 kbit/s from them; q ends this"
        assert first.split()[1:3] == ["[red]", "192.0.2.1"]
        assert "0 bit/s 2.00 kbit/s" in first
        # It has just come: what it has moved already says nothing of its rate.
        assert "…" in second

    def test_a_connection_that_began_anew_has_no_rate(self) -> None:
        view = TopView()
        view.sampled([client(1, sent=5000)], (), 1.0)
        view.sampled([client(1, sent=10)], (), 2.0)
        assert " 0 bit/s to them" in shown(view)[0]

    def test_what_is_too_much_for_the_terminal(self) -> None:
        view = TopView()
        full = {
            "label": "laptop",
            "packets_dropped": 5,
            "queued_bytes": 5,
            "limit": 125_000,
            "home": True,
        }
        view.sampled([client(number, **full) for number in range(50)], (), 1.0)
        lines = shown(view, width=150, height=10)
        assert len(lines) <= 10
        assert lines[-1] == "and 45 more"
        assert "dropped" in lines[2]
        for width in (100, 80, 60, 40):
            lines = shown(view, width=width, height=10)
            assert lines[2].startswith("key ")
            assert "label" in lines[2]
            assert max(map(len, lines[2:])) <= width
            assert "000000000000 laptop" in lines[3]
        assert "address" not in shown(view, width=40)[2]

    def test_a_worker_that_does_not_answer_is_named(self) -> None:
        view = TopView()
        for silent, told in (
            ([1], "worker 1 did not answer, and its clients are missing"),
            ([0, 2], "workers 0 and 2 did not answer, and their clients are missing"),
        ):
            view.sampled([client(1)], silent, 1.0)
            assert shown(view)[-1] == told
            view.sampled([client(number) for number in range(9)], silent, 2.0)
            assert shown(view, height=10)[-1] == f"and 4 more; {told}"
        view.sampled([client(1)], (), 3.0)
        assert "answer" not in "".join(shown(view))

    def test_trouble_is_told_until_it_is_over(self) -> None:
        view = TopView()
        assert shown(view)[-1] == "asking the relay"
        view.sampled([client(1)], (), 1.0)
        view.failed("it has ended; start it")
        head, trouble = shown(view)
        assert head.startswith("derper: 0 clients")
        assert trouble == "it has ended; start it"
        view.sampled([client(1)], (), 2.0)
        assert "it has ended" not in "".join(shown(view))


class TestRefused:
    def test_without_rich(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "rich", None)
        code, out, err = run("top")
        assert (code, out) == (1, "")
        assert err == (
            "derper: top: needs rich, unlike derper clients, which prints a list; "
            f"{how_to_install('rich>=13.7')}\n"
        )

    def test_without_a_terminal(self, run: Run) -> None:
        code, _, err = run("top", "-control-socket", "/nonexistent")
        assert (code, err) == (1, "derper: top: want a terminal; derper clients prints a list\n")

    @pytest.mark.parametrize("every", ["1", "0.1s", "2m", "nan"])
    def test_a_time_that_is_none(self, run: Run, every: str) -> None:
        code, _, err = run("top", "-every", every)
        assert code == 2
        assert err.startswith(f"derper: -every {every}: want a duration")

    def test_without_a_relay(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """The line is on the terminal, not on a screen that is gone with the program."""
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        code, out, err = run("top", "-control-socket", "/nonexistent")
        assert (code, out) == (1, "")
        assert "/nonexistent: no such socket" in err


class Terminal:
    """The command at a terminal of its own."""

    def __init__(self, path: Path) -> None:
        self._ours, theirs = pty.openpty()
        self.before = termios.tcgetattr(theirs)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "derp", "top", "-every", "500ms", "-control-socket", str(path)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            # Tests that run in a shell's background begin with SIGINT ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
            env=os.environ | {"TERM": "xterm", "COLUMNS": "120", "LINES": "24"},
        )
        self._theirs = theirs
        self._seen = ""

    def wait_for(self, pattern: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not re.search(pattern, self._seen):
            assert time.monotonic() < deadline, self._seen
            if select.select([self._ours], [], [], 0.1)[0]:
                self._seen += os.read(self._ours, 65536).decode(errors="replace")
        self._seen = ""

    def press(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def end(self) -> int:
        """Wait for its end; see that the terminal is as it was."""
        deadline = time.monotonic() + PATIENCE
        # A terminal that nobody reads from holds up who writes to it.
        while (code := self.process.poll()) is None:
            assert time.monotonic() < deadline
            if select.select([self._ours], [], [], 0.1)[0]:
                os.read(self._ours, 65536)
        assert termios.tcgetattr(self._theirs) == self.before
        return code

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)
        os.close(self._theirs)


@contextmanager
def terminal(path: Path) -> Iterator[Terminal]:
    found = Terminal(path)
    try:
        yield found
    finally:
        found.close()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["q", "interrupt"])
def test_at_a_terminal(tmp_path: Path, how: str) -> None:
    path = tmp_path / "s"
    with terminal_and_relay(path) as (top, asked):
        top.wait_for("abababababab")
        asked.answer = listing({"label": "printer"})
        top.wait_for("printer")
        # The relay is restarted.
        asked.close()
        path.unlink()
        top.wait_for("no such socket")
        with relay(path, listing({"label": "again"})):
            top.wait_for("again")
            top.press("x")
            if how == "q":
                top.press("q")
            else:
                top.process.send_signal(signal.SIGINT)
            assert top.end() == 0


@contextmanager
def terminal_and_relay(path: Path) -> Iterator[tuple[Terminal, Any]]:
    with relay(path, listing({})) as asked, terminal(path) as top:
        yield top, asked
