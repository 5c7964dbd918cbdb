"""A web server with nothing on it, and what it, or a hidden relay, says to bytes."""

import contextlib
import re
import select
import socket
import ssl
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from string import Template

import attrs
import pytest

from tests.field.proxies import CONF, find, wait_until_it_accepts
from tests.interop.relay import STOP_TIMEOUT, TestCA, die_with_parent, free_port

PATIENCE = 20.0
IMITATED = "1.22"
"""The version whose form a hidden relay has; Debian 12 has it."""


@attrs.frozen
class Server:
    """The ports of the real nginx, or of a hidden relay."""

    plain: int
    tls: int


@contextlib.contextmanager
def nginx(folder: Path, ca: TestCA) -> Iterator[Server]:
    """Run the real one. Skips the test where that is not installed."""
    program = find("nginx")
    if not program:
        pytest.skip("nginx is not installed")
    told = subprocess.run([program, "-v"], capture_output=True, text=True, check=True).stderr
    if f"nginx/{IMITATED}." not in told:
        pytest.skip(f"this is {told.strip()}, and what is imitated is {IMITATED}")
    ca.issue(folder, "localhost")
    server = Server(free_port(), free_port())
    conf = folder / "nginx.conf"
    text = (CONF / "nginx-empty.conf").read_text()
    conf.write_text(Template(text).substitute(folder=folder, plain=server.plain, tls=server.tls))
    log_file = folder / "nginx.log"
    with log_file.open("ab") as log:
        process = subprocess.Popen(
            [program, "-e", "stderr", "-c", str(conf)],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=die_with_parent,  # noqa: PLW1509 — no threads here yet
        )
    try:
        wait_until_it_accepts(process, server.tls, log_file)
        yield server
    finally:
        process.terminate()
        process.wait(STOP_TIMEOUT)


class Wire:
    """A connection on which bytes are sent and what comes is read, at the same time."""

    def __init__(self, port: int, context: ssl.SSLContext | None = None) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._tls: ssl.SSLObject | None = None
        if context is not None:
            self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
            self._tls = context.wrap_bio(self._in, self._out, server_hostname="localhost")
            self._shake_hands()

    def _shake_hands(self) -> None:
        assert self._tls
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self.sock.sendall(self._out.read())
                data = self.sock.recv(1 << 16)
                assert data
                self._in.write(data)
            else:
                self.sock.sendall(self._out.read())
                return

    def _wrapped(self, data: bytes) -> bytes:
        if self._tls is None:
            return data
        if data:
            self._tls.write(data)
        else:
            with contextlib.suppress(ssl.SSLWantReadError):
                self._tls.unwrap()
        return self._out.read()

    def _unwrapped(self, data: bytes) -> bytes:
        if self._tls is None:
            return data
        self._in.write(data)
        found = b""
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            while piece := self._tls.read(1 << 16):
                found += piece
        return found

    def say(self, pieces: Sequence[bytes]) -> bytes:
        """Send the pieces and the end; return all that comes, to the end."""
        waiting = [self._wrapped(piece) for piece in (*pieces, b"") if piece or self._tls]
        received = b""
        sent_end = False
        with contextlib.suppress(ConnectionError):
            while True:
                if not waiting and not sent_end:
                    sent_end = True
                    with contextlib.suppress(OSError):
                        self.sock.shutdown(socket.SHUT_WR)
                readable, writable, _ = select.select(
                    [self.sock], [self.sock] if waiting else [], [], PATIENCE
                )
                assert readable or writable, f"nothing more after {received!r}"
                if readable:
                    data = self.sock.recv(1 << 16)
                    if not data:
                        break
                    received += self._unwrapped(data)
                elif writable:
                    sent = self.sock.send(waiting[0][:4096])
                    waiting[0] = waiting[0][sent:]
                    if not waiting[0]:
                        waiting.pop(0)
        self.sock.close()
        return received


def without_dates(answer: bytes) -> bytes:
    return re.sub(rb"\r\nDate: [^\r\n]+ GMT\r\n", b"\r\nDate: WHEN\r\n", answer)


def said(server: Server, pieces: Sequence[bytes], context: ssl.SSLContext | None = None) -> bytes:
    """What a server answers, but for the dates."""
    return without_dates(Wire(server.tls if context else server.plain, context).say(pieces))
