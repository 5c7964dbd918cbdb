"""Tailscale's own DERP client against the relay on a system that is not Linux, simulated."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.relay import Relay, TestCA, environment, running

COMMAND = [sys.executable, "-m", "tests.support.elsewhere"]
CHECKS = ("login/tls13", "login/websocket", "packets/20-megabytes", "packets/many-senders")
CHECKS += ("ping/many", "login/hundred-at-once", "stun/answers")


@pytest.fixture(scope="module")
def relay(
    test_ca: TestCA, tmp_path_factory: pytest.TempPathFactory, is_go: bool
) -> Iterator[Relay]:
    if is_go:
        pytest.skip("the Go derper is not simulated elsewhere")
    folder = tmp_path_factory.mktemp("elsewhere")
    test_ca.issue(folder, "localhost")
    with running(Relay("elsewhere", COMMAND, folder, stun=True)) as relay:
        yield relay


@pytest.mark.parametrize("check", CHECKS)
def test_derphttp(check: str, relay: Relay, binaries: dict[str, Path], test_ca: TestCA) -> None:
    done = subprocess.run(
        [
            *(binaries["derpcheck"], "run", "-tls", relay.url, "-plain", relay.url),
            *("-stun", f"127.0.0.1:{relay.stun_port}", check),
        ],
        env=environment(SSL_CERT_FILE=str(test_ca.pem)),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    relay.check_alive()
    assert done.stdout, done.stderr
    result = json.loads(done.stdout)
    assert result["ok"], result["detail"]
