"""The supervisor and its workers in this process: they share no state, and call by RPC as ever."""

import json
import logging
import os
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from derp.config import Config
from derp.errors import StartError
from derp.net.listenaddress import Address
from derp.service.run import serve
from derp.service.signals import Event
from derp.service.sockets import Sockets
from derp.session import serverinfo
from derp.workers import worker as workers
from derp.workers.handover import Handover
from derp.workers.pool import Slot, WorkerPool
from derp.workers.rpc import RPC, Handler, Json
from derp.workers.supervisor import Supervisor, listen_for_peers
from tests.service.resources import resources
from tests.support.config import make_config

config = partial(make_config, dev=True, a=Address("127.0.0.1", 0))
GET = b"GET %b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


async def run_worker(pool: Any, slot: Slot, handlers: Mapping[str, Handler]) -> str:
    """Run a worker as a task, in place of WorkerPool._run_process."""
    ours, theirs = socket.socketpair()
    slot.rpc, slot.pid = RPC(ours), os.getpid()

    async def ready(_: Json) -> None:
        slot.has_served = True
        slot.started.set()

    slot.rpc.handlers.update(handlers, **{"worker.ready": ready})
    handover = Handover.from_json(json.loads(json.dumps(pool._handover(slot.index).to_json())))
    # As they are inherited, in a process with the same numbers.
    handover = attrs.evolve(
        handover, main=[*map(os.dup, handover.main)], peer_socket=os.dup(handover.peer_socket)
    )
    with ExitStack() as stack:
        worker = workers._prepare(pool.config, handover, RPC(theirs), stack)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(slot.rpc.run)
            await serve(pool.config, worker.resources, worker)
            nursery.cancel_scope.cancel()
    slot.rpc = None
    return "exit code 0"


@attrs.define
class Relay:
    port: int
    events: trio.MemorySendChannel[Event]

    async def tell(self, event: Event) -> None:
        await self.events.send(event)
        await wait_all_tasks_blocked()

    async def page(self, path: str) -> str:
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        async with stream:
            await stream.send_all(GET % path.encode())
            return b"".join([bytes(data) async for data in stream]).decode()


@asynccontextmanager
async def relay(
    chosen: Config | None = None, orders: "Orders | None" = None, **changes: Any
) -> AsyncIterator[Relay]:
    """Run a relay of two workers; stop it in the end."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    sockets = Sockets([listener], (), ())
    to_test, told = trio.open_memory_channel[Event](8)

    async def receive(events: Any, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        async for event in told:
            await events.send(event)

    with ExitStack() as stack:
        peers = [stack.enter_context(listen_for_peers()) for _ in range(2)]
        prepared = resources(
            sockets=sockets,
            all_sockets=(sockets, sockets),
            addresses={listener: Address("127.0.0.1", 0)},
            **changes,
        )
        supervisor = Supervisor(chosen or config(), prepared, peers, (), receive)
        supervisor._certificates = orders  # type: ignore[assignment]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.serve)
            await wait_all_tasks_blocked()
            yield Relay(listener.getsockname()[1], to_test)
            await to_test.send(Event.STOP)
    assert listener.fileno() == -1


@pytest.fixture(autouse=True)
def in_process(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(WorkerPool, "_run_process", run_worker)
    monkeypatch.setattr(WorkerPool, "config", config(), raising=False)
    monkeypatch.setattr(workers, "raise_limit", lambda: None)


async def until_logged(caplog: pytest.LogCaptureFixture, line: str) -> None:
    while line not in caplog.messages:
        await trio.lowlevel.checkpoint()


async def test_two_workers_are_one_relay(
    mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with relay() as found:
        await until_logged(caplog, "workers share the work")
        page = await found.page("/debug/")
        for number in (0, 1):
            row = f"<b>Worker {number}:</b> 0 clients, process {os.getpid()}, restarts: 0"
            assert row in page
        assert "\nderper_workers 2\n" in await found.page("/debug/varz")
        assert "ConsistencyCheck okay" in await found.page("/debug/check")
    # Both workers, and the supervisor.
    assert caplog.messages.count("stopping") == caplog.messages.count("stopped") == 3


class Orders:
    """The supervisor's certificates, as far as their start and their end go."""

    handlers: Mapping[str, Handler] = MappingProxyType({})

    def __init__(self) -> None:
        self.begun, self.cut_off = trio.Event(), trio.Event()

    async def run(self, _: object) -> None:
        self.begun.set()
        try:
            await trio.sleep_forever()
        finally:
            self.cut_off.set()

    def handover(self) -> None:
        """The workers serve without TLS."""


async def test_no_certificate_is_ordered_before_all_workers_serve(
    autojump_clock: MockClock,
) -> None:
    """One that starts would answer the authority's challenge with 404."""
    supervisor = Supervisor(config(), resources(all_sockets=(Sockets([], (), ()),) * 2), (), ())
    supervisor._certificates = orders = Orders()  # type: ignore[assignment]
    first, second = supervisor._pool.slots
    to_serve, _ = trio.open_memory_channel[Event](1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervisor._wait_for_start, to_serve, nursery)
        for slot in (first, second):
            await trio.sleep(10)
            assert not orders.begun.is_set()
            slot.has_served = True
            slot.started.set()
        await orders.begun.wait()
        nursery.cancel_scope.cancel()


async def test_an_order_is_cut_off_before_the_workers_have_ended(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it leaves behind is removed meanwhile, and not afterwards, when a stop is due."""
    orders, stop = Orders(), WorkerPool.stop
    cut_off = False

    async def see_the_order_and_stop(pool: WorkerPool) -> None:
        nonlocal cut_off
        await wait_all_tasks_blocked()
        cut_off = orders.cut_off.is_set()
        await stop(pool)

    monkeypatch.setattr(WorkerPool, "stop", see_the_order_and_stop)
    async with relay(orders=orders):
        await orders.begun.wait()
    assert cut_off


async def test_a_reload_reaches_all_workers(
    mock_clock: MockClock,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits: list[int] = []
    monkeypatch.setattr(
        serverinfo, "apply", lambda _, __, limit: limits.append(limit.bytes_per_second)
    )
    rates = tmp_path / "rates"
    rates.write_text('{"PerClientRateLimitBytesPerSec": 500000}')
    async with relay(config(rate_config=rates)) as found:
        await until_logged(caplog, "workers share the work")
        await found.tell(Event.RELOAD)
        await until_logged(caplog, "rate limit applied")
        await wait_all_tasks_blocked()
        assert limits == [500_000, 500_000]


async def test_where_a_worker_does_not_even_start_there_is_no_relay(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> str:
        await trio.lowlevel.checkpoint()
        return "exit code 1"

    monkeypatch.setattr(WorkerPool, "_run_process", fail)
    with pytest.RaisesGroup(pytest.RaisesExc(StartError, match="not all workers have started")):
        async with relay():
            pass
