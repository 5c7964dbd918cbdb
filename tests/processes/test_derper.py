"""The whole program as a process: start, serve, reload, stop, and what it says when it can't."""

import hashlib
import ipaddress
import json
import re
import signal
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trio
import trio_websocket

from certs.selfsigned import make_self_signed
from stun.message import build_binding_request, parse_binding_response
from tests.patience import PATIENCE
from tests.peers import PONG, RESTARTING, Peer
from tests.process import derper, insecure
from tests.support.derp import HEALTH
from tests.support.ends import StreamEnd, WebSocketEnd, upgrade

Connect = Callable[..., Awaitable[Peer]]


@pytest.fixture
async def upgraded() -> AsyncIterator[Callable[..., Awaitable[Peer]]]:
    """Open connections to /derp, not logged in yet; all are closed in the end."""
    async with AsyncExitStack() as streams:

        async def connect(port: int, context: ssl.SSLContext | None) -> Peer:
            tcp = await trio.open_tcp_stream("127.0.0.1", port)
            streams.push_async_callback(trio.aclose_forcefully, tcp)
            stream = trio.SSLStream(tcp, context) if context else tcp
            assert (await upgrade(stream)).startswith(b"HTTP/1.1 101 ")
            return Peer(StreamEnd(stream))

        yield connect


def get(url: str) -> str:
    with urllib.request.urlopen(url, context=insecure(), timeout=PATIENCE) as answer:
        return str(answer.read().decode())


def two_lines(url: str) -> tuple[bytes, bytes]:
    with urllib.request.urlopen(url, context=insecure(), timeout=PATIENCE) as answer:
        return answer.readline(), answer.readline()


async def test_clients_over_tls_and_plain_http_and_websocket_meet(
    tmp_path: Path, upgraded: Connect
) -> None:
    with derper(tmp_path) as relay:
        a = await (await upgraded(relay.port("HTTPS"), insecure())).log_in()
        url = f"wss://127.0.0.1:{relay.port('HTTPS')}/derp"
        async with trio_websocket.open_websocket_url(
            url, ssl_context=insecure(), subprotocols=["derp"]
        ) as websocket:
            b = await Peer(WebSocketEnd(websocket)).log_in()  # type: ignore[arg-type]
            for size in (0, 1400, 65536):
                packet = bytes(range(256)) * 256
                await a.send_packet(b.key, packet[:size])
                assert await b.receive_packet() == (a.key, packet[:size])
                await b.send_packet(a.key, packet[:size])
                assert await a.receive_packet() == (b.key, packet[:size])
            page = get(f"https://127.0.0.1:{relay.port('HTTPS')}/debug/varz")
            assert "\ngauge_derp" not in page
            assert "\nderp_current_connections 2\n" in page
            assert "\nderp_websocket_accepts 1\n" in page
            assert '\nderper_tls_active_version{version="1.3"} 3\n' in page
        assert relay.stop() == 0
        joined = [line for line in relay.log if "msg=joined" in line]
        assert len(joined) == 2


async def test_plain_http_where_the_port_is_not_443(tmp_path: Path, upgraded: Connect) -> None:
    with derper(tmp_path, tls=False) as relay:
        a = await (await upgraded(relay.port("HTTP"), None)).log_in()
        await a.ping()
        relay.wait_for("level=warning.*clients want HTTPS, and this is HTTP")


@pytest.mark.parametrize("tls", [True, False])
def test_the_log_says_where_it_serves_in_the_go_derpers_words(tmp_path: Path, tls: bool) -> None:
    # Which scripts wait for.
    with derper(tmp_path, tls=tls) as relay:
        port = relay.wait_for("STUN server listening on 127.0.0.1:([0-9]+)")[1]
        assert int(port) == relay.port("STUN")
        suffix = " with TLS" if tls else ""
        what = "HTTPS" if tls else "HTTP"
        relay.wait_for(rf'msg="serving on 127\.0\.0\.1:0{suffix}" what={what} address=')
        if tls:
            relay.wait_for(r'msg="serving on 127\.0\.0\.1:0" what=HTTP address=')


