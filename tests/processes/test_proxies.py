"""A relay behind proxies, as a process: one, and several workers."""

import contextlib
import json
import re
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import ip_address
from pathlib import Path

import pytest

from derp.cli import main
from derp.wire.proxyprotocol import SIGNATURE
from stun.message import build_binding_request, parse_binding_response
from tests.patience import PATIENCE
from tests.process import Derper, derper, insecure
from tests.support.admissionserver import admitting
from tests.support.derp import SERVER_INFO, UPGRADE, WATCH_CONNS, Frames, Node, upgrade_request

CLIENT, PORT = "192.0.2.7", 40000
TCP_PROXY, HTTP_PROXY = "127.0.5.1", "127.0.6.1"
FLAGS = ("-proxy-protocol-from", "127.0.5.0/24", "-trusted-proxies", "127.0.6.0/24")
ADDRESSES = ip_address(CLIENT).packed + bytes(4) + struct.pack(">HH", PORT, 443)
LINE = f"PROXY TCP4 {CLIENT} 198.51.100.1 {PORT} 443\r\n".encode()
BINARY = SIGNATURE + struct.pack(">BBH", 0x21, 0x11, 60_012) + ADDRESSES + bytes(60_000)
DATAGRAM = SIGNATURE + struct.pack(">BBH", 0x21, 0x12, 12) + ADDRESSES
FORWARDED = f"X-Forwarded-For: {CLIENT}"


class Through:
    """A client's blocking connection through a proxy."""

    def __init__(
        self, relay: Derper, proxy: str, first: bytes = b"", *headers: str, tls: bool = True
    ) -> None:
        port = relay.port("HTTPS" if tls else "HTTP")
        self.sock = socket.create_connection(("127.0.0.1", port), PATIENCE, (proxy, 0))
        self.sock.sendall(first)
        if tls:
            self.sock = insecure().wrap_socket(self.sock, server_hostname="127.0.0.1")
        self.headers = headers
        self.node = Node()
        self.frames = Frames()

    def get(self, path: str) -> bytes:
        self.sock.sendall(upgrade_request(*self.headers, path=path, host="127.0.0.1"))
        return self.sock.recv(1 << 16)

    def log_in(self, **info: object) -> bool:
        """Return whether the relay has let it in."""
        self.sock.sendall(upgrade_request(*UPGRADE, *self.headers, host="127.0.0.1"))
        received = b""
        while b"\r\n\r\n" not in received:
            received += self.sock.recv(1)
        key = self.frame()[1][-32:]
        self.sock.sendall(self.node.client_info(key, **info))
        try:
            return self.frame()[0] == SERVER_INFO
        except (EOFError, ConnectionError):
            return False

    def frame(self) -> tuple[int, bytes]:
        while (found := self.frames.next()) is None:
            if not (data := self.sock.recv(1 << 16)):
                raise EOFError
            self.frames.feed(data)
        return found


@pytest.fixture(params=["1", "2"], ids=["one process", "two workers"])
def relay(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Derper]:
    mesh = tmp_path / "mesh.key"
    mesh.write_text("a5" * 32)
    mesh.chmod(0o600)
    flags = (*FLAGS, "-workers", request.param, "-mesh-psk-file", str(mesh))
    with derper(tmp_path, *flags) as running:
        running.wait_for("STUN server listening")
        yield running


WAYS = {
    "version 1": (TCP_PROXY, LINE, (), PORT),
    "version 2": (TCP_PROXY, BINARY, (), PORT),
    "a header of HTTP": (HTTP_PROXY, b"", (FORWARDED,), 0),
}


