"""deploy/derper.service and derper.socket under a real systemd."""

import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from machine import Machine, NoMachineError, booted
from netns import Namespace
from relay import TestCA, environment

from stun.message import build_binding_request, parse_binding_response

PATIENCE = 60
HARDENED = 1.6
"""`systemd-analyze security`, as the README has it."""


@pytest.fixture(scope="module")
def booted_machine(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Machine]:
    try:
        with booted(tmp_path_factory.mktemp("systemd")) as made:
            yield made
    except NoMachineError as error:
        pytest.skip(f"no systemd can be run here: {error}")


@pytest.fixture
def machine(booted_machine: Machine, test_ca: TestCA) -> Iterator[Machine]:
    """With what the operator has installed, and nothing started."""
    state = booted_machine.root / "var/lib/derper/certs"
    booted_machine.run("mkdir", "-p", "/var/lib/derper/certs")
    test_ca.issue(state, "localhost")
    configure(booted_machine, "DERP_DOMAIN=localhost", "DERP_CERT_MODE=manual")
    yield booted_machine
    booted_machine.attempt("systemctl", "stop", "derper.socket", "derper.service")
    booted_machine.attempt("systemctl", "reset-failed")
    booted_machine.run("rm", "-rf", "/etc/systemd/system/derper.socket.d")
    booted_machine.systemctl("daemon-reload")


def configure(machine: Machine, *lines: str) -> None:
    (machine.root / "etc/default/derper").write_text("\n".join([*lines, ""]))


def until(what: Callable[[], object], why: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < deadline, why()
        time.sleep(0.05)


def serves(machine: Machine) -> None:
    """Wait until all is served since the last start."""
    pid = machine.show("derper", "MainPID")
    asked = ("journalctl", "--no-pager", "--output=cat", f"_PID={pid}")
    until(lambda: "STUN server listening" in machine.run(*asked), machine.journal)


def talk(machine: Machine, binaries: dict[str, Path], ca: TestCA) -> None:
    """Two of Go's clients send each other packets."""
    node = {"Name": "900a", "RegionID": 900, "HostName": "localhost", "IPv4": "127.0.0.1"}
    done = subprocess.run(
        [*machine.network, binaries["derpcheck"], "talk", "-node", json.dumps(node)],
        env=environment(SSL_CERT_FILE=str(ca.pem)),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, (done.stdout, done.stderr, machine.journal())


def stun_answers(machine: Machine, host: str) -> bool:
    asking = Namespace._made_here(machine, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    with asking:
        asking.settimeout(PATIENCE)
        asking.connect((host, 3478))
        asking.send(build_binding_request(bytes(12)))
        try:
            _, told = parse_binding_response(asking.recv(2048))
        except ConnectionRefusedError:
            return False
        return (str(told.address), told.port) == asking.getsockname()


def status(machine: Machine) -> dict[str, str]:
    """Of the relay's process, as in proc(5)."""
    pid = machine.show("derper", "MainPID")
    lines = machine.run("cat", f"/proc/{pid}/status").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
