"""A -policy that changes while Tailscale's own DERP client is connected."""

import json
import signal
import ssl
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.interop.logins import (
    ADMITTED,
    REFUSED,
    dial,
    hello,
    log_in,
    pass_packet,
    verdict_of,
    wait_for_end,
)
from tests.interop.rawderp import SERVER, Key
from tests.interop.relay import Relay, TestCA, running, write_key_file
from tests.interop.test_stop import Limited

MBIT = 125_000


@pytest.fixture(autouse=True)
def _ours(is_go: bool) -> None:
    if is_go:
        pytest.skip("the Go derper has no policy")


def entry(key: Key, line: str) -> str:
    return f'[defaults]\nrate = "1 Mbit/s"\n[clients."nodekey:{key.public.hex()}"]\n{line}\n'


@attrs.frozen
class Ruled:
    """A relay and its policy."""

    relay: Relay
    path: Path
    tls: ssl.SSLContext

    def put(self, text: str) -> None:
        self.path.write_text(text)
        assert self.relay.process
        self.relay.process.send_signal(signal.SIGHUP)


@pytest.fixture(params=["1", "2"], ids=["one process", "workers"])
def ruled(
    request: pytest.FixtureRequest, under_test: list[str], test_ca: TestCA, tmp_path: Path
) -> Iterator[Ruled]:
    path = tmp_path / "policy.toml"
    path.write_text('[defaults]\nrate = "1 Mbit/s"\n')
    test_ca.issue(tmp_path, "localhost")
    write_key_file(tmp_path / "derper.key", SERVER.private)
    flags = ["-policy", str(path), "-workers", request.param]
    with running(Relay("relay", under_test, tmp_path, flags=flags)) as relay:
        yield Ruled(relay, path, ssl.create_default_context(cafile=str(test_ca.pem)))


def outcome(ruled: Ruled, key: Key) -> str:
    """What comes of a login with a key."""
    with closing(dial(ruled.relay, ruled.tls)) as wire:
        wire.send(hello(key))
        return verdict_of(wire)


def connected(relay: Relay) -> dict[str, int]:
    """How many bytes have come from each key that is connected, and has sent something."""
    with urllib.request.urlopen(f"http://127.0.0.1:{relay.http_port}/debug/traffic") as page:
        lines: list[dict[str, Any]] = [json.loads(page.readline()) for _ in range(2)]
    return {line["Key"]: line["Recv"] for line in lines}


def test_a_go_client_sends_as_fast_as_the_policy_allows_by_now(
    ruled: Ruled, binaries: dict[str, Path], test_ca: TestCA
) -> None:
    with closing(Limited(binaries["derpcheck"], ruled.relay, test_ca)) as client:
        assert client.rate() < 1.2 * MBIT
        received = connected(ruled.relay)
        sender = max(received, key=received.__getitem__)
        own = f'[defaults]\nrate = "1 Mbit/s"\n[clients."{sender}"]\n'
        ruled.put(f'{own}rate = "8 Mbit/s"\n')
        assert 1.2 * MBIT < client.until_told(8 * MBIT) < 1.2 * 8 * MBIT
        # A mistake changes nothing.
        ruled.put(f'{own}rate = "2"\n')
        ruled.relay.wait_for_log('"the old policy stays in force" .*line 4: rate 2: want a rate')
        assert client.rate() > 1.2 * MBIT
        ruled.put(f"{own}deny = true\n")
        ruled.relay.wait_for_log("no longer admitted by policy: the key is denied")
        assert client.rate() == 0


def test_a_go_client_over_its_quota_is_throttled_and_told(
    ruled: Ruled, binaries: dict[str, Path], test_ca: TestCA
) -> None:
    with closing(Limited(binaries["derpcheck"], ruled.relay, test_ca)) as client:
        assert client.rate() > MBIT / 2
        received = connected(ruled.relay)
        sender = max(received, key=received.__getitem__)
        own = f'[clients."{sender}"]\nrate = "8 Mbit/s"\nthrottle = "2 Mbit/s"\n'
        ruled.put(f'{own}quota = "100 kB/day"\n')
        assert client.until_told(2 * MBIT) < 1.2 * 2 * MBIT
        told = client.report()["health"]
        assert "quota of 100 kB/day here, and is slowed down to 2 Mbit/s until 20" in told
        ruled.put(f'{own}quota = "1000 TB/day"\n')
        assert client.until_told(8 * MBIT) > 1.2 * 2 * MBIT
        assert client.report()["health"] == ""
        # It moves this in less than a second.
        ruled.put(f'{own}quota = "{sum(connected(ruled.relay).values()) + 10**6} B/day"\n')
        client.until_told(2 * MBIT)
        ruled.put(f'[clients."{sender}"]\nquota = "100 kB/day"\nrefuse = true\n')
        ruled.relay.wait_for_log("no longer admitted by policy: over its quota for this day")
        assert client.rate() == 0


def test_a_denied_key_is_refused_and_its_connections_end(ruled: Ruled) -> None:
    denied, other = Key.named("denied"), Key.named("other")
    with closing(log_in(ruled.relay, other, ruled.tls)) as stays:
        with closing(log_in(ruled.relay, denied, ruled.tls)) as wire:
            ruled.put(entry(denied, "deny = true"))
            wait_for_end(wire)
        for _ in range(6):  # at whichever worker
            assert outcome(ruled, denied) == REFUSED
        pass_packet(stays, other, stays, other)
        ruled.put(entry(denied, 'label = "forgiven"'))
        ruled.relay.wait_for_log('"new policy" entries=1 allowed=0 denied=0')
        assert outcome(ruled, denied) == ADMITTED
