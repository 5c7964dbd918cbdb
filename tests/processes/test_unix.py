"""A relay that listens at a path, as behind a proxy on the same host: it knows no addresses."""

import json
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import trio

from tests.patience import PATIENCE
from tests.peers import PRESENT, WATCH, Peer
from tests.process import Derper, derper
from tests.support.ends import StreamEnd, upgrade

pytestmark = pytest.mark.slow

MESH_KEY = "0123456789abcdef" * 4
WORKERS = pytest.mark.parametrize("workers", ["1", "2"])


@asynccontextmanager
async def client(where: Path | int, **info: object) -> AsyncIterator[Peer]:
    """Log in at a path, or at a port."""
    if isinstance(where, Path):
        stream = await trio.open_unix_socket(str(where))
    else:
        stream = await trio.open_tcp_stream("127.0.0.1", where)
    async with stream:
        await upgrade(stream)
        yield await Peer(StreamEnd(stream)).log_in(**info)


def run(*argv: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "derp", *argv]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)


def with_path(tmp_path: Path) -> tuple[Path, str]:
    path = tmp_path / "derper.sock"
    return path, f"127.0.0.1:0,unix:{path},mode=0660"


@WORKERS
async def test_clients_at_a_path_and_at_a_port_reach_each_other(
    tmp_path: Path, workers: str
) -> None:
    path, where = with_path(tmp_path)
    with derper(tmp_path, "-a", where, "-workers", workers, tls=False) as relay:
        port = relay.port("HTTP")
        relay.wait_for(f'"serving on unix:{path}" what=HTTP address=unix:{path}')
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        async with AsyncExitStack() as stack:
            near = [await stack.enter_async_context(client(path)) for _ in range(4)]
            far = await stack.enter_async_context(client(port))
            for number, each in enumerate(near):
                packet = bytes([number]) * 1000
                await each.send_packet(far.key, packet)
                assert await far.receive_packet() == (each.key, packet)
                await far.send_packet(each.key, packet)
                assert await each.receive_packet() == (far.key, packet)
        relay.wait_for("joined remote=unix client=")
        assert relay.stop() == 0
    assert not path.exists()


async def test_other_relays_see_no_address(tmp_path: Path) -> None:
    path, where = with_path(tmp_path)
    psk = tmp_path / "psk"
    psk.write_text(MESH_KEY)
    psk.chmod(0o600)
    with derper(tmp_path, "-a", where, "-mesh-psk-file", str(psk), tls=False) as relay:
        async with client(relay.port("HTTP"), meshKey=MESH_KEY) as watcher, client(path) as seen:
            await watcher.send(WATCH)
            while True:
                kind, payload = await watcher.receive()
                if kind == PRESENT and payload[:32] == seen.key:
                    break
            # As of an invalid netip.AddrPort in Go.
            assert payload[32:50] == bytes(18)


class Asked(BaseHTTPRequestHandler):
    """Admits everybody, and notes where they come from."""

    sources: list[str]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.sources.append(body["Source"])
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"Allow": true}')

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def admission() -> Iterator[tuple[str, list[str]]]:
    asked: Any = type("Noting", (Asked,), {"sources": []})
    with HTTPServer(("127.0.0.1", 0), asked) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/", asked.sources
        server.shutdown()
        thread.join()


@WORKERS
async def test_admission_is_asked_without_an_address(
    tmp_path: Path, workers: str, admission: tuple[str, list[str]]
) -> None:
    path, where = with_path(tmp_path)
    url, sources = admission
    flags = ("-verify-client-url", url, "-workers", workers)
    with derper(tmp_path, "-a", where, *flags, tls=False):
        until = trio.current_time() + PATIENCE
        while not path.exists():
            assert trio.current_time() < until
            await trio.sleep(0.01)
        async with client(path):
            pass
    assert sources == [""]