async def test_without_the_poller_clients_are_served_alike(
    tmp_path: Path, upgraded: Connect
) -> None:
    with derper(tmp_path, "-poller=false") as relay:
        a, b = [await (await upgraded(relay.port("HTTPS"), insecure())).log_in() for _ in range(2)]
        for packet in (b"", b"hello", bytes(65536)):
            await a.send_packet(b.key, packet)
            assert await b.receive_packet() == (a.key, packet)
            await b.send_packet(a.key, packet)
            assert await a.receive_packet() == (b.key, packet)
        relay.signal(signal.SIGTERM)
        assert (await a.receive())[0] == RESTARTING
        assert relay.wait() == 0


async def test_stun_answers(tmp_path: Path) -> None:
    with derper(tmp_path) as relay:
        client = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with client:
            await client.connect(("127.0.0.1", relay.port("STUN")))
            await client.send(build_binding_request(bytes(range(12))))
            with trio.fail_after(PATIENCE):
                data = await client.recv(1000)
            transaction, address = parse_binding_response(data)
            assert transaction == bytes(range(12))
            assert address.port == client.getsockname()[1]
        page = get(f"https://127.0.0.1:{relay.port('HTTPS')}/debug/varz")
        assert 'stun_requests{disposition="success"} 1\n' in page


async def test_stopping_tells_the_clients_and_exits_0(tmp_path: Path, upgraded: Connect) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        with derper(tmp_path) as relay:
            a = await (await upgraded(relay.port("HTTPS"), insecure())).log_in()
            relay.signal(number)
            kind, payload = await a.receive()
            assert kind == RESTARTING
            assert int.from_bytes(payload[:4]) < 2000
            assert int.from_bytes(payload[4:]) == 12_000
            kind, payload = await a.receive()
            assert (kind, payload[:20]) == (HEALTH, b"the relay goes down,")
            # Without close_notify this would be an error.
            with pytest.raises(EOFError):
                await a.receive()
            assert relay.wait() == 0
            assert "msg=stopped" in relay.log[-1]


async def test_the_key_and_the_certificate_stay_the_same(tmp_path: Path, upgraded: Connect) -> None:
    seen = []
    for _ in range(2):
        with derper(tmp_path) as relay:
            a = await (await upgraded(relay.port("HTTPS"), insecure())).log_in()
            node = json.loads(relay.wait_for(r"^ *(\{.*sha256-raw:[0-9a-f]{64}.*\})$")[1])
            seen.append((node["CertName"], a.server_key))
    assert seen[0] == seen[1]
    key = json.loads((tmp_path / "derper.key").read_text())
    assert re.fullmatch("privkey:[0-9a-f]{64}", key["PrivateKey"])
    assert not any(key["PrivateKey"][8:] in line for line in relay.log)


async def test_sighup_reads_the_rate_limit_again(tmp_path: Path, upgraded: Connect) -> None:
    limits = tmp_path / "limits.json"
    limits.write_text('{"PerClientRateLimitBytesPerSec": 125000}')
    with derper(tmp_path, "-rate-config", str(limits)) as relay:
        port = relay.port("HTTPS")
        a = await (await upgraded(port, insecure())).log_in()
        assert a.server_info["TokenBucketBytesPerSecond"] == 125_000
        assert "rate_limit_per_client_bytes_per_second 125000\n" in get(
            f"https://127.0.0.1:{port}/debug/varz"
        )

        limits.write_text("{")
        relay.signal(signal.SIGHUP)
        assert "-rate-config" in relay.wait_for("the old rate limit stays.*").string

        limits.write_text('{"PerClientRateLimitBytesPerSec": 250000}')
        relay.signal(signal.SIGHUP)
        relay.wait_for("rate limit applied.*250000")
        b = await (await upgraded(port, insecure())).log_in()
        assert b.server_info["TokenBucketBytesPerSecond"] == 250_000


async def test_sighup_without_a_rate_limit_is_survived(tmp_path: Path, upgraded: Connect) -> None:
    with derper(tmp_path) as relay:
        port = relay.port("HTTPS")
        relay.signal(signal.SIGHUP)
        relay.wait_for("SIGHUP")
        a = await (await upgraded(port, insecure())).log_in()
        await a.send(0x12, bytes(8))
        assert await a.receive() == (PONG, bytes(8))


