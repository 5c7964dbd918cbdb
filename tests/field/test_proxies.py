"""Tailscale's client reaches the relay through each proxy, as deploy/proxies/ has it.

The relay knows the client's address, whatever the client says, and /debug/ is closed.
"""

import http.client
import json
import re
import socket
import ssl
import struct
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest

from derp.wire.keys import short_key
from tests.field.conftest import DEBUG_KEY, MESH_KEY
from tests.field.proxies import AFAR, KINDS, SHIPPED, Kind, Proxy, running
from tests.interop.rawderp import EndedError, Key, Wire, client_info
from tests.interop.relay import Relay, TestCA, environment
from tests.support.derp import (
    PEER_PRESENT,
    SERVER_INFO,
    SERVER_KEY,
    UPGRADE,
    WATCH_CONNS,
    frame,
    upgrade_request,
)

CHECKS = (
    "login/tls12",
    "login/tls13",
    "login/websocket",
    "login/again-after-close",
    "packets/many-in-order",
    "packets/tls13",
    "packets/websocket",
    "packets/20-megabytes",
    "packets/20-megabytes-websocket",
    "peer-gone/disconnected",
)
FORGED = "203.0.113.66"
FORGERIES = (
    f"X-Forwarded-For: {FORGED}",
    f"X-Forwarded-For: {FORGED}, 127.0.0.1",
    f"X-Real-IP: {FORGED}",
    f"Forwarded: for={FORGED}",
    f'Forwarded: for="{FORGED}',
)


def derpcheck(binaries: Mapping[str, Path], ca: TestCA, *arguments: str) -> list[dict[str, object]]:
    """What it says, one result for each line."""
    done = subprocess.run(
        [binaries["derpcheck"], *arguments],
        env=environment(SSL_CERT_FILE=str(ca.pem)),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_clients_reach_each_other(
    proxy: Proxy, binaries: dict[str, Path], test_ca: TestCA, relays: dict[str, Relay]
) -> None:
    """By DERP over TLS and by websocket, with packets of every size each way, and 20 MB."""
    before = len(proxy.relay.log)
    where = ("-tls", proxy.url, "-plain", relays["plain alone"].url)
    books = ("-books", f"/debug/check?debugkey={DEBUG_KEY}")
    results = derpcheck(binaries, test_ca, "run", *where, *books, *CHECKS)
    assert [result["name"] for result in results] == list(CHECKS)
    failed = [result for result in results if not result["ok"]]
    assert not failed, proxy.log_file.read_text()
    for relay in relays.values():
        relay.check_alive()
    joined = re.findall(r"msg=joined remote=(\S+):(\d+) proxy=(\S+):\d+ ", proxy.relay.log[before:])
    assert len(joined) > len(CHECKS)
    # The PROXY protocol has the port, the headers have not.
    assert {(host, port != "0", by) for host, port, by in joined} == {
        (AFAR, proxy.kind.passes_tls, "127.0.0.1")
    }


def test_clients_of_a_map(proxy: Proxy, binaries: dict[str, Path], test_ca: TestCA) -> None:
    (result,) = derpcheck(binaries, test_ca, "talk", "-node", json.dumps(proxy.node))
    assert result["ok"], (result, proxy.log_file.read_text())


def trusting(ca: TestCA) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(ca.pem))


def log_in(wire: Wire, key: Key, *headers: str, **info: object) -> int:
    """Log in, and return the port of this end."""
    wire.send(upgrade_request(*UPGRADE, *headers))
    response = wire.take_response()
    assert response.status == 101, response
    kind, payload = wire.take_frame()
    assert kind == SERVER_KEY
    wire.send(client_info(key, {"version": 2, **info}, payload[-32:]))
    kind, _ = wire.take_frame()
    assert kind == SERVER_INFO
    return int(wire.sock.getsockname()[1])


def client(proxy: Proxy, ca: TestCA) -> Wire:
    """A connection through the proxy, from AFAR."""
    sock = socket.create_connection(("127.0.0.1", proxy.port), 30, (AFAR, 0))
    return Wire(trusting(ca).wrap_socket(sock, server_hostname="localhost"))


