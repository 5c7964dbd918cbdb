"""What a real tailscaled shows of what the relay tells it is wrong."""

import json
import signal
import ssl
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import attrs
import pytest

from tests.interop.logins import ADMITTED, hello, verdict_of
from tests.interop.netns import skip_unless_possible
from tests.interop.rawderp import SERVER, Wire
from tests.interop.relay import TestCA, write_key_file
from tests.interop.tailnet import RELAY_4, Node, Tailnet, eventually, tailnet

PATIENCE = 60
"""Seconds: a quota counts after ten."""
CLONE_PATIENCE = 120
"""Seconds: a cloned key is told of after one minute."""

PREFIX = "The relay server #900 is reporting an issue: "


@attrs.frozen
class Ruled:
    """A tailnet, and its relay's policy."""

    net: Tailnet
    policy: Path

    def put(self, *lines: str) -> None:
        self.policy.write_text("\n".join(lines))
        assert self.net.relay.process
        self.net.relay.process.send_signal(signal.SIGHUP)


def entry(node: Node) -> str:
    return f'[clients."nodekey:{node.key().public.hex()}"]'


def told(node: Node) -> list[str]:
    """What `tailscale status --json` says that the relay has said."""
    status = json.loads(node.tailscale("status", "--json").stdout)
    health: list[str] = status["Health"] or []
    return [line.removeprefix(PREFIX) for line in health if line.startswith(PREFIX)]


def wait_until_told(node: Node, *parts: str, patience: float = PATIENCE) -> str:
    """Wait for a text with all these parts; return it."""
    seen: list[str] = []

    def look() -> bool:
        seen[:] = told(node)
        return any(all(part in text for part in parts) for text in seen)

    try:
        eventually(f"{node.name} shows {parts}", patience, look)
    except AssertionError as error:
        raise AssertionError(f"{error}; it shows {seen}") from None
    return seen[0]


def wait_until_well(node: Node, patience: float = PATIENCE) -> None:
    eventually(f"{node.name} shows nothing any more", patience, lambda: not told(node))


@pytest.fixture(scope="module", params=["1", "2"], ids=["one process", "workers"])
def ruled(
    request: pytest.FixtureRequest,
    under_test: list[str],
    is_go: bool,
    binaries: dict[str, Path],
    test_ca: TestCA,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Ruled]:
    if is_go:
        pytest.skip("the Go derper tells nobody what is wrong")
    skip_unless_possible("no real tailscaled here")
    folder = tmp_path_factory.mktemp("health")
    write_key_file(folder / "derper.key", SERVER.private)
    policy = folder / "policy.toml"
    policy.write_text("[defaults]\n")
    flags = ["-policy", str(policy), "-tell-refused", "-workers", request.param]
    # How long it takes to tell of a cloned key depends on it.
    flags += ["-tcp-user-timeout", "1s"]
    with tailnet(under_test, binaries, test_ca, folder, flags=flags) as net:
        yield Ruled(net, policy)


def test_a_quota_that_is_used_up(ruled: Ruled) -> None:
    alice, bob = ruled.net.alice, ruled.net.bob
    wait_until_well(alice)
    ruled.put(
        *(entry(alice), 'quota = "1 kB/month"', 'throttle = "2 Mbit/s"'),
        *(entry(bob), 'quota = "1 kB/day"', "refuse = true"),
    )
    text = wait_until_told(alice, "has used up its quota of 1 kB/month here")
    assert "and is slowed down to 2 Mbit/s until 20" in text
    assert "-01 00:00 UTC" in text
    wait_until_told(bob, "has used up its quota of 1 kB/day here, and is refused until 20")
    ruled.put(entry(alice), 'quota = "1000000 TB/month"', 'throttle = "2 Mbit/s"')
    wait_until_well(alice)
    wait_until_well(bob)
    eventually("a ping comes back", 60, lambda: alice.ping(bob) is not None)


def test_who_is_refused(ruled: Ruled) -> None:
    alice = ruled.net.alice
    wait_until_well(alice)
    ruled.put(entry(alice), "deny = true")
    wait_until_told(alice, "the operator of the relay denies this device the use of it")
    # A new tailscaled hears it at its first login.
    alice.stop()
    alice.start()
    wait_until_told(alice, "the operator of the relay denies this device the use of it")
    ruled.put("[defaults]")
    wait_until_well(alice)


def test_a_cloned_key(ruled: Ruled, test_ca: TestCA) -> None:
    net = ruled.net
    alice = net.alice
    wait_until_well(alice)
    tls = ssl.create_default_context(cafile=str(test_ca.pem))
    raw = net.bob.space.connect((RELAY_4, net.relay.port))
    with closing(Wire(tls.wrap_socket(raw, server_hostname="derp.test"))) as clone:
        clone.send(hello(alice.key()))
        assert verdict_of(clone) == ADMITTED
        wait_until_told(alice, "key is in use at two addresses at once", patience=CLONE_PATIENCE)
    wait_until_well(alice)


def test_a_relay_that_goes_down(ruled: Ruled) -> None:
    alice, relay = ruled.net.alice, ruled.net.relay
    wait_until_well(alice)
    relay.stop()
    wait_until_told(alice, "the relay goes down, perhaps to be started again")
    relay.start()
    wait_until_well(alice)
