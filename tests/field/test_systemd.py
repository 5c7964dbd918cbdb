"""deploy/derper.service and derper.socket under a real systemd."""

import contextlib
import json
import re
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stun.message import build_binding_request, parse_binding_response
from tests.field.machine import Machine, NoMachineError, booted
from tests.interop.relay import TestCA, environment

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
        [*machine.network.prefix, binaries["derpcheck"], "talk", "-node", json.dumps(node)],
        env=environment(SSL_CERT_FILE=str(ca.pem)),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, (done.stdout, done.stderr, machine.journal())


def stun_answers(machine: Machine, host: str) -> bool:
    with machine.network.udp("127.0.0.1") as asking:
        asking.settimeout(PATIENCE)
        asking.connect((host, 3478))
        try:
            asking.send(build_binding_request(bytes(12)))
            _, told = parse_binding_response(asking.recv(2048))
        except ConnectionRefusedError:
            return False
        return (str(told.address), told.port) == asking.getsockname()


def status(machine: Machine) -> dict[str, str]:
    """Of the relay's process, as in proc(5)."""
    pid = machine.show("derper", "MainPID")
    lines = machine.run("cat", f"/proc/{pid}/status").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_it_starts_and_stops(machine: Machine, binaries: dict[str, Path], test_ca: TestCA) -> None:
    machine.systemctl("start", "derper")
    serves(machine)
    talk(machine, binaries, test_ca)
    assert stun_answers(machine, "127.0.0.1")
    machine.systemctl("stop", "derper")
    assert machine.show("derper", "Result") == "success", machine.journal()
    assert machine.show("derper", "ExecMainStatus") == "0", machine.journal()


