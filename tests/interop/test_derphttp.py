"""Tailscale's own DERP client against the relay, one check at a time.

What each check does stands in cmd/derpcheck; each ends with a fresh login and packet each way.
"""

import hashlib
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.interop.golang import HERE
from tests.interop.relay import Relay, TestCA, certificate_chain, environment

SOURCES = sorted((HERE / "cmd/derpcheck").glob("checks_*.go"))
CHECKS = [
    name
    for source in SOURCES
    for name in re.findall(r'^\t\{"([^"]+)", .*\},$', source.read_text(), re.MULTILINE)
]

GO_FAILS = {
    "packets/websocket-large": "closes a websocket on a message over 32 KiB, and sends such ones",
}
"""What the Go derper itself can't do; ours must."""


def test_the_list_is_complete(binaries: dict[str, Path]) -> None:
    listed = subprocess.run(
        [binaries["derpcheck"], "list"], capture_output=True, text=True, timeout=30, check=True
    )
    assert sorted(listed.stdout.split()) == sorted(CHECKS)


@pytest.fixture(scope="session")
def pinned_node(pinned_relay: Relay) -> str:
    """The DERP map entry that a relay with an IP address for a hostname prints.

    It names the hash of the certificate; what it leaves out is the port.
    """
    printed = pinned_relay.wait_for_log(r"\{[^{}]*sha256-raw:[^{}]*\}")
    node = json.loads(printed[0])
    assert node["HostName"] == "127.0.0.1"
    leaf = certificate_chain(pinned_relay)[0]
    assert node["CertName"] == f"sha256-raw:{hashlib.sha256(leaf).hexdigest()}"
    return json.dumps({**node, "DERPPort": pinned_relay.port})


@pytest.fixture(scope="session")
def derpcheck(
    binaries: dict[str, Path],
    test_ca: TestCA,
    tls_relay: Relay,
    plain_relay: Relay,
    pinned_node: str,
) -> Callable[[str], dict[str, str]]:
    """Runs one check against the relays and gives what it printed."""
    command = [binaries["derpcheck"], "run", "-pinned", pinned_node]
    command += ["-tls", tls_relay.url, "-plain", plain_relay.url]
    command += ["-http", f"http://127.0.0.1:{tls_relay.http_port}"]
    command += ["-stun", f"127.0.0.1:{tls_relay.stun_port}"]

    def run(check: str) -> dict[str, str]:
        done = subprocess.run(
            [*command, check],
            env=environment(SSL_CERT_FILE=str(test_ca.pem)),
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        tls_relay.check_alive()
        plain_relay.check_alive()
        assert done.stdout, done.stderr
        result: dict[str, str] = json.loads(done.stdout)
        assert result["name"] == check
        return result

    return run


@pytest.mark.parametrize("check", CHECKS)
def test_derphttp(check: str, derpcheck: Callable[[str], dict[str, str]], is_go: bool) -> None:
    result = derpcheck(check)
    if is_go and check in GO_FAILS:
        assert not result["ok"], f"the Go derper is better than thought: it {GO_FAILS[check]}?"
        pytest.skip(f"documented difference: the Go derper {GO_FAILS[check]}")
    assert result["ok"], result["detail"]
