"""A relay at unix sockets: behind real proxies of the same host, and as systemd hands them over."""

import contextlib
import grp
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from string import Template

import pytest

from tests.field.conftest import DEBUG_KEY
from tests.field.proxies import CONF, find, wait_until_it_accepts
from tests.field.test_proxies import derpcheck, get
from tests.interop.relay import STOP_TIMEOUT, Relay, TestCA, die_with_parent, free_port, running

OURS = [sys.executable, "-m", "derp"]
WORKERS = pytest.mark.parametrize("workers", ["1", "2"])


class AtPath(Relay):
    """A relay at one path and nowhere else."""

    path: Path

    def arguments(self) -> list[str]:
        found = super().arguments()
        found[1] = f"unix:{self.path},mode=0660,group=www-data"
        return found

    def accepts(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
            probe.connect(str(self.path))
            return True
        return False


@contextlib.contextmanager
def proxy(
    program: str, conf: str, relay: AtPath, folder: Path, ca: TestCA, header: str = ""
) -> Iterator[int]:
    """Run a proxy before the relay; yield its port. Skips the test where it is not installed."""
    found = find(program)
    if not found:
        pytest.skip(f"{program} is not installed")
    folder.mkdir()
    ca.issue(folder, "localhost")
    port = free_port()
    written = folder / conf
    template = Template((CONF / conf).read_text())
    written.write_text(
        template.substitute(folder=folder, port=port, path=relay.path, header=header)
    )
    command = ["-db", "-f"] if program == "haproxy" else ["-e", "stderr", "-c"]
    log_file = folder / "log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [found, *command, str(written)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=die_with_parent,  # noqa: PLW1509 — no threads here yet
        )
    try:
        wait_until_it_accepts(process, port, log_file)
        yield port
    finally:
        process.terminate()
        process.wait(STOP_TIMEOUT)


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder through which another user may get to the socket."""
    if os.geteuid() != 0:
        pytest.skip("only root may give the socket to another group")
    try:
        grp.getgrnam("www-data")
    except KeyError:
        pytest.skip("there is no group www-data")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        folder.chmod(0o755)
        yield folder


@WORKERS
@pytest.mark.parametrize("listed", [False, True], ids=["unlisted", "listed"])
@pytest.mark.parametrize("conf", ["nginx-unix.conf", "haproxy-unix.cfg"])
def test_clients_come_through_a_proxy_of_another_user(
    conf: str,
    listed: bool,
    workers: str,
    place: Path,
    binaries: dict[str, Path],
    test_ca: TestCA,
) -> None:
    program = conf.partition("-")[0]
    tls = program == "haproxy"  # passed on to the relay
    test_ca.issue(place, "localhost")
    key = place / "debug.key"
    key.write_text(DEBUG_KEY)
    key.chmod(0o600)
    flags = ["-workers", workers, "-debug-key-file", str(key)]
    if listed:
        flags += ["-proxy-protocol-from" if tls else "-trusted-proxies", "unix"]
    header = "send-proxy-v2" if listed and tls else ""
    relay = AtPath("relay", OURS, place, tls=tls, flags=flags)
    relay.path = place / "derper.sock"
    with running(relay), proxy(program, conf, relay, place / "proxy", test_ca, header) as port:
        url = f"https://localhost:{port}/derp"
        checks = ("login/tls13", "login/websocket", "packets/many-in-order", "packets/tls13")
        asked = ("-tls", url, "-plain", url, "-books", f"/debug/check?debugkey={DEBUG_KEY}")
        results = derpcheck(binaries, test_ca, "run", *asked, *checks)
        assert [result["name"] for result in results if result["ok"]] == list(checks), results
        who = r"127\.0\.0\.1:\d+ proxy=unix" if listed else "unix"
        assert relay.wait_for_log(f"joined remote={who} client=")
        status, _ = get(port, "/debug/", test_ca, "127.0.0.1")
        assert status == 403
    assert not relay.path.exists()


def test_systemd_hands_over_a_path_and_the_monitors_port(
    tmp_path: Path, binaries: dict[str, Path], test_ca: TestCA
) -> None:
    if not (tool := shutil.which("systemd-socket-activate")):
        pytest.skip("systemd-socket-activate is not installed")
    test_ca.issue(tmp_path, "localhost")
    path, port, monitors = tmp_path / "s", free_port(), free_port()
    files = ["-certmode", "manual", "-certdir", str(tmp_path), "-c", str(tmp_path / "derper.key")]
    where = ["-a", f"unix:{path},127.0.0.1:{port}", "-http-port", "-1", "-stun=false"]
    where += ["-metrics-addr", f"127.0.0.1:{monitors}"]
    handed = [f"--listen={each}" for each in (path, f"127.0.0.1:{port}", f"127.0.0.1:{monitors}")]
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [tool, *handed, *OURS, "-hostname", "localhost", *where, *files],
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
        healthy = [*OURS, "healthcheck", *where, *files, "-hostname", "localhost"]
        asked = subprocess.run(healthy, capture_output=True, text=True, timeout=30, check=False)
        assert asked.stdout.startswith(f"healthy: DERP at unix:{path} over TLS"), asked.stderr
        assert get(monitors, "/healthz", None)[0] == 200
    finally:
        process.terminate()
        assert process.wait(STOP_TIMEOUT) == 0, log.read_text()
    # It is systemd's, and so it stays.
    assert path.is_socket()
