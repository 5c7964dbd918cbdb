"""The relay as a service that systemd holds the sockets of: restarted, and nobody refused."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stun.message import build_binding_request, parse_binding_response
from tests.patience import PATIENCE
from tests.process import Derper, insecure

# What systemd does between fork and exec: descriptors from 3 on, and whose they are.
_AS_SYSTEMD = """
import fcntl, os, sys
from tests.patience import PATIENCE
count = int(sys.argv[1])
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(count)}
handed = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 100) for number in sys.argv[2 : 2 + count]]
for number, descriptor in enumerate(handed, 3):
    os.dup2(descriptor, number)
os.execv(sys.executable, [sys.executable, "-m", "derp", *sys.argv[2 + count :]])
"""


@contextmanager
def activated(home: Path, sockets: list[socket.socket], *flags: str) -> Iterator[Derper]:
    """Run derper with these sockets handed over, as the unit derper.socket would."""
    numbers = [sock.fileno() for sock in sockets]
    usual = ["-c", str(home / "derper.key"), "-certmode", "manual", "-certdir", str(home / "certs")]
    launcher = [sys.executable, "-c", _AS_SYSTEMD, str(len(numbers)), *map(str, numbers)]
    process = subprocess.Popen(
        [*launcher, *usual, "-hostname", "127.0.0.1", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        pass_fds=numbers,
    )
    running = Derper(process)
    try:
        yield running
    finally:
        if process.poll() is None:
            process.kill()
        running.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.fixture
def held() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A TCP and a UDP socket, as systemd holds them."""
    tcp = socket.create_server(("127.0.0.1", 0))
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    with tcp, udp:
        yield tcp, udp


def flags(tcp: socket.socket, udp: socket.socket) -> list[str]:
    host, port = tcp.getsockname()
    return ["-a", f"{host}:{port}", "-http-port", "-1", "-stun-port", str(udp.getsockname()[1])]


def key_over_tls(sock: socket.socket) -> bytes:
    """Shake hands and upgrade; return the relay's greeting."""
    with insecure().wrap_socket(sock, server_hostname="127.0.0.1") as tls:
        tls.sendall(b"GET /derp HTTP/1.1\r\nHost: x\r\nUpgrade: DERP\r\nDerp-Fast-Start: 1\r\n\r\n")
        greeting = b""
        while len(greeting) < 45:
            data = tls.recv(45 - len(greeting))
            assert data
            greeting += data
        return greeting


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_restart_refuses_nobody(
    tmp_path: Path, held: tuple[socket.socket, socket.socket], workers: str
):
    tcp, udp = held
    address = tcp.getsockname()
    with activated(tmp_path, [tcp, udp], *flags(tcp, udp), "-workers", workers) as first:
        first.wait_for("what=STUN")
        with socket.create_connection(address, PATIENCE) as sock:
            greeting = key_over_tls(sock)
        assert first.stop() == 0
    # Nobody serves now. Whoever comes waits.
    with (
        socket.create_connection(address, PATIENCE) as waiting,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking,
    ):
        asking.settimeout(PATIENCE)
        asking.connect(udp.getsockname())
        asking.send(build_binding_request(bytes(12)))
        with activated(tmp_path, [tcp, udp], *flags(tcp, udp), "-workers", workers) as second:
            assert key_over_tls(waiting) == greeting
            _, told = parse_binding_response(asking.recv(2048))
            assert (str(told.address), told.port) == asking.getsockname()
            second.signal(signal.SIGTERM)
            assert second.wait() == 0


def test_it_is_not_for_its_children(tmp_path: Path, held: tuple[socket.socket, socket.socket]):
    tcp, udp = held
    with activated(tmp_path, [tcp, udp], *flags(tcp, udp)) as relay:
        relay.wait_for("what=STUN")
        open_there = Path(f"/proc/{relay.process.pid}/environ").read_bytes()
        assert b"LISTEN_FDS" in open_there
        inode = os.fstat(tcp.fileno()).st_ino
        theirs = Path(f"/proc/{relay.process.pid}/fd")
        same = [fd.name for fd in theirs.iterdir() if os.stat(fd).st_ino == inode]  # noqa: PTH116
        info = [Path(theirs.parent, "fdinfo", name).read_text() for name in same if int(name) == 3]
        assert info
        # O_CLOEXEC
        assert all(int(text.split("flags:")[1].split()[0], 8) & 0o2000000 for text in info)


def test_what_is_handed_over_and_not_served(
    tmp_path: Path, held: tuple[socket.socket, socket.socket]
):
    tcp, udp = held
    with activated(tmp_path, [tcp, udp], *flags(tcp, udp), "-stun=false") as relay:
        assert relay.wait() == 1
        (line,) = relay.log
    assert line == (
        f"derper: systemd passes a socket on UDP 127.0.0.1:{udp.getsockname()[1]}, which "
        f"nothing here serves; want the addresses of -a, -stun-addr and -metrics-addr, and "
        f"the ports of -http-port and -stun-port, in the unit derper.socket"
    )
    assert not (tmp_path / "derper.key").exists()


def test_what_is_not_handed_over_is_opened(
    tmp_path: Path, held: tuple[socket.socket, socket.socket]
):
    tcp, udp = held
    free = ["-a", ":".join(map(str, tcp.getsockname())), "-http-port", "-1", "-stun-port", "0"]
    with activated(tmp_path, [tcp], *free) as relay:
        assert relay.port("STUN") != udp.getsockname()[1]
        with socket.create_connection(tcp.getsockname(), PATIENCE) as sock:
            key_over_tls(sock)
        assert relay.stop() == 0