class Watcher:
    """A relay of the mesh, which is told who is connected."""

    def __init__(self, relay: Relay, ca: TestCA) -> None:
        # Not from an address of a proxy.
        sock = socket.create_connection((relay.host, relay.port), 30, ("127.0.0.9", 0))
        if relay.tls:
            sock = trusting(ca).wrap_socket(sock, server_hostname="localhost")
        self.wire = Wire(sock)
        log_in(self.wire, Key.named("watcher"), meshKey=MESH_KEY)
        self.wire.send(frame(WATCH_CONNS))

    def address_of(self, key: Key) -> tuple[str, int]:
        """Where a client is, as the relay says when it joins."""
        while True:
            kind, payload = self.wire.take_frame()
            if kind == PEER_PRESENT and payload[:32] == key.public:
                address = ip_address(payload[32:48])
                assert address.version == 6
                return str(address.ipv4_mapped or address), *struct.unpack(">H", payload[48:50])


@pytest.mark.parametrize("number", range(-1, len(FORGERIES)))
def test_the_address(
    proxy: Proxy,
    test_ca: TestCA,
    sources: tuple[str, list[str]],
    number: int,
) -> None:
    """In the log, for watchers, in the question to the admission server; and no other anywhere."""
    headers = FORGERIES[number : number + 1] if number >= 0 else ()
    key = Key.named(f"client {number} behind {proxy.kind.name}")
    asked, before = len(sources[1]), len(proxy.relay.log)
    watcher, wire = Watcher(proxy.relay, test_ca), client(proxy, test_ca)
    port = log_in(wire, key, *headers)
    expected = port if proxy.kind.passes_tls else 0
    assert watcher.address_of(key) == (AFAR, expected)
    proxy.relay.wait_for_log(
        rf"msg=joined remote={AFAR}:{expected} proxy=127\.0\.0\.1:\d+ client=\"?"
        + re.escape(short_key(key.public))
    )
    assert sources[1][asked:] == [AFAR]
    assert FORGED not in proxy.relay.log[before:]
    for each in (watcher.wire, wire):
        each.close()


@pytest.mark.parametrize(
    "first",
    [
        f"PROXY TCP4 {FORGED} 127.0.0.1 40000 443\r\n".encode(),
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"
        + ip_address(FORGED).packed
        + bytes(4)
        + struct.pack(">HH", 40000, 443),
    ],
    ids=["version 1", "version 2"],
)
def test_a_header_of_the_client_s(proxy: Proxy, first: bytes, test_ca: TestCA) -> None:
    """The proxy takes it for no TLS. Were it to pass it on, the relay would refuse it."""
    before = len(proxy.relay.log)
    with socket.create_connection(("127.0.0.1", proxy.port), 30, (AFAR, 0)) as sock:
        sock.sendall(first)
        with pytest.raises((ssl.SSLError, OSError)):
            trusting(test_ca).wrap_socket(sock, server_hostname="localhost")
    assert FORGED not in proxy.relay.log[before:]


def get(port: int, path: str, ca: TestCA | None, host: str = "localhost") -> tuple[int, str]:
    connection: http.client.HTTPConnection
    if ca is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    else:
        context = ssl.create_default_context(cafile=str(ca.pem))
        connection = http.client.HTTPSConnection("localhost", port, timeout=30, context=context)
    try:
        connection.request("GET", path, headers={"Host": host})
        response = connection.getresponse()
        # Pages that are open may go on for ever.
        return response.status, response.read(10_000_000 if response.length else 1).decode()
    finally:
        connection.close()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
@pytest.mark.parametrize("afar", [False, True], ids=["from here", "from afar"])
def test_debug_pages(proxy: Proxy, test_ca: TestCA, host: str, afar: bool) -> None:
    """Closed to all that come by the proxy, those on its own machine too."""
    port = proxy.afar if afar else proxy.port
    for path in ("/debug/", "/debug/varz", "/debug/vars", "/debug/check", "/debug/traffic"):
        status, body = get(port, path, test_ca, host)
        assert status == 403, (path, body)
        assert f"not served through a proxy ({proxy.kind.flag})" in body
    status, body = get(port, "/derp/probe", test_ca, host)
    assert status == 200, body


