"""-metrics-addr of a relay that runs: alone and with workers, by TCP and at a path."""

import http.client
import json
import signal
import socket
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import trio

from derp.wire.keys import node_public_text
from tests.patience import PATIENCE
from tests.peers import Peer
from tests.process import Derper, derper
from tests.support.ends import StreamEnd, upgrade
from tests.support.waiting import until

WORKERS = pytest.mark.parametrize("workers", [(), ("-workers", "2")], ids=["alone", "with workers"])


class AtPath(http.client.HTTPConnection):
    """HTTP at a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(str(self._path))


def connection(relay: Derper) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", relay.port("metrics"), timeout=PATIENCE)


def ask(monitor: http.client.HTTPConnection, path: str) -> tuple[int, str]:
    monitor.request("GET", path)
    answer = monitor.getresponse()
    return answer.status, answer.read().decode()


def metrics(monitor: http.client.HTTPConnection) -> dict[str, float]:
    status, text = ask(monitor, "/metrics")
    assert status == 200
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


@pytest.fixture
def relay(tmp_path: Path, workers: tuple[str, ...]) -> Iterator[Derper]:
    flags = ("-metrics-addr", "127.0.0.1:0", "-metrics-per-key", "9", "-drain-time", "30s")
    with derper(tmp_path, *flags, *workers) as running:
        yield running


@WORKERS
async def test_bytes_of_a_client_are_shown_and_stay(
    tmp_path: Path, workers: tuple[str, ...]
) -> None:
    flags = ("-metrics-addr", "127.0.0.1:0", "-metrics-per-key", "9")
    with (
        derper(tmp_path, *flags, *workers, tls=False) as running,
        closing(connection(running)) as monitor,
    ):
        stream = await trio.open_tcp_stream("127.0.0.1", running.port("HTTP"))
        async with stream:
            await upgrade(stream)
            client = await Peer(StreamEnd(stream)).log_in()
            for _ in range(10):
                await client.send_packet(bytes(range(32)), bytes(60_000))
            await client.ping()
            name = f'derper_key_received_bytes_total{{key="{node_public_text(client.key)}"}}'
            until("its bytes are shown", lambda: metrics(monitor).get(name, 0) > 600_000)
            found = metrics(monitor)
            assert 600_000 < found[name] < 700_000
            assert found[name.replace("received", "sent")] > 0
            assert found["derp_current_connections"] == 1
        until("it has left", lambda: not metrics(monitor)["derp_current_connections"])
        # The end of a stream counts as a byte.
        assert metrics(monitor)[name] - found[name] in {0, 1}


@WORKERS
def test_a_drain_is_told(relay: Derper) -> None:
    with closing(connection(relay)) as monitor:
        status, text = ask(monitor, "/healthz")
        told = json.loads(text)
        assert (status, told["status"]) == (200, "ok")
        assert 300 < told["certificates"][0]["days_left"] < 400
        relay.signal(signal.SIGTERM)
        until("it is drained", lambda: ask(monitor, "/healthz")[0] == 503)
        told = json.loads(ask(monitor, "/healthz")[1])
        assert (told["status"], told["draining"]) == ("draining", True)
        assert not told["accepting"]
        assert metrics(monitor)["derper_accepting_processes"] == 0
    relay.process.kill()


@WORKERS
def test_at_a_path(tmp_path: Path, workers: tuple[str, ...]) -> None:
    path = tmp_path / "metrics"
    with derper(tmp_path, "-metrics-addr", f"unix:{path}", *workers) as running:
        running.wait_for(f"what=metrics address=unix:{path}")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with closing(AtPath(path)) as monitor:
            assert ask(monitor, "/healthz")[0] == 200
            assert metrics(monitor)["process_open_fds"] > 0
        assert running.stop() == 0
    assert not path.exists()


@WORKERS
def test_what_cannot_be_bound_is_one_line(tmp_path: Path, workers: tuple[str, ...]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with derper(tmp_path, "-metrics-addr", f"127.0.0.1:{port}", *workers) as running:
            assert running.wait() == 1
    why = "the port is in use by another program"
    assert running.log == [f"derper: can't listen on TCP 127.0.0.1:{port}: {why}"]