def test_its_rights(machine: Machine) -> None:
    """Those that the unit leaves it do for all that it serves, its own metrics among it."""
    machine.systemctl("start", "derper")
    serves(machine)
    proc = status(machine)
    assert "0" not in proc["Uid"].split()
    assert int(proc["CapEff"], 16) == int(proc["CapBnd"], 16) == 1 << 10, "CAP_NET_BIND_SERVICE"
    assert (proc["NoNewPrivs"], proc["Seccomp"]) == ("1", "2")
    rated = machine.run("systemd-analyze", "--no-pager", "security", "derper.service")
    found = re.search(r"exposure level for derper.service: ([\d.]+)", rated)
    assert found
    assert float(found[1]) <= HARDENED, rated
    with machine.network.connect(("127.0.0.1", 80)) as plain:
        plain.sendall(b"GET /debug/varz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        page = b"".join(iter(lambda: plain.recv(65536), b""))
    assert b" 200 " in page.splitlines()[0], page[:500]
    assert b"process_start_unix_time" in page, page
    assert "Permission denied" not in machine.journal()
    assert "Operation not permitted" not in machine.journal()


def test_root_asks_and_steers_it(machine: Machine) -> None:
    """By the commands alone; the policy, in the directory that the unit leaves it, is kept."""
    key = f"nodekey:{'ab' * 32}"
    policy = "/var/lib/derper/policy.toml"
    (machine.root / policy[1:]).write_text("[defaults] # ours\n")
    variables = ("DERP_DOMAIN=localhost", "DERP_CERT_MODE=manual", f"DERP_POLICY_FILE={policy}")
    configure(machine, *variables)
    machine.systemctl("start", "derper")
    serves(machine)
    assert machine.run("/opt/derper/bin/derper", "clients") == "no client is connected\n"
    said = machine.run("/opt/derper/bin/derper", "deny", key)
    assert f"is denied (0 connections ended), which stands in {policy} now" in said
    text = (machine.root / policy[1:]).read_text()
    assert text == f'[defaults] # ours\n\n[clients."{key}"]\ndeny = true\n'
    assert (machine.root / policy[1:]).stat().st_uid != 0
    machine.systemctl("stop", "derper")
    assert not (machine.root / "var/lib/derper/derper.sock").exists()
    machine.run("rm", policy)


def test_its_share_of_a_busy_cpu(machine: Machine) -> None:
    assert int(machine.show("derper", "CPUWeight")) == 500


def test_reload(machine: Machine, test_ca: TestCA) -> None:
    """A new certificate is served; the process stays."""
    machine.systemctl("start", "derper")
    serves(machine)
    before, pid = leaf(machine, test_ca), machine.show("derper", "MainPID")
    test_ca.issue(machine.root / "var/lib/derper/certs", "localhost")
    machine.run("chown", "-R", "derper:derper", "/var/lib/derper")
    machine.systemctl("reload", "derper")
    until(lambda: leaf(machine, test_ca) != before, machine.journal)
    assert machine.show("derper", "MainPID") == pid
    assert machine.show("derper", "NRestarts") == "0"


def leaf(machine: Machine, ca: TestCA) -> bytes | None:
    context = ssl.create_default_context(cafile=str(ca.pem))
    with (
        machine.network.connect(("127.0.0.1", 443)) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as tls,
    ):
        return tls.getpeercert(binary_form=True)


def test_a_wrong_value_is_not_tried_again(machine: Machine) -> None:
    configure(machine, "DERP_DOMAIN=localhost", "DERP_CERT_MODE=sometimes")
    machine.attempt("systemctl", "start", "derper")
    until(lambda: machine.show("derper", "ActiveState") == "failed", machine.journal)
    assert machine.show("derper", "ExecMainStatus") == "2"
    assert machine.show("derper", "NRestarts") == "0"
    assert "DERP_CERT_MODE=sometimes: want manual, " in machine.journal()


def test_a_crash_is(machine: Machine) -> None:
    machine.systemctl("start", "derper")
    serves(machine)
    machine.run("kill", "-KILL", machine.show("derper", "MainPID"))
    until(lambda: machine.show("derper", "NRestarts") == "1", machine.journal)


def test_a_restart_with_sockets_refuses_nobody(
    machine: Machine, binaries: dict[str, Path], test_ca: TestCA
) -> None:
    """Who connects meanwhile waits, and Go's clients are served before and after."""
    machine.systemctl("start", "derper.socket")
    machine.systemctl("start", "derper")
    serves(machine)
    talk(machine, binaries, test_ca)
    for how in (("restart",), ("kill", "--signal=KILL")):
        before = machine.show("derper", "MainPID")
        with connecting(machine) as trouble:
            machine.systemctl(*how, "derper")
            until_another_serves(machine, before)
        assert not trouble
        talk(machine, binaries, test_ca)
        assert stun_answers(machine, "127.0.0.1")


def until_another_serves(machine: Machine, before: str) -> None:
    until(lambda: machine.show("derper", "MainPID") not in {"0", before}, machine.journal)
    serves(machine)


@contextlib.contextmanager
def connecting(machine: Machine) -> Iterator[list[str]]:
    """For as long as the block runs, connections are made; those that failed are in the list."""
    trouble: list[str] = []
    over = threading.Event()

    def connect() -> None:
        while not over.is_set():
            for port in (443, 80):
                try:
                    machine.network.connect(("127.0.0.1", port)).close()
                except OSError as error:
                    trouble.append(f"{port}: {error}")
            over.wait(0.02)

    thread = threading.Thread(target=connect)
    thread.start()
    try:
        yield trouble
    finally:
        over.set()
        thread.join()


def test_without_sockets_a_restart_refuses(machine: Machine) -> None:
    """So that the test above sees what it looks for."""
    machine.systemctl("start", "derper")
    serves(machine)
    with connecting(machine) as trouble:
        machine.systemctl("restart", "derper")
        serves(machine)
    assert trouble


def test_stun_on_an_address_of_its_own(
    machine: Machine, binaries: dict[str, Path], test_ca: TestCA
) -> None:
    """As the unit says that it may have."""
    folder = "/etc/systemd/system/derper.socket.d"
    machine.run("mkdir", "-p", folder)
    sockets = ("ListenStream=", "ListenDatagram=", "ListenStream=127.0.0.1:443")
    more = ("ListenStream=127.0.0.1:80", "ListenDatagram=127.0.0.5:3478")
    text = "\n".join(["[Socket]", *sockets, *more, ""])
    (machine.root / folder[1:] / "addresses.conf").write_text(text)
    machine.systemctl("daemon-reload")
    configure(
        machine,
        *("DERP_DOMAIN=localhost", "DERP_CERT_MODE=manual"),
        *("DERP_ADDR=127.0.0.1:443", "DERP_STUN_ADDR=127.0.0.5"),
    )
    machine.systemctl("start", "derper.socket")
    machine.systemctl("start", "derper")
    serves(machine)
    talk(machine, binaries, test_ca)
    assert stun_answers(machine, "127.0.0.5")
    assert not stun_answers(machine, "127.0.0.1")


def test_systemd_has_nothing_against_the_units(machine: Machine) -> None:
    units = [f"/etc/systemd/system/derper.{kind}" for kind in ("service", "socket")]
    done = machine.attempt("systemd-analyze", "--no-pager", "verify", *units)
    said = [line for line in (done.stdout + done.stderr).splitlines() if "derper" in line]
    assert (done.returncode, said) == (0, [])
