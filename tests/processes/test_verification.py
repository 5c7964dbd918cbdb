"""The command with clients checked, as a process."""

import contextlib
import http.client
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import nacl.public
import pytest

from derp.wire.frames import HEADER
from derp.wire.keys import node_public_text
from tests.patience import PATIENCE
from tests.peers import Peer
from tests.process import Derper, derper
from tests.support.derp import UPGRADE, upgrade_request


def login(port: int, key: nacl.public.PrivateKey) -> bool:
    """Log in with plain HTTP; return whether the relay let us in."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as sock:
        sock.sendall(upgrade_request(*UPGRADE))
        received = b""
        while b"\r\n\r\n" not in received:
            received += sock.recv(4096)
        received = received.partition(b"\r\n\r\n")[2]
        while len(received) < 45:
            received += sock.recv(4096)
        peer = Peer(None, key)  # type: ignore[arg-type]
        sock.sendall(peer.client_info(received[13:45]))
        answer = received[45:] or sock.recv(4096)
        return bool(answer) and HEADER.unpack_from(answer)[0] == 0x03


def page(relay: Derper, path: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", relay.port("HTTP"), timeout=PATIENCE)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def new_key() -> tuple[nacl.public.PrivateKey, str]:
    key = nacl.public.PrivateKey.generate()
    return key, node_public_text(bytes(key.public_key))


def test_a_list_of_keys(tmp_path: Path) -> None:
    (member, listed), (stranger, unlisted) = new_key(), new_key()
    nodes = tmp_path / "nodes"
    nodes.write_text(f"# ours\n{listed} laptop\n")
    with derper(tmp_path, "-verify-client-file", str(nodes), tls=False) as relay:
        relay.wait_for('"clients are checked" admitted="in -verify-client-file"')
        port = relay.port("HTTP")
        assert login(port, member)
        assert not login(port, stranger)
        relay.wait_for(f"refused.*not_admitted: {unlisted} is refused by file")
        assert f"Refused {unlisted}" in page(relay, "/debug/")
        metrics = page(relay, "/debug/varz")
        assert 'derper_admissions{source="file",outcome="refused"} 1\n' in metrics
        assert 'derper_admission_verdicts{verdict="allowed"} 1\n' in metrics
        assert 'derp_connection_ends{reason="not_admitted"} 1\n' in metrics

        nodes.write_text(f"{unlisted}\nnodekey:12\n")
        relay.signal(signal.SIGHUP)
        relay.wait_for("the old list stays in force.*line 2: want one key")
        assert login(port, member)

        nodes.write_text(f"{unlisted}\n")
        relay.signal(signal.SIGHUP)
        relay.wait_for("new list of node keys.*keys=1 added=1 removed=1")
        assert not login(port, member)
        assert login(port, stranger)


@pytest.fixture
def controller() -> Iterator[tuple[str, list[bytes]]]:
    """An admission controller that allows everybody; its URL, and what it was asked."""
    asked: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            asked.append(body + b" " + self.headers.get("Authorization", "none").encode())
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"Allow": true}')

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/verify", asked
        server.shutdown()
        thread.join()


def test_a_url(tmp_path: Path, controller: tuple[str, list[bytes]]) -> None:
    url, asked = controller
    key, text = new_key()
    flags = ("-verify-client-url", url, "-verify-client-url-authorization", "Bearer s3cret")
    with derper(tmp_path, *flags, tls=False) as relay:
        relay.wait_for("every client is admitted; -verify-client-url-fail-open=false refuses them")
        assert login(relay.port("HTTP"), key)
        assert login(relay.port("HTTP"), key)
        (question,) = asked
        assert text.encode() in question
        assert b'"Source":"127.0.0.1"' in question.replace(b" ", b"")
        assert question.endswith(b" Bearer s3cret")
        assert not any("s3cret" in line for line in relay.log)


@pytest.mark.parametrize("fail_open", ["true", "false"])
def test_a_url_that_can_t_be_reached(tmp_path: Path, fail_open: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/verify"
    flags = ("-verify-client-url", url, f"-verify-client-url-fail-open={fail_open}")
    with derper(tmp_path, *flags, tls=False) as relay:
        assert login(relay.port("HTTP"), new_key()[0]) == (fail_open == "true")
        outcome = "admitted" if fail_open == "true" else "refused"
        relay.wait_for(f"can't verify clients, so they are {outcome}")


HANGING_DNS = """
import socket, sys, time

look_up = socket.getaddrinfo


def hang(host, port, family=0, type=0, proto=0, flags=0):
    if host in ("hangs.test", b"hangs.test") and not flags & socket.AI_NUMERICHOST:
        print("a look-up hangs", file=sys.stderr, flush=True)
        time.sleep(60)
    return look_up(host, port, family, type, proto, flags)


