"""-isolate over workers and a mesh: two relays of ours that do, and a Go derper, which can't."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.mesh import (
    MESH_PATIENCE,
    Client,
    Clients,
    all_running,
    mesh,
    pass_packet,
    reach,
    varz,
)
from tests.interop.rawderp import Key, SilentError
from tests.interop.relay import Relay, TestCA
from tests.support.derp import PEER_GONE
from tests.support.waiting import until

DISCO = bytes.fromhex("5453f09f92ac") + bytes(94)
NOT_HERE = b"\x01"
ISOLATED = 'derp_packets_dropped{reason="isolated",kind="other"}'
GROUPS = ("red", "blue")
HERE = ("one", "two")


@pytest.fixture(scope="module")
def region(
    under_test: list[str],
    binaries: dict[str, Path],
    test_ca: TestCA,
    tmp_path_factory: pytest.TempPathFactory,
    is_go: bool,
) -> Iterator[dict[str, Relay]]:
    if is_go:
        pytest.skip("the Go derper can't keep groups apart")
    folder = tmp_path_factory.mktemp("region")
    policy = folder / "policy.toml"
    policy.write_text(
        "".join(
            f'[clients."nodekey:{Key.named(f"{group} at {name}").public.hex()}"]\n'
            f'group = "{group}"\n'
            for group in GROUPS
            for name in (*HERE, "go", "one too")
        )
    )
    commands = {**dict.fromkeys(HERE, under_test), "go": [str(binaries["derper"])]}
    relays = mesh(folder, test_ca, commands)
    for relay in relays[:2]:
        relay.flags = [*relay.flags, "-isolate", "-policy", str(policy)]
    relays[0].flags = [*relays[0].flags, "-workers", "2"]
    with all_running(relays):
        # Each worker dials the others.
        until("all are linked", lambda: varz(relays[2])["derp_watchers"] == 3)
        until("all are linked", lambda: varz(relays[1])["derp_watchers"] == 3)
        wait_until_meshed_with_workers(relays[0])
        yield {relay.name: relay for relay in relays}


def wait_until_meshed_with_workers(relay: Relay) -> None:
    until("its workers are watched", lambda: varz(relay)["derp_watchers"] >= 2)


def silent(client: Client) -> bool:
    try:
        client.take_packet(0.3)
    except SilentError:
        return True
    return False


def test_groups_are_kept_apart_over_the_mesh(region: dict[str, Relay], clients: Clients) -> None:
    there = {
        (group, name): clients.connect(region[name], f"{group} at {name}")
        for group in GROUPS
        for name in HERE
    }
    for group in GROUPS:
        reach(there[group, "one"], there[group, "two"])
        reach(there[group, "two"], there[group, "one"])
    for name, other in (HERE, HERE[::-1]):
        before = varz(region[name])[ISOLATED]
        sender, receiver = there["red", name], there["blue", other]
        sender.send(receiver.key, b"hello")
        sender.send(receiver.key, DISCO)
        assert sender.take() == (PEER_GONE, receiver.key.public + NOT_HERE)
        assert silent(receiver)
        assert varz(region[name])[ISOLATED] == before + 1


def test_clients_of_one_relay_with_workers(region: dict[str, Relay], clients: Clients) -> None:
    """Wherever the kernel puts them."""
    relay = region["one"]
    red = [clients.connect(relay, f"red at {name}") for name in ("one", "two", "one too")]
    blue = [clients.connect(relay, f"blue at {name}") for name in ("one", "two", "one too")]
    for same in (red, blue):
        for client in same[1:]:
            reach(same[0], client)
    for client in red:
        for other in blue:
            client.send(other.key, DISCO)
            assert client.take() == (PEER_GONE, other.key.public + NOT_HERE)


def test_what_comes_from_a_go_derper_is_dropped(region: dict[str, Relay], clients: Clients) -> None:
    """It tells no groups; but it understands who is connected to those that do."""
    ours, theirs = region["two"], region["go"]
    here = clients.connect(ours, "red at two")
    there = clients.connect(theirs, "red at go")
    other = clients.connect(theirs, "blue at go")
    pass_packet(there, other, b"they don't know of groups")
    until("it is known", lambda: varz(theirs)["derp_clients_remote"] >= 1, MESH_PATIENCE)
    before = varz(ours)[ISOLATED]
    there.send(here.key, b"hello")
    until("it is dropped", lambda: varz(ours)[ISOLATED] == before + 1)
    assert silent(here)
    here.send(there.key, b"hello")
    assert silent(there)
