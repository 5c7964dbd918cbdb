"""What can be seen of the units where no systemd can be booted: its own tools."""

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.field.proxies import wait_until_it_accepts
from tests.field.test_proxies import derpcheck
from tests.interop.relay import STOP_TIMEOUT, TestCA, die_with_parent, free_port

ACTIVATE = "systemd-socket-activate"


def test_socket_activation(tmp_path: Path, binaries: dict[str, Path], test_ca: TestCA) -> None:
    """The tool hands over TCP sockets, and starts the relay for the first connection."""
    if not (tool := shutil.which(ACTIVATE)):
        pytest.skip(f"{ACTIVATE} is not installed")
    test_ca.issue(tmp_path, "localhost")
    port, stun = free_port(), free_port(socket.SOCK_DGRAM)
    files = ["-certmode", "manual", "-certdir", str(tmp_path), "-c", str(tmp_path / "derper.key")]
    where = ["-a", f"127.0.0.1:{port}", "-http-port", "-1", "-stun-port", str(stun)]
    relay = [sys.executable, "-m", "derp", "-hostname", "localhost", *where, *files]
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [tool, "--listen", f"127.0.0.1:{port}", *relay],
            stdout=output,
            stderr=output,
            preexec_fn=die_with_parent,  # noqa: PLW1509 — no threads here
        )
    try:
        wait_until_it_accepts(process, port, log)
        node = {"Name": "a", "RegionID": 900, "HostName": "localhost", "IPv4": "127.0.0.1"}
        placed = json.dumps({**node, "DERPPort": port})
        (result,) = derpcheck(binaries, test_ca, "talk", "-node", placed)
        assert result["ok"], (result, log.read_text())
    finally:
        process.terminate()
        assert process.wait(STOP_TIMEOUT) == 0, log.read_text()
