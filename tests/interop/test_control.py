"""Tailscale's own clients listed, disconnected, denied and limited by the commands."""

import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.interop.netns import skip_unless_possible
from tests.interop.rawderp import SERVER
from tests.interop.relay import (
    REPO,
    Relay,
    TestCA,
    die_with_parent,
    environment,
    running,
    write_key_file,
)
from tests.interop.tailnet import eventually, tailnet
from tests.interop.test_stop import Limited

MBIT = 125_000
TIMEOUT = 60


@pytest.fixture(autouse=True)
def _ours(is_go: bool) -> None:
    if is_go:
        pytest.skip("the Go derper has no such commands")


@attrs.frozen
class Steered:
    """A relay, and the commands."""

    relay: Relay
    workers: int = 1

    def run(self, *words: str, said: str = "", code: int = 0) -> str:
        """Run a command beside the relay; it finds the socket by the key file."""
        command = [*self.relay.command, *words, "-c", str(self.relay.key_file)]
        done = subprocess.run(
            *(command,),
            cwd=REPO,
            input=said,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        assert done.returncode == code, (done.stdout, done.stderr, self.relay.log)
        return done.stdout or done.stderr

    def clients(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.run("clients", "--json").splitlines()]


class Fleet:
    """Go clients that stay, and come back as tailscaled does."""

    def __init__(self, derpcheck: Path, relay: Relay, ca: TestCA, count: int) -> None:
        node = {"Name": "900a", "RegionID": 900, "HostName": "localhost", "IPv4": "127.0.0.1"}
        node |= {"DERPPort": relay.port, "STUNPort": -1}
        self._process = subprocess.Popen(
            [derpcheck, "fleet", "-n", str(count), "-node", json.dumps(node)],
            env=environment(SSL_CERT_FILE=str(ca.pem)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509 -- no threads here
        )
        self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout
        report = json.loads(self._process.stdout.readline())
        return {name: [] if value is None else value for name, value in report.items()}

    def report(self) -> dict[str, Any]:
        """What has happened since the report before."""
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._read()

    def until(self, what: str, count: int) -> dict[str, Any]:
        """Wait for so many events of a kind; return all that have happened meanwhile."""
        deadline = time.monotonic() + TIMEOUT
        found = self.report()
        while len(found[what]) < count:
            assert time.monotonic() < deadline, found
            time.sleep(0.05)
            for name, more in self.report().items():
                found[name] = found[name] + more if isinstance(more, list) else more
        return found

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(params=["1", "2"], ids=["one process", "workers"])
def steered(
    request: pytest.FixtureRequest, under_test: list[str], test_ca: TestCA, tmp_path: Path
) -> Iterator[Steered]:
    test_ca.issue(tmp_path, "localhost")
    write_key_file(tmp_path / "derper.key", SERVER.private)
    policy = tmp_path / "policy.toml"
    policy.write_text("[defaults]  # for all\n")
    flags = ["-policy", str(policy), "-workers", request.param]
    with running(Relay("relay", under_test, tmp_path, flags=flags)) as relay:
        yield Steered(relay, int(request.param))
    assert not (tmp_path / "derper.sock").exists()


def test_a_go_client_that_is_kicked_comes_back_and_one_that_is_denied_does_not(
    steered: Steered, binaries: dict[str, Path], test_ca: TestCA, tmp_path: Path
) -> None:
    with closing(Fleet(binaries["derpcheck"], steered.relay, test_ca, 3)) as fleet:
        eventually("all are listed", TIMEOUT, lambda: len(steered.clients()) == 3)
        client, *others = steered.clients()
        table = steered.run("clients")
        assert max(map(len, table.splitlines())) <= 100
        assert client["key"][8:20] in table
        said = steered.run("kick", client["key"][8:20])
        assert said.startswith(f"{client['key']} is disconnected (1 connection)")
        found = fleet.until("logins", 1)
        assert (len(found["lost"]), found["connected"]) == (1, 3)
        (back,) = [each for each in steered.clients() if each["key"] == client["key"]]
        assert back["connection"] != client["connection"]

        said = steered.run("deny", client["key"])
        match = re.search(r" is denied \((\d) connections? ended\), which stands in ", said)
        assert match, said
        found = fleet.until("failed", 3)
        assert (len(found["lost"]) - len(found["logins"]), found["connected"]) == (1, 2)
        # A worker that is busy hears of it last, and may admit the client until then.
        assert len(found["lost"]) == int(match[1]) <= steered.workers
        assert {each["key"] for each in steered.clients()} == {each["key"] for each in others}
        text = (tmp_path / "policy.toml").read_text()
        assert text == f'[defaults]  # for all\n\n[clients."{client["key"]}"]\ndeny = true\n'

        steered.run("allow", client["key"])
        assert fleet.until("logins", 1)["connected"] == 3
        assert "allow = true\n" in (tmp_path / "policy.toml").read_text()
        log = steered.relay.log
        for done in ("disconnected", "denied", "allowed"):
            assert log.count(f'msg="{done} by an operator"') == 1, log


def test_a_go_client_sends_as_fast_as_it_is_told_to(
    steered: Steered, binaries: dict[str, Path], test_ca: TestCA
) -> None:
    with closing(Limited(binaries["derpcheck"], steered.relay, test_ca)) as client:
        client.report()
        sender = max(steered.clients(), key=lambda each: each["packets_received"])["key"]
        said = steered.run("limit", sender, "8", "Mbit/s")
        assert said.startswith(f"{sender} may send 8 Mbit/s, which stands in ")
        assert client.until_told(8 * MBIT) < 1.2 * 8 * MBIT
        assert {each["limit"] for each in steered.clients()} == {8 * MBIT, None}
        assert "8 Mbit/s" in steered.run("clients")
        steered.run("limit", sender, "none")
        assert client.until_told(0) > 1.2 * 8 * MBIT


def test_a_real_tailscaled(
    under_test: list[str], binaries: dict[str, Path], test_ca: TestCA, tmp_path: Path
) -> None:
    """Without -policy and without a list: until the relay stops."""
    skip_unless_possible("no real tailscaled here")
    with tailnet(under_test, binaries, test_ca, tmp_path, blob_size=1000) as net:
        steered = Steered(net.relay)
        key = f"nodekey:{net.bob.key().public.hex()}"
        eventually("a ping comes back", TIMEOUT, lambda: net.alice.ping(net.bob) is not None)
        (bob,) = [each for each in steered.clients() if each["key"] == key]
        assert bob["home"]
        assert bob["remote"].startswith("10.88.2.2:") or "fd88:2::2" in bob["remote"]
        assert bob["sent"] > 0 < bob["received"]
        steered.run("kick", key)
        eventually("it is back", TIMEOUT, lambda: net.alice.ping(net.bob, 2) is not None)
        assert "until the relay stops: there is no -policy; to keep it" in steered.run("deny", key)
        assert net.alice.ping(net.bob, patience=8) is None
        assert key not in {each["key"] for each in steered.clients()}
        steered.run("allow", key)
        eventually("it is let in again", TIMEOUT, lambda: net.alice.ping(net.bob, 2) is not None)


def test_a_list_filled_from_a_real_tailnet(
    under_test: list[str], binaries: dict[str, Path], test_ca: TestCA, tmp_path: Path
) -> None:
    """The relay's list has a stranger only, until tailscaled's status comes through a pipe."""
    skip_unless_possible("no real tailscaled here")
    listed = tmp_path / "nodekeys"
    stranger = f"nodekey:{'11' * 32}  nobody # for now\n"
    listed.write_text(stranger)
    flags = ["-verify-client-file", str(listed)]
    with tailnet(under_test, binaries, test_ca, tmp_path, blob_size=1000, flags=flags) as net:
        steered = Steered(net.relay)
        keys = {f"nodekey:{node.key().public.hex()}": node.name for node in (net.alice, net.bob)}

        def refused() -> bool:
            rows = [
                json.loads(line) for line in steered.run("keys", "-refused", "-json").splitlines()
            ]
            assert all(row["source"] == "file" and row["address"] for row in rows)
            return {row["key"] for row in rows} == keys.keys()

        eventually("both are refused, by their address", TIMEOUT, refused)
        assert net.alice.ping(net.bob, 2) is None
        status = net.alice.tailscale("status", "--json").stdout
        said = steered.run("keys", "-from-status", said=status)
        added = {line for line in said.splitlines() if line.startswith("added ")}
        assert added == {f"added {key} {name}" for key, name in keys.items()}
        assert said.endswith("2 keys are added\n")
        eventually("a ping comes back", 90, lambda: net.alice.ping(net.bob, 2) is not None)
        assert listed.read_text().startswith(stranger)

        assert steered.run("keys", "-from-status", said=status) == (
            "0 keys are added, 2 were in the list already\n"
        )
        # Whoever is out of the list goes.
        steered.run("deny", "bob")
        assert net.alice.ping(net.bob, patience=8) is None
        # A tailscaled that is down tells nothing.
        net.alice.tailscale("down")
        status = net.alice.tailscale("status", "--json").stdout
        said = steered.run("keys", "-from-status", said=status, code=1)
        assert "tailscaled is in the state 'Stopped'; run tailscale up there first" in said
