"""Who is no mesh peer: a relay with another key, the relay itself."""

from pathlib import Path

import pytest

from tests.interop.mesh import (
    MESH_KEY,
    WRONG_KEY,
    Clients,
    all_running,
    mesh,
    reach,
    varz,
    wait_until_meshed,
)
from tests.interop.rawderp import EndedError, Key
from tests.interop.relay import TestCA
from tests.support.derp import FORWARD_PACKET, PEER_GONE, WATCH_CONNS
from tests.support.waiting import until

DISCO = bytes.fromhex("5453f09f92ac") + bytes(100)


@pytest.mark.parametrize("wrong", ["ours", "theirs"])
def test_a_wrong_key_is_refused_by_both(
    under_test: list[str],
    binaries: dict[str, Path],
    test_ca: TestCA,
    tmp_path: Path,
    clients: Clients,
    is_go: bool,
    wrong: str,
) -> None:
    """Each is refused by the other, and says so; neither learns of the other's clients."""
    commands = {"ours": under_test, "theirs": [str(binaries["derper"])]}
    keys = {wrong: WRONG_KEY}
    with all_running(mesh(tmp_path, test_ca, commands, keys)) as (ours, theirs):
        if not is_go:
            entry = f"localhost:{theirs.port}/127.0.0.1"
            ours.wait_for_log(rf"can't mesh.*{entry}.*is the mesh key the same on both relays\?")
            until(
                "it was refused at ours",
                lambda: varz(ours)['derp_connection_ends{reason="not_permitted"}'] >= 1,
            )
        theirs.wait_for_log("insufficient permissions")
        pair = [clients.connect(relay, f"at {relay.name}") for relay in (ours, theirs)]
        for client, other in (pair, pair[::-1]):
            client.send(other.key, DISCO)
            assert client.settle() == [(PEER_GONE, other.key.public + b"\x01")]
            metrics = varz(client.relay)
            assert metrics["derp_watchers"] == metrics["derp_clients_remote"] == 0
            assert metrics["derp_packets_forwarded_out"] == 0
            assert metrics["derp_packets_forwarded_in"] == 0
            for text in (MESH_KEY.hex(), WRONG_KEY.hex()):
                assert text not in client.relay.log


@pytest.mark.parametrize("itself", ["alone", "with another"])
def test_a_relay_that_lists_itself_skips_itself(
    under_test: list[str],
    binaries: dict[str, Path],
    test_ca: TestCA,
    tmp_path: Path,
    clients: Clients,
    is_go: bool,
    itself: str,
) -> None:
    commands = {"ours": under_test}
    if itself == "with another":
        commands["theirs"] = [str(binaries["derper"])]
    with all_running(mesh(tmp_path, test_ca, commands, itself=True)) as relays:
        pattern = "detected self-connect" if is_go else "this relay itself is in -mesh-with"
        for relay in relays:
            relay.wait_for_log(pattern if relay is relays[0] else "detected self-connect")
        # The Go derper keeps the connection to itself, but does not watch on it.
        wait_until_meshed(relays)
        ours = relays[0]
        others = len(relays) - 1
        if not is_go:
            until(
                "only the others are connected",
                lambda: varz(ours)["derp_current_connections"] == others,
            )
        if others:
            alice, bob = clients.connect(ours, "alice"), clients.connect(relays[1], "bob")
            reach(alice, bob)
            reach(bob, alice)
        assert ours.log.count("this relay itself") == (0 if is_go else 1)
        for relay in relays:
            relay.check_alive()


def test_without_the_key_nobody_is_served_as_a_mesh_peer(
    under_test: list[str],
    binaries: dict[str, Path],
    test_ca: TestCA,
    tmp_path: Path,
    clients: Clients,
) -> None:
    commands = {"ours": under_test, "theirs": [str(binaries["derper"])]}
    with all_running(mesh(tmp_path, test_ca, commands)) as relays:
        wait_until_meshed(relays)
        for relay in relays:
            victim = clients.connect(relay, "victim")
            forged = Key.named("nobody").public + victim.key.public + b"forged"
            for key in (None, WRONG_KEY):
                for kind, payload in ((FORWARD_PACKET, forged), (WATCH_CONNS, b"")):
                    stranger = clients.connect(relay, "stranger", mesh_key=key)
                    stranger.frame(kind, payload)
                    with pytest.raises(EndedError):
                        stranger.take()
            assert victim.settle() == []
            assert varz(relay)["derp_watchers"] == 1