socket.getaddrinfo = hang
"""


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_list_is_read_while_look_ups_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: str
) -> None:
    # Every Python program loads a module of that name first.
    (tmp_path / "sitecustomize.py").write_text(HANGING_DNS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    nodes = tmp_path / "nodes"
    (member, listed), (_, other) = new_key(), new_key()
    nodes.write_text(other)
    flags = ("-verify-client-file", str(nodes), "-verify-client-url", "http://hangs.test/")
    with derper(tmp_path, *flags, "-workers", workers, tls=False) as relay, ExitStack() as stack:
        port = relay.port("HTTP")
        for _ in range(100):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", port), 20))
            sock.sendall(upgrade_request(*UPGRADE))
            received = b""
            while len(received.partition(b"\r\n\r\n")[2]) < 45:
                received += sock.recv(4096)
            peer = Peer(None, new_key()[0])  # type: ignore[arg-type]
            sock.sendall(peer.client_info(received.partition(b"\r\n\r\n")[2][13:45]))
        relay.wait_for("a look-up hangs")
        nodes.write_text(listed)
        relay.signal(signal.SIGHUP)
        relay.wait_for("new list of node keys.*keys=1 added=1 removed=1")
        assert login(port, member)
        assert sum("a look-up hangs" in line for line in relay.log) == 1


def test_no_tailscaled(tmp_path: Path) -> None:
    path = tmp_path / "tailscaled.sock"
    with derper(tmp_path, "-verify-clients", "-socket", str(path), tls=False) as relay:
        assert not login(relay.port("HTTP"), new_key()[0])
        relay.wait_for(f"so they are refused.*source=tailscaled.*{path}")
        assert "tailscaled" in page(relay, "/debug/check")


def test_an_open_relay_says_so(tmp_path: Path) -> None:
    with derper(tmp_path, tls=False) as relay:
        relay.wait_for("any client may use this relay")


@pytest.mark.parametrize("content", [None, "nodekey:12"])
def test_a_list_that_can_t_be_used_ends_the_start(tmp_path: Path, content: str | None) -> None:
    nodes = tmp_path / "nodes"
    if content is not None:
        nodes.write_text(content)
    arguments = ["-a", "127.0.0.1:0", "-stun=false", "-c", str(tmp_path / "key")]
    done = subprocess.run(
        [sys.executable, "-m", "derp", *arguments, "-verify-client-file", str(nodes)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"derper: -verify-client-file '{nodes}': ")
    assert not (tmp_path / "key").exists()


SHORTER_TIMES = """
from derp.admission import model

model.ANSWER_TIMEOUT, model.LATEST_ANSWER = 1.0, {latest}

from derp.admission import checker

checker.VERDICT_TIMEOUT = 2.0
"""
"""For a relay whose admission URL is slow: a second in place of five."""


@pytest.fixture
def slow_controller() -> Iterator[tuple[str, Callable[[bytes], None]]]:
    """An admission controller that takes longer than the relay waits; admits what it is told to."""
    members: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            time.sleep(1.5)
            self.send_response(200)
            self.end_headers()
            allowed = any(member in body for member in members)
            with contextlib.suppress(OSError):
                self.wfile.write(b'{"Allow": %s}' % (b"true" if allowed else b"false"))

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/verify", members.append
        server.shutdown()
        thread.join()


def test_a_slow_url_lets_no_stranger_in(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    slow_controller: tuple[str, Callable[[bytes], None]],
) -> None:
    """It fails open, and all come at once to a relay that has just been started."""
    (tmp_path / "sitecustomize.py").write_text(SHORTER_TIMES.format(latest=30.0))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    url, admit = slow_controller
    member, text = new_key()
    admit(text.encode())
    with derper(tmp_path, "-verify-client-url", url, tls=False) as relay:
        port = relay.port("HTTP")

        def insist() -> None:
            while not login(port, member):
                time.sleep(0.1)

        with ThreadPoolExecutor(31) as pool:
            member_is_in = pool.submit(insist)
            strangers = [pool.submit(login, port, new_key()[0]) for _ in range(30)]
            assert not any(stranger.result() for stranger in strangers)
            member_is_in.result(PATIENCE)
        relay.wait_for("can't verify clients, so they are refused")
        assert 'verdict="failed_open"} 0\n' in page(relay, "/debug/varz")


def test_a_url_that_hangs_fails_open_after_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel accepts connections, and nobody takes them."""
    (tmp_path / "sitecustomize.py").write_text(SHORTER_TIMES.format(latest=4.0))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/verify"
        with derper(tmp_path, "-verify-client-url", url, tls=False) as relay:
            port = relay.port("HTTP")
            assert not login(port, new_key()[0])
            relay.wait_for("so they are refused.*can be reached, but gives no answer in time")
            began = time.monotonic()
            while not login(port, new_key()[0]):
                assert time.monotonic() - began < PATIENCE
            assert 'outcome="late"}' in page(relay, "/debug/varz")
