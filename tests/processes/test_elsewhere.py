"""The relay where there is no epoll, no recvmmsg and no /proc: macOS and the BSDs, simulated."""

import signal
import socket
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio

from stun.message import build_binding_request, parse_binding_response
from tests.patience import PATIENCE
from tests.peers import RESTARTING, Peer
from tests.process import Derper, derper, insecure
from tests.processes.pages import varz
from tests.support.ends import StreamEnd, upgrade

MODULE = "tests.support.elsewhere"
NO_OPTION = "this system has no such option; linux has"
pytestmark = pytest.mark.slow


async def client(relay: Derper, streams: AsyncExitStack) -> Peer:
    tcp = await trio.open_tcp_stream("127.0.0.1", relay.port("HTTPS"))
    streams.push_async_callback(trio.aclose_forcefully, tcp)
    stream = trio.SSLStream(tcp, insecure())
    assert (await upgrade(stream)).startswith(b"HTTP/1.1 101 ")
    return await Peer(StreamEnd(stream)).log_in()


async def test_clients_are_served(tmp_path: Path) -> None:
    with derper(tmp_path, module=MODULE) as relay:
        async with AsyncExitStack() as streams:
            a, b = [await client(relay, streams) for _ in range(2)]
            for size in (0, 1400, 65536):
                packet = (bytes(range(256)) * 256)[:size]
                await a.send_packet(b.key, packet)
                assert await b.receive_packet() == (a.key, packet)
                await b.send_packet(a.key, packet)
                assert await a.receive_packet() == (b.key, packet)
            # A stranger who leaves, and one who stays, hold up nobody.
            stays, leaves = [
                await trio.open_tcp_stream("127.0.0.1", relay.port("HTTPS")) for _ in range(2)
            ]
            streams.push_async_callback(trio.aclose_forcefully, stays)
            await trio.aclose_forcefully(leaves)
            await a.ping()
            shown = varz(relay, tls=True)
            assert shown["derp_current_connections"] == "2"
            assert "process_open_fds" not in shown
            relay.signal(signal.SIGTERM)
            assert (await a.receive())[0] == RESTARTING
        assert relay.wait() == 0
        assert not [line for line in relay.log if "level=error" in line or "Traceback" in line]


async def test_stun_answers(tmp_path: Path) -> None:
    with derper(tmp_path, module=MODULE, tls=False) as relay:
        sent = [bytes([number] * 12) for number in range(20)]
        with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            await asking.connect(("127.0.0.1", relay.port("STUN")))
            for transaction in sent:
                await asking.send(build_binding_request(transaction))
            with trio.fail_after(PATIENCE):
                answers = [parse_binding_response(await asking.recv(1000)) for _ in sent]
            assert [transaction for transaction, _ in answers] == sent
            assert {address.port for _, address in answers} == {asking.getsockname()[1]}


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["-workers", "2"], "-workers 2: only Linux shares a port among processes; leave it 1"),
        (["-interface", "lo"], "-interface lo: this system has no such option; linux has"),
        (
            ["-tcp-congestion", "bbr"],
            "-tcp-congestion bbr: this system has no such option; linux has",
        ),
    ],
)
def test_what_only_linux_can_do_is_refused_in_a_line(
    tmp_path: Path, flags: list[str], told: str
) -> None:
    with derper(tmp_path, *flags, module=MODULE, tls=False) as relay:
        assert relay.wait() == 1
        assert relay.log[-1] == f"derper: {told}"


def test_workers_that_are_left_to_the_relay_are_one(tmp_path: Path) -> None:
    with derper(tmp_path, "-workers", "auto", module=MODULE, tls=False) as relay:
        relay.port("HTTP")
        assert relay.stop() == 0


def test_windows_is_refused_in_a_line() -> None:
    script = """
import sys
sys.platform = "win32"
for name in ("fcntl", "grp", "pwd", "resource", "termios", "trio"):
    sys.modules[name] = None
from derp.cli.entry import script
script()
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "derper: Windows can't run the relay; use Linux, WSL 2 or a container\n"