def served(port: int) -> bytes:
    """Return the certificate that is served on `port` to those who connect now."""
    with (
        socket.create_connection(("127.0.0.1", port), PATIENCE) as tcp,
        insecure().wrap_socket(tcp) as tls,
    ):
        der = tls.getpeercert(binary_form=True)
    assert der is not None
    return der


def put_new_pair(certdir: Path) -> bytes:
    """Put another pair in place of that for 127.0.0.1; return its certificate."""
    chain, key = make_self_signed(ipaddress.ip_address("127.0.0.1"), datetime.now(UTC))
    (certdir / "127.0.0.1.crt").write_bytes(chain)
    (certdir / "127.0.0.1.key").write_bytes(key)
    return ssl.PEM_cert_to_DER_cert(chain.decode())


async def test_a_new_certificate_is_served_without_a_restart(
    tmp_path: Path, upgraded: Connect
) -> None:
    with derper(tmp_path) as relay:
        port = relay.port("HTTPS")
        a = await (await upgraded(port, insecure())).log_in()
        first = served(port)

        second = put_new_pair(tmp_path / "certs")
        relay.signal(signal.SIGHUP)
        relay.wait_for("new certificate")
        assert served(port) == second != first

        (tmp_path / "certs" / "127.0.0.1.key").write_text("no key")
        relay.signal(signal.SIGHUP)
        relay.wait_for("the old certificate stays in force.*127.0.0.1.key")
        assert served(port) == second

        # Without a signal it looks by itself, every few seconds.
        third = put_new_pair(tmp_path / "certs")
        relay.wait_for(f"new certificate.*{hashlib.sha256(third).hexdigest()}")
        assert served(port) == third
        await a.send(0x12, bytes(8))
        assert await a.receive() == (PONG, bytes(8))
        page = get(f"https://127.0.0.1:{port}/debug/varz")
        assert '\nderper_certificate_replaced{name="127.0.0.1"} 2\n' in page
        assert '\nderper_certificate_failures{name="127.0.0.1"} 1\n' in page
        index = get(f"https://127.0.0.1:{port}/debug/")
        assert "Last failure" in index
        assert "no private key" in index or "no PEM" in index


