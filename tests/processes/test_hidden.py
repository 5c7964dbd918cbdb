"""A relay that hides, as processes: what strangers get, and clients."""

import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from tests.patience import PATIENCE
from tests.peers import Peer
from tests.process import Derper, derper, insecure
from tests.support.derp import UPGRADE, upgrade_request
from tests.support.ends import StreamEnd, upgrade

pytestmark = pytest.mark.slow

WORKERS = pytest.mark.parametrize("workers", ["1", "2"])
GET = b"GET /derp HTTP/1.0\r\nHost: x\r\n\r\n"


def ask(sock: socket.socket, request: bytes) -> bytes:
    sock.sendall(request)
    received = b""
    while data := sock.recv(4096):
        received += data
    return received


def connect(relay: Derper, what: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", relay.port(what)), PATIENCE)


def healthcheck(*argv: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "derp", "healthcheck", *argv]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    return done.returncode, done.stderr


@WORKERS
async def test_strangers_see_a_web_server_and_clients_a_relay(tmp_path: Path, workers: str) -> None:
    with derper(tmp_path, "-home", "hidden", "-workers", workers) as relay:
        https, http, stun = (relay.port(what) for what in ("HTTPS", "HTTP", "STUN"))
        if workers != "1":
            relay.wait_for("workers share the work")
        for _ in range(4):
            with insecure().wrap_socket(connect(relay, "HTTPS")) as tls:
                assert ask(tls, GET).startswith(b"HTTP/1.1 404 Not Found\r\nServer: nginx\r\n")
            with connect(relay, "HTTPS") as plain:
                assert b"The plain HTTP request was sent to HTTPS port" in ask(plain, GET)
            with connect(relay, "HTTP") as plain:
                assert ask(plain, GET).startswith(b"HTTP/1.1 404 Not Found\r\nServer: nginx\r\n")
        only_http_2 = insecure()
        only_http_2.set_alpn_protocols(["h2"])
        with (
            connect(relay, "HTTPS") as sock,
            pytest.raises(ssl.SSLError, match="application protocol"),
        ):
            only_http_2.wrap_socket(sock)
        peers, streams = [], []
        for _ in range(2):
            tcp = await trio.open_tcp_stream("127.0.0.1", https)
            stream = trio.SSLStream(tcp, insecure(), server_hostname="127.0.0.1")
            answer = await upgrade(stream)
            assert answer.startswith(b"HTTP/1.1 101 ")
            peers.append(await Peer(StreamEnd(stream)).log_in())
            streams.append(tcp)
        one, other = peers
        await one.send_packet(other.key, b"packet")
        assert await other.receive_packet() == (one.key, b"packet")
        for tcp in streams:
            await tcp.aclose()
        flags = ["-a", f"127.0.0.1:{https}", "-http-port", str(http), "-stun-port", str(stun)]
        assert healthcheck("-of", str(relay.process.pid), *flags) == (0, "")
        assert relay.stop() == 0


def test_without_derp_it_is_healthy_too(tmp_path: Path) -> None:
    flags = ("-home", "hidden", "-derp=false")
    with derper(tmp_path, *flags, tls=False) as relay:
        own = ["-a", f"127.0.0.1:{relay.port('HTTP')}", "-stun-port", str(relay.port("STUN"))]
        assert healthcheck(*flags, *own) == (0, "")
        with connect(relay, "HTTP") as plain:
            derp = upgrade_request(*UPGRADE, "X: y").replace(b"X: y", b"Connection: close")
            assert ask(plain, derp).startswith(b"HTTP/1.1 404 ")


def test_what_strangers_do_is_told(tmp_path: Path) -> None:
    with derper(tmp_path, "-home", "hidden", tls=False) as relay:
        with connect(relay, "HTTP") as plain:
            assert ask(plain, b"\x80").startswith(b"HTTP/1.1 400 ")
        relay.wait_for('refused remote=.* reason="http_failed: not a request that nginx would take')
        with connect(relay, "HTTP") as plain:
            assert ask(plain, b"GET /debug/ HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n").startswith(
                b"HTTP/1.1 404 "
            )
        with connect(relay, "HTTP") as plain:
            plain.sendall(b"GET /debug/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert plain.recv(100).startswith(b"HTTP/1.1 200 ")
        assert relay.stop() == 0
