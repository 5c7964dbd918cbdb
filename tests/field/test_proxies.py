"""Tailscale's client reaches the relay through each proxy, and /debug/ stays closed behind it."""

import http.client
import json
import ssl
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.field.conftest import DEBUG_KEY
from tests.field.proxies import KINDS, Kind, Proxy, running
from tests.interop.relay import Relay, TestCA, environment

CHECKS = (
    "login/tls12",
    "login/tls13",
    "login/websocket",
    "login/again-after-close",
    "packets/many-in-order",
    "packets/tls13",
    "packets/websocket",
    "peer-gone/disconnected",
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
    """By DERP over TLS and by websocket, with packets of every size in both directions."""
    where = ("-tls", proxy.url, "-plain", relays["plain"].url)
    books = ("-books", f"/debug/check?debugkey={DEBUG_KEY}")
    results = derpcheck(binaries, test_ca, "run", *where, *books, *CHECKS)
    assert [result["name"] for result in results] == list(CHECKS)
    failed = [result for result in results if not result["ok"]]
    assert not failed, proxy.log_file.read_text()
    for relay in relays.values():
        relay.check_alive()


def test_clients_of_a_map(proxy: Proxy, binaries: dict[str, Path], test_ca: TestCA) -> None:
    (result,) = derpcheck(binaries, test_ca, "talk", "-node", json.dumps(proxy.node))
    assert result["ok"], (result, proxy.log_file.read_text())


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
def test_debug_pages(proxy: Proxy, test_ca: TestCA, host: str) -> None:
    """Closed to strangers, unless nothing shows that there is a proxy: so says the README."""
    for path in ("/debug/", "/debug/varz", "/debug/vars", "/debug/check", "/debug/traffic"):
        status, body = get(proxy.port, path, test_ca, host)
        if proxy.kind.passes_tls:
            assert status == 200, (path, body)
        else:
            assert status == 403, (path, body)
            assert "through a proxy" in body
    status, body = get(proxy.port, "/derp/probe", test_ca, host)
    assert status == 200, body


@pytest.mark.parametrize("kind", [k for k in KINDS if k.passes_tls], ids=lambda kind: kind.name)
def test_debug_pages_behind_a_proxy_that_is_named(
    kind: Kind, relays: dict[str, Relay], test_ca: TestCA, tmp_path: Path
) -> None:
    """Then they are closed, though TLS is passed on as it is."""
    pair = {"plain": relays["plain"], "tls": relays["closed"]}
    with running(kind, tmp_path / "proxy", test_ca, **pair) as proxy:
        status, body = get(proxy.port, "/debug/varz", test_ca)
        assert status == 403, body
        assert "a proxy (-trusted-proxies)" in body
        status, body = get(proxy.port, f"/debug/varz?debugkey={DEBUG_KEY}", test_ca)
        assert status == 200, body


def test_debug_pages_with_the_key(proxy: Proxy, test_ca: TestCA) -> None:
    status, body = get(proxy.port, f"/debug/varz?debugkey={DEBUG_KEY}", test_ca)
    assert status == 200, body
    assert "derp" in body
    if not proxy.kind.passes_tls:
        status, body = get(proxy.port, f"/debug/varz?debugkey={DEBUG_KEY}x", test_ca)
        assert status == 403, body


@pytest.mark.parametrize("name", ["plain", "tls"])
def test_debug_pages_without_a_proxy(relays: dict[str, Relay], test_ca: TestCA, name: str) -> None:
    relay = relays[name]
    status, body = get(relay.port, "/debug/", test_ca if relay.tls else None)
    assert status == 200, body
