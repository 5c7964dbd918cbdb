"""One of ours and the Go derper as one mesh: each forwards to the other what it can't deliver."""

import ipaddress
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.mesh import (
    MESH_KEY,
    Client,
    Clients,
    all_running,
    grown,
    mesh,
    pass_packet,
    reach_each_other,
    until_quiet,
    varz,
    wait_until_meshed,
    weather_a_storm,
)
from tests.interop.rawderp import EndedError, Key
from tests.interop.relay import Relay, TestCA
from tests.support import derp
from tests.support.derp import (
    CLOSE_PEER,
    FORWARD_PACKET,
    PEER_GONE,
    WATCH_CONNS,
)
from tests.support.waiting import until

DISCO = bytes.fromhex("5453f09f92ac")
GONE, NOT_HERE = b"\x00", b"\x01"


@pytest.fixture(scope="module")
def pair(
    under_test: list[str],
    binaries: dict[str, Path],
    test_ca: TestCA,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[list[Relay]]:
    """One of ours, and the Go derper."""
    commands = {"ours": under_test, "theirs": [str(binaries["derper"])]}
    relays = mesh(tmp_path_factory.mktemp("pair"), test_ca, commands)
    with all_running(relays):
        wait_until_meshed(relays)
        yield relays


def test_tailscales_clients_at_both_reach_each_other(
    binaries: dict[str, Path], test_ca: TestCA, pair: list[Relay]
) -> None:
    """Packets byte for byte, and who stays is told that the other has left, both ways."""
    for relays in (pair, pair[::-1]):
        reach_each_other(binaries["derpcheck"], test_ca, relays)


@pytest.mark.parametrize("place", [0, 1], ids=["ours", "theirs"])
def test_a_watcher_knows_the_truth_after_a_storm(
    binaries: dict[str, Path], test_ca: TestCA, pair: list[Relay], clients: Clients, place: int
) -> None:
    """A thousand connections come and go at one; the other knows exactly those that stay."""
    weather_a_storm(binaries["derpcheck"], test_ca, pair, clients, place)


COUNTERS = (
    "derp_accepts",
    "derp_bytes_",
    "derp_clients_",
    "derp_current_connections",
    "derp_got_ping",
    "derp_mesh_update_batch_size_sum",
    "derp_multiforwarder_",
    "derp_packet",
    "derp_peer_gone_",
    "derp_sent_pong",
    "derp_total_dup_client_conns",
    "derp_unknown_frames",
    "derp_watchers",
)
"""What does not depend on time or chance."""


def test_the_same_is_counted_at_both(pair: list[Relay], clients: Clients) -> None:
    """The same happens at each relay of the mesh, so their counters must grow by the same."""
    until_quiet(pair)
    before = [varz(relay) for relay in pair]
    stayers = [clients.connect(relay, f"at {relay.name}") for relay in pair]
    peers = [clients.connect(r, f"peer of {r.name}", mesh_key=MESH_KEY) for r in pair]
    leavers = [clients.connect(relay, f"leaves {relay.name}") for relay in pair]
    for relay in pair:
        until("all are known", lambda relay=relay: varz(relay)["derp_clients_remote"] == 4)

    nobody = Key.named("nobody")
    for client, peer, leaver, other in zip(stayers, peers, leavers, stayers[::-1], strict=True):
        for packet in (b"", b"packet", bytes(1400), bytes(65536), DISCO + bytes(200)):
            pass_packet(client, other, packet)
        client.send(nobody, b"lost")
        client.send(nobody, DISCO + bytes(100))
        assert client.take() == (PEER_GONE, nobody.public + NOT_HERE)
        assert client.settle() == []
        peer.frame(FORWARD_PACKET, nobody.public * 2 + b"lost")
        peer.frame(FORWARD_PACKET, nobody.public * 2 + DISCO + bytes(100))
        assert peer.take() == (PEER_GONE, nobody.public + NOT_HERE)
        assert peer.settle() == []
        pass_packet(leaver, other, b"bye")
        leaver.close()
        assert other.take() == (PEER_GONE, leaver.key.public + GONE)
    for relay in pair:
        until("they have left", lambda relay=relay: varz(relay)["derp_clients_total"] == 6)

    ours, theirs = (
        {
            name: growth
            for name, growth in grown(then, varz(relay)).items()
            if name.startswith(COUNTERS)
        }
        for relay, then in zip(pair, before, strict=True)
    )
    assert ours == theirs
    assert ours["derp_packets_forwarded_out"] == ours["derp_packets_forwarded_in"] - 2 == 6
    assert ours["derp_packets_sent"] == 6
    for kind in ("disco", "other"):
        for reason in ("unknown_dest", "unknown_dest_on_fwd"):
            assert ours[f'derp_packets_dropped{{reason="{reason}",kind="{kind}"}}'] == 1


class Story:
    """What a mesh peer and others get from one relay, with names in place of keys."""

    def __init__(self, relay: Relay, clients: Clients) -> None:
        self.lines: list[str] = []
        self._relay = relay
        self._clients = clients
        self._names: dict[bytes, str] = {}
        self._addresses: dict[tuple[str, int], str] = {}

    def name(self, name: str) -> bytes:
        """Give a key a name."""
        key = Key.named(name).public
        self._names[key] = name
        return key

    def login(self, name: str, *headers: str, mesh_key: bytes | None = None) -> Client:
        client = self._clients.connect(self._relay, name, *headers, mesh_key=mesh_key)
        self.name(name)
        self._addresses[client.address] = f"the address of {name}"
        return client

    def tell(self, peer: Client, count: int = 1) -> None:
        """Write down the next frames that a peer gets."""
        for _ in range(count):
            what = self._describe(*peer.take())
            self.lines.append(f"{peer.key.name}: {what}")

    def tell_in_any_order(self, peer: Client, count: int) -> None:
        before = len(self.lines)
        self.tell(peer, count)
        self.lines[before:] = sorted(self.lines[before:])

    def _describe(self, kind: int, payload: bytes) -> str:
        who = self._names.get(payload[:32], "another relay")
        match kind:
            case derp.PEER_PRESENT:
                host = str(ipaddress.IPv6Address(payload[32:48]).ipv4_mapped)
                address = host, int.from_bytes(payload[48:50])
                where = self._addresses.get(address, "elsewhere")
                return f"{who} is present at {where}, {payload[50:].hex()}"
            case derp.PEER_GONE:
                return f"{who} is gone, {payload[32:].hex()}"
            case derp.RECV_PACKET:
                return f"packet of {who}: {payload[32:]!r}"
        return f"frame of type {kind:#x}"


def test_mesh_peers_are_told_and_served_the_same(pair: list[Relay], clients: Clients) -> None:
    stories = []
    for relay in pair:
        until_quiet(pair)
        story = Story(relay, clients)
        play(story)
        stories.append(story.lines)
    assert stories[0] == stories[1]
    assert len(stories[0]) > 25


def play(story: Story) -> None:
    """Do all that a mesh peer may do."""
    alice = story.login("alice")
    watcher = story.login("dave", mesh_key=MESH_KEY)
    watcher.frame(WATCH_CONNS)
    story.tell_in_any_order(watcher, 3)
    # Coming, twice at once, and going.
    bob = story.login("bob", "Ideal-Node: 900a")
    story.tell(watcher)
    second = story.login("bob")
    story.tell(watcher)
    bob.close()
    assert watcher.settle() == []
    other = story.login("carol", mesh_key=MESH_KEY)
    story.tell(watcher)
    other.frame(WATCH_CONNS)
    story.tell_in_any_order(other, 5)
    # Packets forwarded: to a client, to another mesh peer, to who is not here.
    stranger, nobody = story.name("stranger"), story.name("nobody")
    for packet in (b"", b"packet", DISCO + bytes(100)):
        for receiver in (alice, other):
            watcher.frame(FORWARD_PACKET, stranger + receiver.key.public + packet)
            story.tell(receiver)
    for _ in range(5):
        watcher.frame(FORWARD_PACKET, stranger + nobody + DISCO + bytes(99))
    story.tell(watcher, 3)
    assert watcher.settle() == []
    # Closing: who is not here, and all connections of who is.
    third = story.login("bob")
    story.tell(watcher)
    story.tell(other)
    watcher.frame(CLOSE_PEER, nobody)
    watcher.frame(CLOSE_PEER, second.key.public)
    for victim in (second, third):
        with pytest.raises(EndedError):
            victim.take()
    for peer in (watcher, other):
        story.tell(peer)
    # All leave.
    alice.close()
    for peer in (watcher, other):
        story.tell(peer)
    other.close()
    story.tell(watcher)
    watcher.close()
