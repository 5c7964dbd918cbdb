"""A DERP client of a few lines, to play exchanges frame by frame.

It sends whatever it is told to, right or wrong, and reads what comes, over blocking sockets; what
needs no I/O is tests/support/derp.py.
"""

import hashlib
import json
import os
import socket
import ssl
import time

import attrs
from nacl.bindings import crypto_box, crypto_box_open, crypto_scalarmult_base

from tests.support.derp import CLIENT_INFO, NONCE_LENGTH, Frames, frame

PATIENCE = 10.0
"""Seconds to wait for what should come at once."""


class EndedError(Exception):
    """The other side closed or reset the connection."""


class SilentError(Exception):
    """Nothing came in time."""


@attrs.frozen
class Key:
    """A node key with a name; the same name always makes the same key."""

    name: str
    private: bytes
    public: bytes

    @classmethod
    def named(cls, name: str) -> "Key":
        private = bytearray(hashlib.sha256(f"interop key of {name}".encode()).digest())
        private[0] &= 248
        private[31] = (private[31] & 127) | 64
        return cls(name, bytes(private), crypto_scalarmult_base(bytes(private)))

    def seal(self, to: bytes, message: bytes, nonce: bytes | None = None) -> bytes:
        """Nonce, then the box."""
        nonce = os.urandom(NONCE_LENGTH) if nonce is None else nonce
        return nonce + crypto_box(message, nonce, to, self.private)

    def open(self, sender: bytes, sealed: bytes) -> bytes:
        return crypto_box_open(sealed[NONCE_LENGTH:], sealed[:NONCE_LENGTH], sender, self.private)


SERVER = Key.named("the relay")


def client_info(
    key: Key, info: bytes | dict[str, object], server: bytes, nonce: bytes | None = None
) -> bytes:
    """The frame a client logs in with."""
    message = info if isinstance(info, bytes) else json.dumps(info).encode()
    return frame(CLIENT_INFO, key.public + key.seal(server, message, nonce))


@attrs.frozen
class Response:
    """The head of an HTTP response, header names in lower case."""

    status: int
    headers: list[tuple[str, str]]

    def get(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)


class Wire:
    """A TCP or TLS connection, read with deadlines."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.frames = Frames()
        self.transcript_in = b""
        """Everything that came, above TLS."""

    @classmethod
    def connect(cls, address: tuple[str, int], tls: ssl.SSLContext | None = None) -> "Wire":
        sock = socket.create_connection(address, timeout=PATIENCE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            try:
                sock = tls.wrap_socket(sock, server_hostname="localhost")
            except BaseException:
                sock.close()
                raise
        return cls(sock)

    @property
    def buffer(self) -> bytes:
        """What has come and was not taken."""
        return self.frames.buffer

    @buffer.setter
    def buffer(self, left: bytes) -> None:
        self.frames.buffer = left

    def close(self) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        """Raises EndedError; what the other side wrote before it went can still be read."""
        self.sock.settimeout(PATIENCE)
        try:
            self.sock.sendall(data)
        except TimeoutError:
            raise SilentError("the other side takes nothing") from None
        except OSError:
            raise EndedError from None

    def more(self, deadline: float) -> None:
        """Wait for more bytes. Raises EndedError and SilentError."""
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise SilentError
        self.sock.settimeout(remaining)
        try:
            data = self.sock.recv(65536)
        except TimeoutError:
            raise SilentError from None
        except OSError:
            raise EndedError from None
        if not data:
            raise EndedError
        self.frames.feed(data)
        self.transcript_in += data

    def take(self, count: int, patience: float = PATIENCE) -> bytes:
        deadline = time.monotonic() + patience
        while len(self.buffer) < count:
            self.more(deadline)
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def take_until(self, mark: bytes, patience: float = PATIENCE) -> bytes:
        deadline = time.monotonic() + patience
        while mark not in self.buffer:
            self.more(deadline)
        end = self.buffer.index(mark) + len(mark)
        taken, self.buffer = self.buffer[:end], self.buffer[end:]
        return taken

    def rest(self, patience: float = PATIENCE) -> bytes:
        """All until the connection ends. Raises SilentError if it does not."""
        deadline = time.monotonic() + patience
        while True:
            try:
                self.more(deadline)
            except EndedError:
                taken, self.buffer = self.buffer, b""
                return taken

    def take_frame(self, patience: float = PATIENCE) -> tuple[int, bytes]:
        """The next frame, as type and payload."""
        deadline = time.monotonic() + patience
        while (found := self.frames.next()) is None:
            self.more(deadline)
        return found

    def take_response(self, patience: float = PATIENCE) -> Response:
        """The head of an HTTP response."""
        head = self.take_until(b"\r\n\r\n", patience).decode("latin-1")
        status, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
        headers = [
            (name.lower(), value.strip()) for name, _, value in (h.partition(":") for h in lines)
        ]
        return Response(int(status.split()[1]), headers)
