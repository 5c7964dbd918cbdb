"""An HTTP client whose servers are in the same process, at the other end of memory streams."""

import ssl
from collections.abc import Callable, Mapping
from typing import Protocol

import h11
import trio
from trio.testing import memory_stream_pair

from derp.errors import ConnectFailed
from derp.net import httpclient
from derp.net.httpclient import URL, Connection
from tests.support.deviceapis import Answer

EPOCH = 1_790_000_000.0


def wall() -> float:
    """Unix time by the clock that jumps."""
    return EPOCH + trio.current_time()


class API(Protocol):
    def answer(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes, now: float
    ) -> Answer: ...


class MemoryClient(httpclient.Client):
    """Connects to `api`, whatever the URL."""

    def __init__(self, nursery: trio.Nursery, api: API) -> None:
        super().__init__(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), {})
        self._nursery = nursery
        self.api = api
        self.takes = 0.0
        """Seconds from a request to its answer."""
        self.is_down = False
        self.raw: Callable[[bytes], bytes] | None = None
        """What becomes of an answer's bytes."""
        self.connections = 0

    async def _connect(self, url: URL, proxy: URL | None) -> Connection:
        if self.is_down:
            raise ConnectFailed("nobody is there") from ConnectionRefusedError(
                111, "Connection refused"
            )
        self.connections += 1
        here, there = memory_stream_pair()
        self._nursery.start_soon(self._serve, there)
        return Connection(here)

    def _proxy(self, url: URL) -> URL | None:
        return None

    async def _serve(self, stream: trio.abc.Stream) -> None:
        connection = h11.Connection(h11.SERVER)
        async with stream:
            while True:
                request, body = None, b""
                while not isinstance(event := connection.next_event(), h11.EndOfMessage):
                    if event is h11.NEED_DATA:
                        try:
                            connection.receive_data(await stream.receive_some(65536))
                        except trio.BrokenResourceError:
                            return
                    elif isinstance(event, h11.Request):
                        request = event
                    elif isinstance(event, h11.Data):
                        body += bytes(event.data)
                    else:
                        return
                assert request is not None
                headers = {name.decode(): value.decode() for name, value in request.headers}
                method, target = request.method.decode(), request.target.decode()
                await trio.sleep(self.takes)
                answer = self.api.answer(method, target, headers, body, wall())
                fields = {**answer.headers, "Content-Length": str(len(answer.body))}
                head = h11.Response(status_code=answer.status, headers=[*fields.items()])
                events = (head, h11.Data(data=answer.body), h11.EndOfMessage())
                data = b"".join(connection.send(event) or b"" for event in events)
                try:
                    if self.raw is not None:
                        await stream.send_all(self.raw(data))
                        return
                    await stream.send_all(data)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    return
                connection.start_next_cycle()
