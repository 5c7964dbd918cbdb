"""The listener of -metrics-addr: it answers monitors, and strangers can't take more than it has."""

import json
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from derp.http.monitoring import Health, MonitoringBackend
from derp.metrics import Metrics
from derp.net.descriptors import Descriptors
from derp.relay.pending import EVICTABLE_AFTER
from derp.service import monitoring
from derp.service.monitoring import DEADLINES, MAX_CONNECTIONS, MAX_WHEN_FULL
from tests.http.sites import returning

GET = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
HEALTH = Health(draining=False, processes=1, accepting=True)
SOURCE = MonitoringBackend(metrics=returning("x 1\n"), health=returning(HEALTH))


@attrs.define
class Served:
    port: int
    metrics: Metrics
    streams: list[trio.SocketStream] = attrs.field(factory=list)

    async def connect(self, data: bytes = b"") -> trio.SocketStream:
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        self.streams.append(stream)
        if data:
            await stream.send_all(data)
        await wait_all_tasks_blocked()
        return stream

    def ends(self) -> dict[str, int]:
        return {reason: n for reason, n in self.metrics.metrics_connection_ends.items() if n}


async def answer(stream: trio.SocketStream) -> bytes:
    """Return what comes at once; empty at the end, as also after a reset."""
    try:
        return bytes(await stream.receive_some(1 << 16))
    except trio.BrokenResourceError:
        return b""


@asynccontextmanager
async def serving(
    backend: MonitoringBackend = SOURCE, limit: Callable[[], int] | None = None
) -> AsyncIterator[Served]:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    descriptors = Descriptors() if limit is None else Descriptors(limit=limit)
    served = Served(listener.getsockname()[1], Metrics())
    with listener:
        try:
            async with trio.open_nursery() as nursery:
                parts = ([listener], backend, served.metrics, descriptors)
                nursery.start_soon(monitoring.serve, *parts)
                await wait_all_tasks_blocked()
                yield served
                nursery.cancel_scope.cancel()
        finally:
            for stream in served.streams:
                await trio.aclose_forcefully(stream)


@pytest.fixture(autouse=True)
def info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


async def test_each_connection_gets_one_answer(mock_clock: MockClock) -> None:
    async with serving() as served:
        stream = await served.connect(2 * GET)
        found = await answer(stream)
        assert found.count(b"HTTP/1.1 200 OK\r\n") == 1
        assert b"\r\nConnection: close\r\n" in found
        assert found.endswith(b"\r\n\r\nx 1\n")
        assert await answer(stream) == b""
        assert served.ends() == {"closed": 1}


async def test_health(mock_clock: MockClock) -> None:
    async with serving() as served:
        stream = await served.connect(GET.replace(b"metrics", b"healthz"))
        head, _, body = (await answer(stream)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert json.loads(body)["status"] == "ok"


async def test_no_derp_client_is_served(mock_clock: MockClock) -> None:
    request = b"GET /derp HTTP/1.1\r\nHost: x\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\n"
    async with serving() as served:
        stream = await served.connect(request)
        assert (await answer(stream)).startswith(b"HTTP/1.1 404 ")


async def test_a_slow_request_is_ended(
    mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving() as served:
        stream = await served.connect(GET[:20])
        mock_clock.jump(DEADLINES.request)
        assert (await answer(stream)).startswith(b"HTTP/1.1 408 ")
        mock_clock.jump(DEADLINES.linger)
        await wait_all_tasks_blocked()
        assert served.ends() == {"http_failed": 1}
    assert "refused at -metrics-addr" in caplog.messages


async def test_a_crowd_takes_its_bound_and_no_more(mock_clock: MockClock) -> None:
    async with serving() as served:
        crowd = [await served.connect() for _ in range(MAX_CONNECTIONS)]
        # All came just now: none has to make room for another.
        assert await answer(await served.connect(GET)) == b""
        assert served.ends() == {"no_room": 1}
        mock_clock.jump(EVICTABLE_AFTER)
        assert (await answer(await served.connect(GET))).endswith(b"x 1\n")
        assert await answer(crowd[0]) == b""
        assert served.ends() == {"no_room": 2, "closed": 1}
        await crowd[1].send_all(GET)
        assert (await answer(crowd[1])).endswith(b"x 1\n")


async def test_lines_about_a_crowd_are_bounded(
    mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving() as served:
        for _ in range(100):
            await trio.aclose_forcefully(await served.connect(b"x\r\n\r\n"))
            await wait_all_tasks_blocked()
        mock_clock.jump(DEADLINES.linger)
        await wait_all_tasks_blocked()
        assert served.ends() == {"http_failed": 100}
        assert caplog.messages.count("refused at -metrics-addr") == 5
        mock_clock.jump(100)
        await wait_all_tasks_blocked()
    assert caplog.messages.count("refused more") == 1


async def test_a_relay_without_descriptors_is_still_watched(mock_clock: MockClock) -> None:
    async with serving(limit=lambda: 1) as served:
        for _ in range(MAX_WHEN_FULL):
            last = await served.connect()
        assert await answer(await served.connect(GET)) == b""
        assert served.ends() == {"no_room": 1}
        await last.send_all(GET)
        assert (await answer(last)).endswith(b"x 1\n")
        await wait_all_tasks_blocked()
        assert (await answer(await served.connect(GET))).endswith(b"x 1\n")


async def test_a_bug_ends_one_connection(
    mock_clock: MockClock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def serve(*_: Any) -> None:
        raise ZeroDivisionError

    async with serving() as served:
        with monkeypatch.context() as patched:
            patched.setattr(monitoring, "serve_http", serve)
            await served.connect()
        assert served.ends() == {"internal_fault": 1}
        assert (await answer(await served.connect(GET))).endswith(b"x 1\n")
    assert caplog.messages.count("a connection was ended by a bug") == 1