def test_the_pages_of_debug_are_not_for_what_comes_through_a_path(tmp_path: Path) -> None:
    path, where = with_path(tmp_path)
    with derper(tmp_path, "-a", where, tls=False) as relay:
        relay.wait_for("serving on unix:")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(PATIENCE)
            sock.connect(str(path))
            sock.sendall(b"GET /debug/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert sock.recv(4096).startswith(b"HTTP/1.1 403 ")


@WORKERS
async def test_a_proxy_at_a_path_says_for_whom_it_comes(tmp_path: Path, workers: str) -> None:
    path, where = with_path(tmp_path)
    flags = ("-proxy-protocol-from", "unix", "-trusted-proxies", "unix", "-workers", workers)
    with derper(tmp_path, "-a", where, *flags, tls=False) as relay:
        relay.wait_for("serving on unix:")
        async with await trio.open_unix_socket(str(path)) as stream:
            await stream.send_all(b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n")
            await upgrade(stream)
            await Peer(StreamEnd(stream)).log_in()
            relay.wait_for("joined remote=192.0.2.7:4711 proxy=unix ")
        async with await trio.open_unix_socket(str(path)) as stream:
            await stream.send_all(b"PROXY UNKNOWN\r\n")
            await stream.send_all(b"GET /debug/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 403 ")
        of = ("-of", str(relay.process.pid), "-a", f"unix:{path}", "-stun=false")
        asked = run("healthcheck", *of)
        assert (asked.returncode, asked.stderr) == (0, ""), asked


async def test_a_proxy_at_a_path_that_is_not_listed_is_told_of(tmp_path: Path) -> None:
    path, where = with_path(tmp_path)
    with derper(tmp_path, "-a", where, tls=False) as relay:
        relay.wait_for("serving on unix:")
        async with await trio.open_unix_socket(str(path)) as stream:
            request = b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n"
            await stream.send_all(request)
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 ")
        relay.wait_for(r'not listed, .* proxy=unix .*: -trusted-proxies unix"')


@WORKERS
def test_https_and_the_health_check(tmp_path: Path, workers: str) -> None:
    path = tmp_path / "derper.sock"
    flags = ("-a", f"unix:{path}", "-workers", workers)
    with derper(tmp_path, *flags) as relay:
        relay.wait_for("STUN server listening")
        if workers != "1":
            relay.wait_for("workers share the work")
        stun = relay.wait_for(r"what=STUN address=0\.0\.0\.0:(\d+)")[1]
        asked = run("healthcheck", "-of", str(relay.process.pid), "-stun-port", stun)
        assert (asked.returncode, asked.stderr) == (0, "")
        assert asked.stdout.startswith(f"healthy: DERP at unix:{path} over TLSv1.3, ")
        # No port is opened but that of STUN.
        assert not [line for line in relay.log if "what=HTTP " in line]


def test_one_that_was_killed_is_replaced_and_one_that_runs_is_not(tmp_path: Path) -> None:
    path, where = with_path(tmp_path)
    with derper(tmp_path, "-a", where, tls=False) as relay:
        relay.wait_for("serving on unix:")
        second = run("-a", f"unix:{path}", "-c", str(tmp_path / "key"), "-stun=false")
        assert (second.returncode, second.stdout) == (1, "")
        assert second.stderr == (
            f"derper: can't listen on unix:{path}: the socket is in use by another program\n"
        )
        relay.process.kill()
        relay.wait()
    assert path.is_socket()
    with derper(tmp_path, "-a", where, tls=False) as relay:
        relay.wait_for("serving on unix:")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.connect(str(path))
        assert relay.stop() == 0
    assert not path.exists()


def test_nothing_is_bound_by_halves(tmp_path: Path) -> None:
    path = tmp_path / "derper.sock"
    with (
        socket.create_server(("127.0.0.1", 0)) as theirs,
        socket.socket(socket.AF_INET, socket.SOCK_STREAM) as free,
    ):
        free.bind(("127.0.0.1", 0))
        own, taken = free.getsockname()[1], theirs.getsockname()[1]
        free.close()
        where = f"unix:{path},127.0.0.1:{own},127.0.0.1:{taken}"
        failed = run("-a", where, "-c", str(tmp_path / "key"), "-stun=false")
    assert failed.returncode == 1
    assert failed.stderr == (
        f"derper: can't listen on TCP 127.0.0.1:{taken}: the port is in use by another program\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_overlaps_is_told(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = f"127.0.0.1:{port},ipv4@localhost:{port}"
    failed = run("-a", where, "-c", str(tmp_path / "key"), "-stun=false")
    assert failed.returncode == 1
    assert failed.stderr == (
        f"derper: can't listen on TCP ipv4@localhost:{port}: 127.0.0.1:{port} has the port "
        f"already; leave one of them out, or want another port\n"
    )


async def test_a_crowd_at_a_path_meets_no_limit_of_one_network(tmp_path: Path) -> None:
    path, where = with_path(tmp_path)
    limits = ("-per-network-accept-limit", "1", "-per-network-pending-limit", "1")
    with derper(tmp_path, "-a", where, *limits, tls=False) as relay:
        relay.wait_for("serving on unix:")
        async with AsyncExitStack() as stack:
            for _ in range(20):
                await stack.enter_async_context(client(path))


def test_its_own_log(tmp_path: Path) -> None:
    """What is refused there is told, and ends nothing else."""
    path, where = with_path(tmp_path)

    def knock(relay: Derper) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.connect(str(path))
            sock.sendall(b"\0\r\n\r\n")
        relay.wait_for('refused remote=unix reason="http_failed: ')

    with derper(tmp_path, "-a", where, tls=False) as relay:
        relay.wait_for("serving on unix:")
        knock(relay)
        knock(relay)
        assert relay.stop() == 0
