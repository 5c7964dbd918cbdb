"""A relay that runs, asked and steered by the commands, as one process and as several."""

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Self

import nacl.public
import pytest

from derp.wire.control import Request, parse_list
from tests.patience import PATIENCE
from tests.process import derper
from tests.processes.test_workers import children
from tests.support import derp
from tests.support.waiting import until

BY = rf'by="uid {os.geteuid()}, pid \d+"'


class Client:
    """A client that stays logged in."""

    def __init__(self, port: int, private: nacl.public.PrivateKey | None = None) -> None:
        self.node = derp.Node(private)
        self._sock = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self._sock.sendall(derp.upgrade_request(*derp.UPGRADE, "Derp-Fast-Start: 1"))
        kind, payload = self._next()
        assert kind == derp.SERVER_KEY
        self._sock.sendall(self.node.client_info(payload[8:]))
        self.refused = self._next()[0] != derp.SERVER_INFO

    @property
    def key(self) -> str:
        return f"nodekey:{self.node.key.hex()}"

    def _next(self) -> tuple[int, bytes]:
        """The next frame; type -1 at the end."""
        while (found := self.node.frames.next()) is None:
            try:
                data = self._sock.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                return -1, b""
            self.node.frames.feed(data)
        return found

    def wait_for_end(self) -> None:
        while self._next()[0] != -1:
            pass

    def close(self) -> None:
        self._sock.close()


def command(home: Path, *words: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "derp", *words, "-c", str(home / "derper.key")],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == code, (done.stdout, done.stderr)
    return done.stdout or done.stderr


def clients(home: Path) -> dict[str, dict[str, Any]]:
    lines = command(home, "clients", "-json").splitlines()
    return {row["key"]: row for row in map(json.loads, lines)}


@pytest.mark.parametrize("workers", ["1", "2"])
def test_clients_are_listed_and_steered(tmp_path: Path, workers: str) -> None:
    path = tmp_path / "derper.sock"
    with derper(tmp_path, "-workers", workers, tls=False) as relay, ExitStack() as stack:
        port = relay.port("HTTP")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        found = [stack.enter_context(closing(Client(port))) for _ in range(6)]
        twin = stack.enter_context(closing(Client(port, found[0].node.private)))
        listed = clients(tmp_path)
        assert listed.keys() == {client.key for client in found}
        assert listed[twin.key]["duplicate"]
        assert not listed[found[1].key]["duplicate"]
        assert {row["worker"] for row in listed.values()} <= set(range(int(workers)))

        assert "(2 connections)" in command(tmp_path, "kick", twin.key)
        twin.wait_for_end()
        found[0].wait_for_end()
        assert twin.key not in clients(tmp_path)
        relay.wait_for(f'"disconnected by an operator".* {BY} connections=2')
        assert "is not connected" in command(tmp_path, "kick", twin.key, code=1)

        said = command(tmp_path, "deny", found[1].key[8:24])
        assert "(1 connection ended) until the relay stops: there is no -policy" in said
        found[1].wait_for_end()
        for _ in range(6):
            again = stack.enter_context(closing(Client(port, found[1].node.private)))
            assert again.refused
        # On a relay that checks nobody else, too, and of all workers.
        (refused,) = command(tmp_path, "keys", "-refused").splitlines()
        assert refused.startswith(f"{found[1].key} 6 times, last ")
        assert refused.endswith(" ago from 127.0.0.1, by policy: the key is denied")
        assert f"denied  {found[1].key} command\n" in command(tmp_path, "keys")
        command(tmp_path, "allow", found[1].key)
        assert not stack.enter_context(closing(Client(port, found[1].node.private))).refused

        command(tmp_path, "limit", found[2].key, "5", "Mbit/s")
        assert clients(tmp_path)[found[2].key]["limit"] == 625_000
        command(tmp_path, "limit", found[2].key, "none")
        assert clients(tmp_path)[found[2].key]["limit"] is None
        assert relay.stop() == 0
    assert not path.exists()
    assert "no such socket" in command(tmp_path, "clients", code=1)


