"""Two of ours and the Go derper as one mesh, which a region with three relays is."""

import json
import os
import random
import re
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.interop.mesh import (
    MESH_KEY,
    Client,
    Clients,
    all_running,
    mesh,
    pass_packet,
    reach,
    reach_each_other,
    varz,
    wait_until_meshed,
)
from tests.interop.rawderp import Key
from tests.interop.relay import Relay, TestCA, environment
from tests.support.derp import PEER_GONE
from tests.support.waiting import until

SIZES = (0, 1, 100, 1400, 20_000, 65_536)


@pytest.fixture(scope="module")
def three(
    under_test: list[str],
    binaries: dict[str, Path],
    test_ca: TestCA,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[list[Relay]]:
    """Two of ours and the Go derper."""
    commands = {"one": under_test, "two": under_test, "theirs": [str(binaries["derper"])]}
    relays = mesh(tmp_path_factory.mktemp("three"), test_ca, commands, stun=True)
    with all_running(relays):
        wait_until_meshed(relays)
        yield relays


def test_tailscales_clients_at_all_reach_each_other(
    binaries: dict[str, Path], test_ca: TestCA, three: list[Relay]
) -> None:
    one, two, theirs = three
    for relays in ((one, two, theirs), (theirs, one, two)):
        reach_each_other(binaries["derpcheck"], test_ca, relays)


@pytest.mark.parametrize("with_key", [False, True], ids=["as a client", "as a mesh peer"])
def test_derpprobe_finds_the_mesh_good(
    binaries: dict[str, Path],
    test_ca: TestCA,
    three: list[Relay],
    tmp_path: Path,
    with_key: bool,
) -> None:
    """Tailscale's prober sends a packet from each node of the region to each other one."""
    nodes = {
        relay.name: {
            "Name": relay.name,
            "RegionID": 900,
            "HostName": relay.hostname,
            "IPv4": relay.host,
            "DERPPort": relay.port,
            "STUNPort": relay.stun_port,
        }
        for relay in three
    }
    region = {"RegionID": 900, "RegionCode": "test", "RegionName": "test"}
    derp_map = tmp_path / "derpmap.json"
    derp_map.write_text(json.dumps({"Regions": {"900": {**region, "Nodes": list(nodes.values())}}}))
    key_file = tmp_path / "mesh.key"
    key_file.write_text(MESH_KEY.hex())
    command = [binaries["derpprobe"], "-once", f"-derp-map=file://{derp_map}", "-spread=false"]
    probed = subprocess.run(
        [*command, f"-mesh-psk-file={key_file}"] if with_key else command,
        env=environment(SSL_CERT_FILE=str(test_ca.pem)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    good = set(re.findall(r" good: ([^:]+): ", probed.stdout))
    assert not re.findall(r" bad: (.*)", probed.stdout), probed.stdout
    pairs = {f"derp/test/{a}/{b}/mesh" for a in nodes for b in nodes}
    assert pairs <= good, probed.stdout
    assert probed.returncode == 0, probed.stdout


MULTI = ("derp_multiforwarder_created", "derp_multiforwarder_deleted")


def test_a_client_at_two_relays_is_reached_and_counted_alike(
    three: list[Relay], clients: Clients
) -> None:
    """While a client moves, two relays have it; the third keeps to the first until that goes."""
    counted = []
    for third in three:
        first, second = (relay for relay in three if relay is not third)
        other = clients.connect(third, "other")
        before = varz(third)
        old = clients.connect(first, "mover")
        reach(other, old)
        new = clients.connect(second, "mover")
        until(
            "it is known twice",
            lambda third=third, before=before: varz(third)[MULTI[0]] > before[MULTI[0]],
        )
        pass_packet(other, old, b"still there")
        pass_packet(new, other, b"from the new place")
        old.close()
        until(
            "it is known once",
            lambda third=third, before=before: varz(third)[MULTI[1]] > before[MULTI[1]],
        )
        reach(other, new)
        new.close()
        # Who sent it packets is told only now, and once.
        assert other.take() == (PEER_GONE, Key.named("mover").public + b"\x00")
        assert other.settle() == []
        after = varz(third)
        counted.append([after[name] - before[name] for name in MULTI])
        other.close()
    assert counted == [[1, 1]] * 3


class Region:
    """Clients that are connected each to one of the relays, and move."""

    def __init__(self, relays: list[Relay], clients: Clients, count: int) -> None:
        self.relays = relays
        self.choose = random.Random(count)
        self._clients = clients
        self.at = {
            f"client {number}": clients.connect(relays[number % len(relays)], f"client {number}")
            for number in range(count)
        }

    def move(self, name: str, to: Relay, *, overlap: bool = True) -> None:
        """Connect a client elsewhere, with or without leaving before."""
        if not overlap:
            self.at[name].close()
        with closing(self.at[name]):
            self.at[name] = self._clients.connect(to, name)

    def move_somebody(self, among: list[Relay]) -> None:
        name = self.choose.choice(list(self.at))
        here = self.at[name].relay
        to = self.choose.choice([relay for relay in among if relay is not here])
        self.move(name, to, overlap=self.choose.random() < 0.5)

    def check_pair(self, sender: Client, receiver: Client) -> None:
        reach(sender, receiver)
        size = self.choose.choice(SIZES)
        self._pass(sender, receiver, os.urandom(size))

    def check_all(self) -> None:
        """Have each reach each other, byte for byte."""
        for sender in self.at.values():
            for receiver in self.at.values():
                if sender is not receiver:
                    self.check_pair(sender, receiver)

    @staticmethod
    def _pass(sender: Client, receiver: Client, packet: bytes) -> None:
        """Pass a packet; what is told of others that have left does not count."""
        sender.send(receiver.key, packet)
        while (came := receiver.take())[0] == PEER_GONE:
            pass
        assert came[1] == sender.key.public + packet


class Talk:
    """Two clients that stay where they are, and may lose nothing."""

    def __init__(self, clients: Clients, here: Relay, there: Relay) -> None:
        self._ends = [clients.connect(here, "stays here"), clients.connect(there, "stays there")]
        self._number = 0
        for sender, receiver in (self._ends, self._ends[::-1]):
            reach(sender, receiver)

    def go_on(self) -> None:
        """Say something, in both directions."""
        for sender, receiver in (self._ends, self._ends[::-1]):
            for _ in range(5):
                self._number += 1
                pass_packet(sender, receiver, self._number.to_bytes(4) * 100)

    def close(self) -> None:
        for client in self._ends:
            client.close()


@pytest.mark.parametrize("victim", [1, 2], ids=["ours", "theirs"])
def test_clients_move_while_a_relay_is_killed_and_comes_back(
    three: list[Relay], clients: Clients, victim: int
) -> None:
    killed = three[victim]
    others = [relay for relay in three if relay is not killed]
    region = Region(three, clients, 6)
    talk = Talk(clients, *others)

    def live_on(among: list[Relay], moves: int) -> None:
        for _ in range(moves):
            region.move_somebody(among)
            talk.go_on()
            sender, receiver = region.choose.sample(list(region.at.values()), 2)
            region.check_pair(sender, receiver)
            talk.go_on()

    region.check_all()
    live_on(three, 10)

    # It stays away: only the relay that is killed has ever known it.
    lost = clients.connect(killed, "lost with its relay")
    for relay in others:
        until(
            "all know it", lambda relay=relay: varz(relay)["derp_clients_total"] == 9 + len(three)
        )

    killed.kill()
    lost.close()
    for name, client in region.at.items():
        if client.relay is killed:
            region.move(name, region.choose.choice(others), overlap=False)
    talk.go_on()
    region.check_all()
    live_on(others, 5)
    for relay in others:
        # What was known by the one that is gone is forgotten, and nothing else.
        until(
            "each knows who is left",
            lambda relay=relay: varz(relay)["derp_clients_total"] == 8 + len(others),
        )

    killed.start()
    wait_until_meshed(three)
    talk.go_on()
    live_on(three, 10)
    for number, name in enumerate(region.at):
        if region.at[name].relay is not three[number % 3]:
            region.move(name, three[number % 3])
    region.check_all()
    talk.close()
    for relay in three:
        relay.check_alive()
        until(
            "each knows all",
            lambda relay=relay: varz(relay)["derp_clients_total"] == 6 + len(three),
        )