def test_the_address_in_the_log_for_watchers_and_on_pages(
    relay: Derper, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with ExitStack() as stack:
        keys = set()
        watcher = Through(relay, "127.0.0.1")
        stack.enter_context(watcher.sock)
        assert watcher.log_in(meshKey="a5" * 32)
        watcher.sock.sendall(struct.pack(">BI", WATCH_CONNS, 0))
        present: dict[bytes, tuple[str, int]] = {}

        def known(key: bytes) -> tuple[str, int]:
            while key not in present:
                kind, payload = watcher.frame()
                if kind == 0x09:
                    address = ip_address(payload[32:48])
                    assert address.version == 6
                    host = str(address.ipv4_mapped or address)
                    present[payload[:32]] = host, int.from_bytes(payload[48:50], "big")
            return present[key]

        for proxy, first, headers, port in WAYS.values():
            client = Through(relay, proxy, first, *headers)
            stack.enter_context(client.sock)
            assert client.log_in()
            end = f"{proxy}:{client.sock.getsockname()[1]}"
            relay.wait_for(rf"msg=joined remote={CLIENT}:{port} proxy={end} ")
            assert known(bytes(client.node.key)) == (CLIENT, port)
            keys.add((f"nodekey:{client.node.key.hex()}", f"{CLIENT}:{port}"))
        assert main.main(["clients", "-json", "-c", str(tmp_path / "derper.key")]) == 0
        listed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert keys < {(row["key"], row["remote"]) for row in listed}


def test_debug_pages_are_closed(relay: Derper) -> None:
    for proxy, first, headers, _ in (
        *WAYS.values(),
        (TCP_PROXY, LINE.replace(CLIENT.encode(), b"127.0.0.1"), (), 0),
        (TCP_PROXY, b"PROXY UNKNOWN\r\n", (), 0),
        (HTTP_PROXY, b"", (), 0),
        (HTTP_PROXY, b"", ("X-Real-IP: 127.0.0.1",), 0),
    ):
        client = Through(relay, proxy, first, *headers)
        with client.sock:
            answer = client.get("/debug/varz")
            assert answer.startswith(b"HTTP/1.1 403 ")
            assert b"not served through a proxy" in answer
    client = Through(relay, "127.0.0.1")
    with client.sock:
        assert client.get("/debug/").startswith(b"HTTP/1.1 200 ")


def stun(relay: Derper, proxy: str, datagram: bytes) -> tuple[str, int] | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((proxy, 0))
        sock.settimeout(PATIENCE)
        where = ("127.0.0.1", relay.port("STUN"))
        sock.sendto(datagram, where)
        sock.sendto(DATAGRAM + build_binding_request(b"the last one"), where)
        if proxy != TCP_PROXY:
            sock.sendto(build_binding_request(b"the last one"), where)
        identity, mapped = parse_binding_response(sock.recv(2048))
        if identity == b"the last one":
            return None
        return str(mapped.address), mapped.port


def test_stun(relay: Derper) -> None:
    request = build_binding_request(bytes(12))
    assert stun(relay, TCP_PROXY, DATAGRAM + request) == (CLIENT, PORT)
    assert stun(relay, TCP_PROXY, request) is None
    assert stun(relay, HTTP_PROXY, DATAGRAM + request) is None
    found = stun(relay, HTTP_PROXY, request)
    assert found
    assert found[0] == HTTP_PROXY
    relay.wait_for(r"a proxy's STUN requests are not answered.* proxy=127\.0\.5\.1 ")


def test_strangers_are_refused_and_a_proxy_that_is_not_listed_is_told_once(relay: Derper) -> None:
    for _ in range(20):
        for first in (LINE, BINARY):
            with socket.create_connection(("127.0.0.1", relay.port("HTTPS")), PATIENCE) as sock:
                sock.sendall(first)
                with contextlib.suppress(ConnectionError):
                    assert sock.recv(1) == b""
        client = Through(relay, "127.0.0.1", b"", FORWARDED)
        with client.sock:
            assert client.get("/derp/probe").startswith(b"HTTP/1.1 200 ")
    reason = "it sends a PROXY header, and -proxy-protocol-from does not have it"
    relay.wait_for(rf"msg=refused remote=127\.0\.0\.1:\d+ .*proxy_header_failed: {reason}")
    assert relay.stop() == 0
    told = [line for line in relay.log if "a proxy that is not listed" in line]
    cures = [re.search(r'cure="(.*?)"', line) for line in told]
    assert sorted(match[1] for match in cures if match) == [
        "if it is yours, and itself sets that: -proxy-protocol-from 127.0.0.1/32",
        "if it is yours, and itself sets that: -trusted-proxies 127.0.0.1/32",
    ]


@pytest.fixture
def controller() -> Iterator[tuple[str, list[str]]]:
    """An admission controller that allows everybody; its URL, and whom it was asked about."""
    with admitting() as found:
        yield found


@pytest.mark.parametrize("workers", ["1", "2"])
def test_admission_is_asked_about_the_client(
    tmp_path: Path, controller: tuple[str, list[str]], workers: str
) -> None:
    url, asked = controller
    flags = (*FLAGS, "-verify-client-url", url, "-workers", workers)
    with derper(tmp_path, *flags, tls=False) as relay:
        relay.wait_for("STUN server listening")
        for proxy, first, headers, _ in WAYS.values():
            client = Through(relay, proxy, first, *headers, tls=False)
            with client.sock:
                assert client.log_in()
    assert asked == [CLIENT] * len(WAYS)


@pytest.mark.parametrize("tls", [True, False])
def test_the_health_check_speaks_for_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tls: bool
) -> None:
    listed = ("-proxy-protocol-from", "127.0.0.0/8")
    with derper(tmp_path, *listed, tls=tls) as relay:
        port = relay.port("HTTPS" if tls else "HTTP")
        told = ["-a", f"127.0.0.1:{port}", "-stun-port", str(relay.port("STUN"))]
        if tls:
            told += ["-certmode", "manual", "-hostname", "127.0.0.1", "-certdir", "/nowhere"]
        assert main.main(["healthcheck", *told]) == 1
        assert main.main(["healthcheck", *told, *listed]) == 0, capsys.readouterr().err
    out = capsys.readouterr().out
    assert out.startswith("healthy: ")