def test_the_lists_name_a_worker_that_hangs(tmp_path: Path) -> None:
    """Those of the commands and the page; they come without its clients, and in time."""
    with derper(tmp_path, "-workers", "2", tls=False) as relay, ExitStack() as stack:
        port = relay.port("HTTP")
        relay.wait_for("workers share the work")
        for client in [stack.enter_context(closing(Client(port))) for _ in range(16)]:
            assert not client.refused
        before, pids = clients(tmp_path), children(relay)
        assert {row["worker"] for row in before.values()} == set(pids) == {0, 1}
        pages = [stack.enter_context(Looking(port)) for _ in range(8)]

        # It goes on before it counts as hung: nothing is missing.
        os.kill(pids[1], signal.SIGSTOP)
        asked = stack.enter_context(closing(ask(tmp_path, "clients")))
        os.kill(pids[1], signal.SIGCONT)
        found, more, silent = parse_list(asked.readline())
        assert ({row["key"] for row in found}, more, silent) == (before.keys(), False, [])

        lists = ("clients", "-json"), ("keys", "-refused")
        asking = [stack.enter_context(started(tmp_path, *words)) for words in lists]
        os.kill(pids[1], signal.SIGSTOP)
        rows, refused = [each.communicate("now\n", PATIENCE) for each in asking]
        others = {key for key, row in before.items() if row["worker"] == 0}
        missing = "worker 1 did not answer, and its {} are missing"
        assert {json.loads(line)["key"] for line in rows[0].splitlines()} == others
        assert rows[1] == f"derper: clients: {missing.format('clients')}; run it again\n"
        assert refused == ("", f"derper: keys: {missing.format('refusals')}; run it again\n")
        # Pages are shown by either worker, so some of these by the other one.
        until("a page says so", lambda: any(page.says(missing.format("clients")) for page in pages))
        relay.wait_for("a worker ended, and is started anew.*worker=1 reason=.it hung")
        until("the new one answers", lambda: set(children(relay)) == {0, 1})
        assert set(clients(tmp_path)) == others
        assert relay.stop() == 0