async def test_traffic_is_shown_by_client(tmp_path: Path, upgraded: Connect) -> None:
    with derper(tmp_path) as relay:
        a = await (await upgraded(relay.port("HTTPS"), insecure())).log_in()
        await a.send_packet(a.key, bytes(1000))
        await a.receive_packet()
        url = f"https://127.0.0.1:{relay.port('HTTPS')}/debug/traffic"
        first, second = await trio.to_thread.run_sync(two_lines, url)
        line = json.loads(first)
        assert second == b"\n"
        assert line.keys() == {"Sent", "Recv", "Key", "UniqueSenders"}
        assert line["Key"] == f"nodekey:{a.key.hex()}"
        assert line["UniqueSenders"] == 1
        assert 1000 < line["Recv"] < 5000
        assert 1000 < line["Sent"] < 5000


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_debug_pages_by_key(
    tmp_path: Path, workers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As behind a proxy, and with a key that is replaced meanwhile."""
    key_file = tmp_path / "debug key"
    key_file.write_text("first\n")

    def status(port: int, key: str) -> int:
        headers = {"X-Forwarded-For": "192.0.2.1"}
        url = f"http://127.0.0.1:{port}/debug/varz?debugkey={key}"
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as refusal:
            with refusal:
                return refusal.code

    monkeypatch.setenv("TS_DEBUG_KEY_PATH", str(key_file))
    with derper(tmp_path, "-workers", workers, tls=False) as relay:
        port = relay.port("HTTP")
        assert [status(port, key) for key in ("first", "second", "")] == [200, 403, 403]
        key_file.write_text("second\n")
        with trio.fail_after(60):
            # In a row: each worker looks at the file for itself.
            agreed = 0
            while agreed < 10:
                await trio.sleep(0.1)
                agreed += 1
                if (status(port, "second"), status(port, "first")) != (200, 403):
                    agreed = 0
        assert relay.stop() == 0
        assert not any("second" in line or "first" in line for line in relay.log)


async def test_scanners_are_refused_and_do_not_fill_the_log(tmp_path: Path) -> None:
    with derper(tmp_path) as relay:
        port = relay.port("HTTPS")
        for _ in range(30):
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            async with stream:
                await stream.send_all(b"GET / HTTP/1.0\r\n\r\n")
                while await stream.receive_some():
                    pass
        page = get(f"https://127.0.0.1:{port}/debug/varz")
        assert 'derp_connection_ends{reason="tls_failed"} 30\n' in page
        assert relay.stop() == 0
        refusals = [line for line in relay.log if "tls_failed" in line]
        assert len(refusals) == 6
        assert "connections=25" in refusals[-1]
        assert not any("Traceback" in line for line in relay.log)


async def test_a_server_name_that_is_no_ascii_leaves_no_traceback(tmp_path: Path) -> None:
    with derper(tmp_path) as relay:
        hello = ssl.MemoryBIO()
        client = insecure().wrap_bio(ssl.MemoryBIO(), hello, server_hostname="example.org")
        with pytest.raises(ssl.SSLWantReadError):
            client.do_handshake()
        stream = await trio.open_tcp_stream("127.0.0.1", relay.port("HTTPS"))
        async with stream:
            await stream.send_all(hello.read().replace(b"example.org", b"ex\xff\xfeple.org"))
            await stream.receive_some()
        assert relay.stop() == 0
        assert not any("Traceback" in line or "Unicode" in line for line in relay.log)


async def test_more_connections_than_the_accept_limit_are_closed(
    tmp_path: Path, upgraded: Connect
) -> None:
    flags = ("-accept-connection-limit", "0.001", "-accept-connection-burst", "2")
    with derper(tmp_path, *flags) as relay:
        port = relay.port("HTTPS")
        a = await (await upgraded(port, insecure())).log_in()
        b = await (await upgraded(port, insecure())).log_in()
        with pytest.raises(trio.BrokenResourceError):
            await upgraded(port, insecure())
        await a.ping()
        await b.ping()
        assert relay.stop() == 0


def run(*flags: str, code: int) -> str:
    """Run derper with flags that it can't serve; return its one line."""
    done = subprocess.run(
        [sys.executable, "-m", "derp", *flags],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == code, done
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("derper: ")
    return line


def test_a_tcp_port_in_use_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = "{}:{}".format(*other.getsockname())
        key = str(tmp_path / "derper.key")
        line = run("-a", address, "-c", key, "-stun=false", code=1)
        assert f"can't listen on TCP {address}: the port is in use" in line


def test_a_udp_port_in_use_is_one_line(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        key = str(tmp_path / "derper.key")
        line = run("-a", "127.0.0.1:0", "-c", key, "-stun-port", str(port), code=1)
        assert f"can't listen on UDP 127.0.0.1:{port}" in line


def test_an_address_that_is_not_here_is_one_line(tmp_path: Path) -> None:
    key = str(tmp_path / "derper.key")
    line = run("-a", "192.0.2.77:0", "-c", key, "-stun=false", code=1)
    assert "this machine does not have that address" in line


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("127.0.0.1.crt", b"", "127.0.0.1.key"),
        ("127.0.0.1.key", b"x", "127.0.0.1.crt"),
    ],
)
def test_half_a_certificate_is_one_line_and_stays_as_it_is(
    tmp_path: Path, name: str, content: bytes, expected: str
) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    flags = ["-a", "127.0.0.1:0", "-c", str(tmp_path / "derper.key"), "-http-port", "-1"]
    flags += ["-certmode", "manual", "-certdir", str(tmp_path), "-hostname", "127.0.0.1"]
    flags += ["-stun=false"]
    assert expected in run(*flags, code=1)
    assert file.read_bytes() == content
    assert not (tmp_path / expected).exists()


def test_a_key_that_others_can_read_is_one_line(tmp_path: Path) -> None:
    key = tmp_path / "derper.key"
    key.write_text("{}")
    key.chmod(0o644)
    assert "chmod 600" in run("-a", "127.0.0.1:0", "-c", str(key), "-stun=false", code=1)


def test_a_wrong_flag_writes_and_binds_nothing(tmp_path: Path) -> None:
    key = tmp_path / "derper.key"
    assert "-stun-port" in run("-c", str(key), "-stun-port", "x", code=2)
    assert not key.exists()
