"""HTTP servers that answer as told, byte by byte, over loopback and unix sockets."""

import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Protocol

import attrs
import pytest
import trio

from derp.admission.model import Question

KEY = bytes(range(32))
NODE = f"nodekey:{KEY.hex()}"
SHORT = 0.2
"""Seconds until a question is given up, where the test is about giving up."""


@pytest.fixture
def question() -> Question:
    return Question(KEY, "192.0.2.1")


@attrs.frozen
class Request:
    """What a client has sent."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class Close:
    """A step of an answer: close the connection."""


class Hang:
    """A step of an answer: nothing more, until the client goes."""


@attrs.frozen
class Forever:
    """A step of an answer: this, again and again."""

    data: bytes


@attrs.frozen
class Wait:
    """A step of an answer: nothing for some seconds."""

    seconds: float


Step = bytes | Close | Hang | Forever | Wait
Answer = bytes | Sequence[Step]


def response(status: int | str, body: bytes | str = b"", **headers: str) -> bytes:
    """A whole answer. An underscore in the name of a header stands for a hyphen."""
    data = body.encode() if isinstance(body, str) else body
    fields = {"Content_Length": str(len(data)), **headers}
    lines = [f"HTTP/1.1 {status} whatever" if isinstance(status, int) else status]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    return "\r\n".join([*lines, "", ""]).encode() + data


def chunked(*chunks: bytes) -> bytes:
    """The head of an answer without end, and its first chunks."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)


class Server:
    """What was asked of one server, and what it answers."""

    def __init__(self, answer: Callable[[Request], Answer]) -> None:
        self.answer = answer
        self.requests: list[Request] = []
        self.connections = 0
        self.open = 0
        self.asked = trio.Event()
        """A request has come."""
        self.left = trio.Event()
        """All connections there have been are closed."""
        self.scope = trio.CancelScope()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/verify"

    async def serve(
        self,
        listeners: Sequence[trio.abc.Listener[trio.abc.Stream]],
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        with self.scope:
            task_status.started()
            await trio.serve_listeners(self._connection, list(listeners))

    async def _connection(self, stream: trio.abc.Stream) -> None:
        self.connections += 1
        self.open += 1
        try:
            async with stream:
                await self._requests(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self.open -= 1
            if not self.open:
                self.left.set()

    async def _requests(self, stream: trio.abc.Stream) -> None:
        data = b""
        while True:
            while b"\r\n\r\n" not in data:
                more = await stream.receive_some()
                if not more:
                    return
                data += bytes(more)
            head, _, data = data.partition(b"\r\n\r\n")
            first, *lines = head.decode().split("\r\n")
            method, target, _version = first.split(" ")
            headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
            length = int(headers.get("content-length", "0"))
            while len(data) < length:
                data += bytes(await stream.receive_some())
            body, data = data[:length], data[length:]
            request = Request(method, target, headers, body)
            self.requests.append(request)
            self.asked.set()
            answer = self.answer(request)
            for step in (answer,) if isinstance(answer, bytes) else answer:
                if isinstance(step, Close):
                    return
                if isinstance(step, Hang):
                    while await stream.receive_some():
                        pass
                    return
                if isinstance(step, Wait):
                    await trio.sleep(step.seconds)
                    continue
                while isinstance(step, Forever):
                    await stream.send_all(step.data)
                await stream.send_all(step)


def always(answer: Answer) -> Callable[[Request], Answer]:
    return lambda _request: answer


StartUnix = Callable[[Path, Callable[[Request], Answer]], Awaitable[Server]]


class StartTCP(Protocol):
    """How a server is started on a port of all loopback addresses of IPv4, with TLS or without."""

    async def __call__(
        self, answer: Callable[[Request], Answer], context: ssl.SSLContext | None = None
    ) -> Server: ...


@pytest.fixture
def start_unix(nursery: trio.Nursery) -> StartUnix:

    async def start(path: Path, answer: Callable[[Request], Answer]) -> Server:
        await trio.Path(path).unlink(missing_ok=True)
        sock = trio.socket.socket(socket.AF_UNIX)
        await sock.bind(str(path))
        sock.listen()
        server = Server(answer)
        await nursery.start(server.serve, [trio.SocketListener(sock)])
        return server

    return start


@pytest.fixture
def start_tcp(nursery: trio.Nursery) -> StartTCP:

    async def start(
        answer: Callable[[Request], Answer], context: ssl.SSLContext | None = None
    ) -> Server:
        server = Server(answer)
        plain = await trio.open_tcp_listeners(0, host="0.0.0.0")
        server.port = plain[0].socket.getsockname()[1]
        listeners = plain if context is None else [trio.SSLListener(one, context) for one in plain]
        await nursery.start(server.serve, listeners)
        return server

    return start