def ask(home: Path, do: str) -> BinaryIO:
    """Ask for a list without a command; return what the answer is read from."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(str(home / "derper.sock"))
        sock.sendall(Request(do).to_line())
        return sock.makefile("rb")


@contextmanager
def started(home: Path, *words: str) -> "Iterator[subprocess.Popen[str]]":
    """Start a command that asks the relay once it is given a line: a start takes its time."""
    waits = (
        f"import derp.cli.{words[0]}; from derp.cli.main import main;"
        "print(flush=True); input(); raise SystemExit(main())"
    )
    command = [sys.executable, "-c", waits, *words, "-c", str(home / "derper.key")]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "\n"
        try:
            yield process
        finally:
            process.kill()


class Looking:
    """A browser at the live page: what its stream of events has brought."""

    def __init__(self, port: int) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port), PATIENCE)
        head = b"GET /debug/events HTTP/1.1\r\nHost: localhost\r\n"
        self._sock.sendall(head + b"Accept: text/event-stream\r\n\r\n")
        self._seen = self._sock.recv(65536)
        assert self._seen.startswith(b"HTTP/1.1 200 ")
        self._sock.setblocking(False)

    def says(self, words: str) -> bool:
        with suppress(BlockingIOError):
            self._seen += self._sock.recv(1 << 20)
        return words.encode() in self._seen

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_list_is_kept_by_the_commands(tmp_path: Path, workers: str) -> None:
    """Without a word about the list in the command: the relay knows where it is."""
    listed = tmp_path / "nodekeys"
    listed.write_text(f"nodekey:{'11' * 32} other # lent\n")
    listed.chmod(0o640)
    flags = ("-verify-client-file", str(listed), "-workers", workers)
    with derper(tmp_path, *flags, tls=False) as relay, ExitStack() as stack:
        port = relay.port("HTTP")
        stranger = stack.enter_context(closing(Client(port)))
        assert stranger.refused
        (row,) = map(json.loads, command(tmp_path, "keys", "-refused", "-json").splitlines())
        assert (row["key"], row["address"], row["source"]) == (stranger.key, "127.0.0.1", "file")
        said = command(tmp_path, "allow", row["key"], "old", "laptop")
        assert said == f"{stranger.key} is allowed, which stands in {listed} now\n"
        client = stack.enter_context(closing(Client(port, stranger.node.private)))
        assert not client.refused
        assert f"allowed {client.key} file old laptop\n" in command(tmp_path, "keys")
        assert clients(tmp_path)[client.key]["label"] == "old laptop"

        said = command(tmp_path, "deny", "old laptop")
        assert said.startswith(f"{client.key} is denied (1 connection ended)")
        assert said.endswith(f"; it is no longer in {listed}\n")
        client.wait_for_end()
        again = stack.enter_context(closing(Client(port, stranger.node.private)))
        assert again.refused
        relay.wait_for(
            r'msg=refused .*label="old laptop" .*is refused by policy: the key is denied'
        )
        assert "from 127.0.0.1, old laptop, by policy" in command(tmp_path, "keys", "-refused")
        assert listed.read_text() == f"nodekey:{'11' * 32} other # lent\n"
        assert stat.S_IMODE(listed.stat().st_mode) == 0o640
        assert not re.search("Traceback", "\n".join(relay.log))


def test_a_change_outlives_the_relay_in_its_policy(tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text("[defaults]\n# nobody is denied yet\n")
    flags = ("-policy", str(policy))
    with derper(tmp_path, *flags, tls=False) as relay:
        client = Client(relay.port("HTTP"))
        assert f"which stands in {policy} now" in command(tmp_path, "deny", client.key)
        client.close()
        relay.signal(signal.SIGKILL)
        relay.wait()
    # Killed, it has left its socket behind.
    assert (tmp_path / "derper.sock").is_socket()
    with derper(tmp_path, *flags, tls=False) as relay:
        client = Client(relay.port("HTTP"), client.node.private)
        assert client.refused
        client.close()
        assert command(tmp_path, "clients") == "no client is connected\n"


def test_a_restarted_worker_has_what_is_in_no_file(tmp_path: Path) -> None:
    with derper(tmp_path, "-workers", "2", tls=False) as relay:
        port = relay.port("HTTP")
        client = Client(port)
        command(tmp_path, "deny", client.key)
        client.close()
        before = children(relay)
        for pid in before.values():
            os.kill(pid, signal.SIGKILL)
        while len(now := children(relay)) < 2 or set(now.values()) & set(before.values()):
            pass
        for _ in range(8):
            again = Client(port, client.node.private)
            assert again.refused
            again.close()


class TestTheDefaultPath:
    def test_a_second_relay_with_the_same_key_serves_without(self, tmp_path: Path) -> None:
        with derper(tmp_path, tls=False) as first:
            first.port("HTTP")
            with derper(tmp_path, tls=False) as second:
                second.wait_for("derper clients, kick and the like can't be used.*in use by")
                Client(second.port("HTTP")).close()
            assert command(tmp_path, "clients") == "no client is connected\n"

    def test_one_that_is_named_has_to_be_had(self, tmp_path: Path) -> None:
        (tmp_path / "s").write_text("mine")
        with derper(tmp_path, "-control-socket", str(tmp_path / "s"), tls=False) as relay:
            assert relay.wait() == 1
            line = relay.log[-1]
        assert line.startswith("derper: -control-socket: can't listen on unix:")
        assert (tmp_path / "s").read_text() == "mine"


def test_packets_move_while_the_socket_is_flooded(tmp_path: Path) -> None:
    """By connections that send garbage, requests without end, and nothing."""
    with derper(tmp_path, tls=False) as relay, ExitStack() as stack:
        port = relay.port("HTTP")
        one, other = (stack.enter_context(closing(Client(port))) for _ in range(2))
        floods = []
        for data in (b"x" * 4000, b'{"v": 1, "do": "clients"}\n' * 100, b'{"v"', b"\xff\n") * 2:
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.connect(str(tmp_path / "derper.sock"))
            sock.setblocking(False)
            floods.append((sock, data))
        for number in range(200):
            for sock, data in floods:
                try:
                    sock.send(data)
                except OSError:
                    continue
            packet = number.to_bytes(4, "big")
            one._sock.sendall(derp.frame(derp.SEND_PACKET, other.node.key + packet))
            assert other._next() == (derp.RECV_PACKET, one.node.key + packet)
        for sock, _ in floods:
            sock.close()
        assert clients(tmp_path).keys() == {one.key, other.key}
        assert not re.search("Traceback", "\n".join(relay.log))
