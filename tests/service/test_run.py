"""The life of a process in this one: start, reload, drain, and the order in which nurseries end.

The clock stands still but for where a test has it jump.
"""

import contextlib
import logging
import signal
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from certs.tasks.dnsrecords import STOP_TIMEOUT
from derp.accounts.keeper import FLUSH_EVERY, Accounts
from derp.accounts.memorysink import MemorySink
from derp.admission.checker import Checker
from derp.admission.make import make_checker
from derp.admission.sources import Sources
from derp.config import Config
from derp.errors import StartError
from derp.files import ratelimit
from derp.metrics import Metrics
from derp.net import congestion
from derp.net.listenaddress import Address
from derp.policy.model import EMPTY
from derp.service.drain import FLUSH_SECONDS
from derp.service.run import serve
from derp.service.running import RunningRelay
from derp.service.signals import Event, receive_signals
from derp.service.sockets import Sockets
from derp.service.standalone import Standalone
from derp.service.startup import prepare
from derp.service.status import Pages
from derp.service.summaries import SUMMARY_EVERY
from derp.session import recheck
from derp.session.state import RelayState
from tests.peers import KEEP_ALIVE, RESTARTING, Peer
from tests.service.resources import resources
from tests.support.config import make_config
from tests.support.derp import HEALTH

config = partial(make_config, dev=True, a=Address("127.0.0.1", 0))
UPGRADE = (
    b"GET /derp HTTP/1.1\r\nHost: x\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n"
    b"Derp-Fast-Start: 1\r\n\r\n"
)


class End:
    """A Trio stream with the methods that a Peer needs."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream

    async def send(self, data: bytes) -> None:
        await self._stream.send_all(data)

    async def receive(self) -> bytes:
        return bytes(await self._stream.receive_some(1 << 16))


class Told(Standalone):
    """The role of a process that is told by `events`, in place of signals."""

    def __init__(self) -> None:
        self.events, self._told = trio.open_memory_channel[Event](8)
        self.relay: RunningRelay | None = None
        super().__init__(self._pass_on)

    async def _pass_on(self, events: Any, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        async for event in self._told:
            await events.send(event)

    async def start(self, relay: RunningRelay) -> Pages:
        self.relay = relay
        return await super().start(relay)


@attrs.define
class Process:
    port: int
    role: Told
    ended: trio.Event = attrs.field(factory=trio.Event)
    streams: list[trio.SocketStream] = attrs.field(factory=list)

    @property
    def state(self) -> RelayState:
        assert self.role.relay is not None
        return self.role.relay.state

    async def log_in(self) -> Peer:
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        self.streams.append(stream)
        await stream.send_all(UPGRADE)
        return await Peer(cast("Any", End(stream))).log_in()

    async def tell(self, event: Event) -> None:
        await self.role.events.send(event)
        await wait_all_tasks_blocked()


@asynccontextmanager
async def process(
    chosen: Config | None = None, role: Told | None = None, **changes: Any
) -> AsyncIterator[Process]:
    """Serve on a socket of this test, and stop at its end."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    found = Process(listener.getsockname()[1], role or Told())
    prepared = resources(
        sockets=Sockets([listener], (), ()),
        addresses={listener: Address("127.0.0.1", 0)},
        **changes,
    )

    async def run() -> None:
        await serve(chosen or config(), prepared, found.role)
        found.ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await wait_all_tasks_blocked()
        yield found
        if not found.ended.is_set():
            await found.tell(Event.STOP)
        await found.ended.wait()
        for stream in found.streams:
            await stream.aclose()
    assert listener.fileno() == -1


def lines(caplog: pytest.LogCaptureFixture) -> dict[str, dict[str, Any]]:
    return {record.getMessage(): record.__dict__["fields"] for record in caplog.records}


async def logged(caplog: pytest.LogCaptureFixture, line: str) -> None:
    """Wait for what a thread does."""
    while line not in lines(caplog):
        await trio.lowlevel.checkpoint()


