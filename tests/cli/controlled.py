"""A control socket whose answers a test makes up."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

Answer = Callable[[dict[str, Any]], list[Any]]

FIELDS: dict[str, Any] = {
    "connection": "0 1 2.0",
    "key": f"nodekey:{'ab' * 32}",
    "label": "",
    "remote": "192.0.2.1:41641",
    "since": 1_796_126_400,
    "home": False,
    "mesh": False,
    "duplicate": False,
    "worker": 0,
    "sent": 0,
    "received": 0,
    "packets_sent": 0,
    "packets_received": 0,
    "packets_dropped": 0,
    "queued_bytes": 0,
    "queued_packets": 0,
    "limit": None,
    "used_day": None,
    "used_month": None,
    "quota": None,
    "quota_period": "",
}


class Relay:
    """Answers each request with the lines that `answer` returns: objects, or bytes as they are."""

    def __init__(self, path: Path, answer: Answer) -> None:
        self.path = path
        self.answer = answer
        self.asked: list[dict[str, Any]] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self._open.append(sock)
                threading.Thread(target=self._serve, args=(sock,)).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, sock.makefile("rb") as lines, suppress(OSError):
            for line in lines:
                self.asked.append(json.loads(line))
                for answer in self.answer(self.asked[-1]):
                    if answer is None:
                        return
                    data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                    sock.sendall(data + b"\n")

    def close(self) -> None:
        for sock in (self._listener, *self._open):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@contextmanager
def relay(path: Path, answer: Answer) -> Iterator[Relay]:
    found = Relay(path, answer)
    try:
        yield found
    finally:
        found.close()


def listing(*clients: dict[str, Any]) -> Answer:
    """Answer with these clients, each in a line of its own."""

    def answer(request: dict[str, Any]) -> list[Any]:
        lines = [{"v": 1, "clients": [FIELDS | client], "more": True} for client in clients]
        return [*lines, {"v": 1, "clients": [], "more": False}]

    return answer


def done(request: dict[str, Any]) -> list[Any]:
    """Answer that what is asked for was done."""
    return [{"v": 1, "done": f"{request['do']} it was", "ended": 1}]
