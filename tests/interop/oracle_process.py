"""Says about each client what it was told to say, as tailscaled's LocalAPI and as an admission URL.

    python oracle_process.py SOCKET     LocalAPI on that unix socket, everything else on TCP

It prints its TCP port and serves until it is killed. What is said are steps, like ["send", TEXT],
["wait", SECONDS], ["work", SECONDS] (which one question does at a time, be it given up or not),
["flood", TEXT, TIMES], ["close"]; without "close" the connection stays open for
the next question. Text is sent as Latin-1. Steps are found by a name:

    url:HEX IP      an admission server is asked about that node key at that address
    url:HEX         the same, wherever it is
    whois:HEX       tailscaled is
    /a/path         anything else: status of the LocalAPI, what a redirect leads to

    POST /say       a JSON object adds steps, by name
    POST /asked     what was asked since it was last asked for: [name, method, authorization],
                    how many connections such questions come by now, and how many at most
"""

import functools
import json
import sys
from collections.abc import Sequence
from urllib.parse import parse_qs, urlsplit

import attrs
import trio

Steps = Sequence[Sequence[object]]

MAX_HEAD = 1 << 16
UNTOLD = "HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\nno match\n"


@attrs.define
class Told:
    """What to say, and what was asked."""

    steps: dict[str, Steps] = attrs.Factory(dict)
    asked: list[tuple[str, str, str]] = attrs.Factory(list)
    open: int = 0
    most: int = 0
    worker: trio.Lock = attrs.Factory(trio.Lock)


@attrs.frozen
class Request:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def names(self) -> list[str]:
        """What the steps are found by; the first that is known counts."""
        url = urlsplit(self.target)
        if url.path == "/localapi/v0/whois":
            return ["whois:" + parse_qs(url.query)["addr"][0].removeprefix("nodekey:")]
        if url.path == "/admit" and self.body:
            question = json.loads(self.body)
            name = "url:" + question["NodePublic"].removeprefix("nodekey:")
            return [f"{name} {question['Source']}", name]
        return [url.path]


class Connection:
    def __init__(self, stream: trio.SocketStream, worker: trio.Lock) -> None:
        self.stream = stream
        self.worker = worker
        self.buffer = b""

    async def request(self) -> Request | None:
        """The next one; None where there is none."""
        while b"\r\n\r\n" not in self.buffer:
            if len(self.buffer) > MAX_HEAD or not await self.more():
                return None
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        split = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in split}
        length = int(headers.get("content-length", 0))
        while len(self.buffer) < length:
            if not await self.more():
                return None
        body, self.buffer = self.buffer[:length], self.buffer[length:]
        return Request(method, target, headers, body)

    async def more(self) -> bool:
        data = await self.stream.receive_some()
        self.buffer += data
        return bool(data)

    async def hung_up(self, seconds: float) -> bool:
        """Whether who asked goes away within this time."""
        with trio.move_on_after(seconds):
            while await self.more():
                pass
            return True
        return False

    async def perform(self, steps: Steps) -> bool:
        """Whether the connection is to stay."""
        for what, *details in steps:
            match what, details:
                case "send", [str(text)]:
                    await self.stream.send_all(text.encode("latin-1"))
                case "wait", [int() | float() as seconds]:
                    if await self.hung_up(float(seconds)):
                        return False
                case "work", [int() | float() as seconds]:
                    async with self.worker:
                        await trio.sleep(float(seconds))
                case "flood", [str(text), int(times)]:
                    for _ in range(times):
                        await self.stream.send_all(text.encode("latin-1"))
                case "close", []:
                    return False
                case _:
                    raise ValueError(f"no such step: {what} {details}")
        return True


async def serve(told: Told, stream: trio.SocketStream) -> None:
    """One connection, to its end."""
    connection = Connection(stream, told.worker)
    counted = False
    try:
        while request := await connection.request():
            if request.target == "/say":
                told.steps.update(json.loads(request.body))
                await connection.perform([["send", answer({})]])
            elif request.target == "/asked":
                asked = answer({"asked": told.asked, "open": told.open, "most": told.most})
                told.asked.clear()
                told.most = told.open
                await connection.perform([["send", asked]])
            else:
                if not counted:
                    counted = True
                    told.open += 1
                    told.most = max(told.most, told.open)
                authorization = request.headers.get("authorization", "")
                told.asked.append((request.names[-1], request.method, authorization))
                known = (told.steps[name] for name in request.names if name in told.steps)
                if not await connection.perform(next(known, [["send", UNTOLD]])):
                    break
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # who asked has heard enough
    finally:
        told.open -= counted
        await trio.aclose_forcefully(stream)


def answer(content: object) -> str:
    text = json.dumps(content)
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(text)}\r\n\r\n{text}"


async def main(socket_path: str) -> None:
    told = Told()
    handler = functools.partial(serve, told)
    local = trio.socket.socket(trio.socket.AF_UNIX)
    await local.bind(socket_path)
    local.listen(1000)
    listeners = [
        trio.SocketListener(local),
        *await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=1000),
    ]
    print(listeners[1].socket.getsockname()[1], flush=True)
    await trio.serve_listeners(handler, listeners)


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