@pytest.fixture(autouse=True)
def info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


async def test_it_announces_what_it_serves(
    mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with process() as relay:
        assert lines(caplog)["serving on 127.0.0.1:0"]["address"] == f"127.0.0.1:{relay.port}"
        one, other = await relay.log_in(), await relay.log_in()
        await one.send_packet(other.key, b"hello")
        assert await other.receive_packet() == (one.key, b"hello")
    assert list(lines(caplog))[-2:] == ["stopping", "stopped"]


@pytest.mark.parametrize(
    ("flags", "hinted"),
    [
        ({}, True),
        ({"tcp_congestion": "reno"}, False),
        ({"dev": True}, False),
        ({"derp": False}, False),
    ],
)
async def test_it_hints_at_bbr_once_unless_a_congestion_control_is_named(
    flags: dict[str, Any],
    hinted: bool,
    mock_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernel = congestion.Kernel(("cubic", "bbr"), ("cubic", "bbr"))
    monkeypatch.setattr(congestion.Kernel, "read", lambda: kernel)
    monkeypatch.setattr(congestion, "algorithm_of", lambda _: "cubic")
    chosen = {"dev": False, "c": "/none", "a": Address("127.0.0.1", 0)} | flags
    async with process(make_config(**chosen)):
        told = [record for record in caplog.records if "BBR" in record.getMessage()]
    assert len(told) == hinted
    for record in told:
        assert record.levelname == "INFO"
        assert "tcp_congestion_control=bbr" in record.__dict__["fields"]["cure"]


class Certificates:
    """As those of a relay, as far as it looks; without TLS, so that a test need not speak it."""

    contexts = SimpleNamespace(engine=None)
    statuses = ()

    def __init__(self) -> None:
        self.wakes = 0

    def wake(self) -> None:
        self.wakes += 1

    async def run(self, announce: object) -> None:
        await trio.sleep_forever()


async def test_a_reload_reads_all_files_again(
    mock_clock: MockClock,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    list_reloads = 0

    async def run(_: RelayState, __: Checker, every: float, wake: Any) -> None:
        nonlocal list_reloads
        async for _ in wake:
            list_reloads += 1

    monkeypatch.setattr(recheck, "run", run)
    rates, certificates = tmp_path / "rates", Certificates()
    parts = {"certificates": certificates, "admission": Checker(Metrics(), Sources())}
    async with process(config(rate_config=rates), **parts) as relay:
        watched = cast("RunningRelay", relay.role.relay)
        rates.write_text('{"PerClientRateLimitBytesPerSec": 500000}')
        await relay.tell(Event.RELOAD)
        await logged(caplog, "rate limit applied")
        limit = watched.state.rate_limit
        assert limit.bytes_per_second == 500_000
        rates.write_text("{")
        await relay.tell(Event.RELOAD)
        await logged(caplog, "the old rate limit stays in force")
        assert watched.state.rate_limit == limit
        assert certificates.wakes == list_reloads == 2


async def test_a_reload_reads_the_policy_again(
    mock_clock: MockClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "policy.toml"
    file.write_text('[defaults]\nrate = "1 Mbit/s"')
    chosen = config(policy=file)
    metrics = Metrics()
    parts = {"metrics": metrics, "admission": make_checker(chosen, metrics)}
    async with process(chosen, **parts) as relay:
        assert lines(caplog)["policy in force"]["entries"] == 0
        peer = await relay.log_in()
        assert peer.server_info["TokenBucketBytesPerSecond"] == 125_000
        file.write_text('[defaults]\nrate = "2 Mbit/s"\ndeny = true')
        await relay.tell(Event.RELOAD)
        await logged(caplog, "new policy")
        await logged(caplog, "left")
        assert lines(caplog)["left"]["reason"].startswith("not_admitted: no longer admitted by")
        file.write_text("[defaults]\ndeny = false")
        await relay.tell(Event.RELOAD)
        while relay.state.policy != EMPTY:
            await trio.lowlevel.checkpoint()
        assert (await relay.log_in()).server_info == {"version": 2}


async def test_a_quota_counts_after_a_flush(mock_clock: MockClock, tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text('[defaults]\nquota = "200 B/day"\nthrottle = "1 Mbit/s"')
    chosen = config(policy=file)
    metrics, accounts = Metrics(), Accounts(MemorySink())
    parts = {"metrics": metrics, "admission": make_checker(chosen, metrics), "accounts": accounts}
    async with process(chosen, **parts) as relay:
        peer = await relay.log_in()
        assert peer.server_info == {"version": 2}
        mock_clock.jump(FLUSH_EVERY)
        while (frame := await peer.receive())[0] == KEEP_ALIVE:
            pass
        info = peer.open_server_info(peer.server_key, frame[1])
        assert info["TokenBucketBytesPerSecond"] == 125_000
        kind, payload = await peer.receive()
        assert kind == HEALTH
        assert payload.startswith(b"this device has used up its quota of 200 B/day here")


@pytest.mark.parametrize("flag", ["policy", "accounts"])
@pytest.mark.parametrize("processes", [1, 2])
def test_what_counts_for_quotas(tmp_path: Path, flag: str, processes: int) -> None:
    file = tmp_path / "policy.toml"
    file.write_text("[defaults]")
    files = {"policy": file, flag: file if flag == "policy" else tmp_path / "accounts"}
    with contextlib.ExitStack() as stack:
        prepared = prepare(config(**files), stack, processes)
    checker = prepared.own_checker
    assert checker is not None
    assert checker.sources.policy is not None
    assert checker.sources.policy.usage is prepared.accounts is not None
    assert checker.sources.policy.usage_in_memory is (flag == "policy")
    # It takes two flushes from a worker to the file.
    assert prepared.accounts._every * processes == FLUSH_EVERY
    with contextlib.ExitStack() as stack:
        assert prepare(config(), stack).accounts is None


async def test_a_file_that_is_not_read_to_its_end_delays_no_stop(
    mock_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(ratelimit, "load", lambda *_: go_on.wait())
    async with process(config(rate_config=tmp_path / "rates")) as relay:
        await relay.tell(Event.RELOAD)
        await relay.tell(Event.STOP)
        await relay.ended.wait()
    go_on.set()


async def test_clients_are_told_and_ended_over_the_drain_time(
    mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with process(config(drain_time=10.0)) as relay:
        clients = [await relay.log_in() for _ in range(2)]
        await relay.tell(Event.STOP)
        # The second signal does not cut it short.
        await relay.tell(Event.STOP)
        for client in clients:
            assert (await client.receive())[0] == RESTARTING
        with pytest.raises(OSError, match=r"refused|failed"):
            await relay.log_in()
        assert lines(caplog)["stopping"] == {"clients": 2}
        assert len(relay.state.hub.members) == 1
        mock_clock.jump(9.9)
        await wait_all_tasks_blocked()
        assert not relay.state.hub.members
        assert not relay.ended.is_set()
        mock_clock.jump(0.1)
        await relay.ended.wait()


async def test_the_nurseries_end_from_the_inside_out(
    mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """First what lets clients in, then they, once they have been told, then what sends to them."""
    ends: list[str] = []

    class Watched(Told):
        async def start(self, relay: RunningRelay) -> Pages:
            async def watch(name: str) -> None:
                try:
                    await trio.sleep_forever()
                finally:
                    drained = "stopping" in lines(caplog)
                    ends.append(f"{name} {'after' if drained else 'before'} the drain")
                    if name == "root":
                        ends.append(f"{len(relay.state.hub.members)} clients")

            for name in ("root", "connections", "services"):
                getattr(relay, name).start_soon(watch, name)
            return await super().start(relay)

    async with process(role=Watched()) as relay:
        await relay.log_in()
        await relay.tell(Event.STOP)
        await relay.ended.wait()
    assert ends == [
        "services before the drain",
        "connections after the drain",
        "root after the drain",
        "0 clients",
    ]


async def test_an_order_that_is_cut_off_keeps_nobody_waiting(mock_clock: MockClock) -> None:
    """Its DNS records are removed, which may take seconds, while the clients are told."""

    class Ordering(Certificates):
        async def run(self, announce: object) -> None:
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(STOP_TIMEOUT)

    async with process(certificates=Ordering()) as relay:
        client = await relay.log_in()
        await relay.log_in()
        (slow,) = (member for member in relay.state.hub.members if member.key != client.key)
        while slow.send_queue is None:
            slow.send_control(bytes(1 << 16))
        await relay.tell(Event.STOP)
        assert relay.state.stopping
        assert (await client.receive())[0] == RESTARTING
        ended = []
        for seconds in (FLUSH_SECONDS, STOP_TIMEOUT - FLUSH_SECONDS - 0.1, 0.1, STOP_TIMEOUT):
            mock_clock.jump(seconds)
            await wait_all_tasks_blocked()
            ended.append(relay.ended.is_set())
        assert ended == [False, False, True, True]


async def test_what_is_queued_is_sent_before_the_end(mock_clock: MockClock) -> None:
    """For FLUSH_SECONDS, however long the client takes nothing."""
    async with process() as relay:
        client = await relay.log_in()
        (member,) = relay.state.hub.members
        while member.send_queue is None:
            member.send_control(bytes([KEEP_ALIVE]) + (1 << 16).to_bytes(4) + bytes(1 << 16))
        await relay.tell(Event.STOP)
        assert not relay.ended.is_set()
        while (await client.receive())[0] != RESTARTING:
            pass
        await relay.ended.wait()


async def test_a_client_that_takes_nothing_delays_the_end_by_three_seconds(
    mock_clock: MockClock,
) -> None:
    async with process() as relay:
        await relay.log_in()
        (member,) = relay.state.hub.members
        while member.send_queue is None:
            member.send_control(bytes(1 << 16))
        await relay.tell(Event.STOP)
        mock_clock.jump(FLUSH_SECONDS - 0.1)
        await wait_all_tasks_blocked()
        assert not relay.ended.is_set()
        mock_clock.jump(0.1)
        await relay.ended.wait()


async def test_refusals_without_a_line_are_summed_up(
    mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with process() as relay:
        for _ in range(200):
            stream = await trio.open_tcp_stream("127.0.0.1", relay.port)
            await stream.send_all(b"\r\n\r\nnonsense\r\n\r\n")
            await stream.receive_some()
            await stream.aclose()
        await wait_all_tasks_blocked()
        assert "refused more" not in lines(caplog)
        mock_clock.jump(SUMMARY_EVERY)
        await wait_all_tasks_blocked()
    reasons = [
        record.__dict__["fields"]["reason"]
        for record in caplog.records
        if record.getMessage() == "refused more"
    ]
    assert "http_failed" in reasons


async def test_signals_are_events() -> None:
    to_test, events = trio.open_memory_channel[Event](3)
    async with trio.open_nursery() as nursery:
        await nursery.start(receive_signals, to_test)
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
            signal.raise_signal(number)
        wanted = [Event.RELOAD, Event.STOP, Event.STOP]
        assert sorted([await events.receive() for _ in wanted], key=str) == wanted
        nursery.cancel_scope.cancel()


def test_a_start_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    key = tmp_path / "derper.key"
    with contextlib.ExitStack() as stack, socket.create_server(("127.0.0.1", 0)) as other:
        taken = config(a=Address(*other.getsockname()), c=key)
        with pytest.raises(StartError, match="can't listen on TCP"):
            prepare(taken, stack)
    assert not key.exists()
    with contextlib.ExitStack() as stack:
        prepared = prepare(config(c=key), stack)
        (listener,) = prepared.sockets.main
        assert key.exists()
    assert listener.fileno() == -1