def test_debug_pages_with_the_key(proxy: Proxy, test_ca: TestCA) -> None:
    status, body = get(proxy.port, f"/debug/varz?debugkey={DEBUG_KEY}", test_ca)
    assert status == 200, body
    assert "derp" in body
    status, body = get(proxy.port, f"/debug/varz?debugkey={DEBUG_KEY}x", test_ca)
    assert status == 403, body


LIVE = ("/debug/", "/debug/live.js", "/debug/live.css", "/debug/live.svg", "/debug/events")


@pytest.mark.parametrize("path", LIVE)
def test_the_live_page_is_for_the_key(proxy: Proxy, test_ca: TestCA, path: str) -> None:
    for query, status in ((f"?debugkey={DEBUG_KEY}", 200), (f"?debugkey={DEBUG_KEY}x", 403)):
        with events(proxy, test_ca, f"{path}{query}") as answer:
            assert answer.status == status
    with events(proxy, test_ca, path) as answer:
        assert answer.status == 403
        told = answer.read().decode()
    assert f"not served through a proxy ({proxy.kind.flag})" in told


@contextmanager
def events(proxy: Proxy, ca: TestCA, path: str) -> Iterator[http.client.HTTPResponse]:
    """Ask through the proxy as a browser's EventSource does."""
    context = ssl.create_default_context(cafile=str(ca.pem))
    asked = http.client.HTTPSConnection("localhost", proxy.port, timeout=30, context=context)
    with closing(asked) as connection:
        connection.request("GET", path, headers={"Accept": "text/event-stream"})
        with connection.getresponse() as answer:
            yield answer


def test_events_come_as_they_happen(proxy: Proxy, test_ca: TestCA) -> None:
    """Each is there before the next thing happens: no proxy waits until it has more of them."""
    with events(proxy, test_ca, f"/debug/events?debugkey={DEBUG_KEY}") as answer:

        def rows() -> Iterator[set[str]]:
            """The keys that are connected: at first, and each time that these change."""
            keys: dict[str, str] = {}
            order: list[str] | None = None
            for line in answer:
                if line.startswith(b"data: {"):
                    message = json.loads(line.removeprefix(b"data: "))
                    keys |= {name: key for name, key, _ in message.get("rows", ())}
                    if order is None or "order" in message:
                        order = message.get("order", [])
                        yield {keys[name] for name in order}

        shown = rows()
        before = next(shown)
        for number in range(3):
            wire, key = client(proxy, test_ca), Key.named(f"{number} live by {proxy.kind.name}")
            log_in(wire, key)
            assert next(shown) - before == {f"nodekey:{key.public.hex()}"}
            wire.close()
            assert next(shown) == before


@pytest.mark.parametrize("name", ["plain alone", "tls alone"])
def test_debug_pages_without_a_proxy(relays: dict[str, Relay], test_ca: TestCA, name: str) -> None:
    relay = relays[name]
    status, body = get(relay.port, "/debug/", test_ca if relay.tls else None)
    assert status == 200, body


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_proxy_that_is_not_listed(
    kind: Kind, relays: dict[str, Relay], test_ca: TestCA, tmp_path: Path
) -> None:
    """It is told, once for all; and no client is believed, or served by a PROXY header."""
    relay = relays["tls alone" if kind.passes_tls else "plain alone"]
    with running(kind, tmp_path / "proxy", test_ca, relay) as proxy:
        if kind.passes_tls:
            with pytest.raises((OSError, EndedError)):
                log_in(client(proxy, test_ca), Key.named("unlisted"))
            relay.wait_for_log(r"msg=refused remote=127\.0\.0\.1:\d+ .*it sends a PROXY header")
        else:
            status, body = get(proxy.afar, "/debug/varz", test_ca)
            assert status == 403, body
            wire = client(proxy, test_ca)
            log_in(wire, Key.named("unlisted"))
            wire.close()
            relay.wait_for_log(r"msg=joined remote=127\.0\.0\.1:\d+ client=")
            assert AFAR not in relay.log
    cure = f"if it is yours, and itself sets that: {kind.flag} 127.0.0.1/32"
    relay.wait_for_log(re.escape(cure))
    assert relay.log.count(cure) == 1


def test_each_configuration_is_tried_or_says_that_it_is_not() -> None:
    tried = {kind.shipped for kind in KINDS}
    for path in SHIPPED.iterdir():
        assert ("NOT TRIED" in path.read_text()) == (path.name not in tried), path.name
