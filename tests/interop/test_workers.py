"""Ours with several processes, which to Tailscale's own programs is one relay like any other."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.issuing import acme_relay, issued, renewed, shake_with
from tests.interop.mesh import Clients, all_running, mesh, reach_each_other, varz, weather_a_storm
from tests.interop.pebble import Pebble
from tests.interop.relay import Relay, TestCA, free_port, running
from tests.support.waiting import until

WORKERS = 2


@pytest.fixture(scope="module")
def command(under_test: list[str], is_go: bool) -> list[str]:
    if is_go:
        pytest.skip("the Go derper has no workers")
    return [*under_test, "-workers", str(WORKERS)]


@pytest.fixture(scope="module")
def pair(
    command: list[str],
    binaries: dict[str, Path],
    test_ca: TestCA,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[list[Relay]]:
    """One of ours, and the Go derper, meshed: each worker dials that, and one hears from it."""
    commands = {"ours": command, "theirs": [str(binaries["derper"])]}
    ours, theirs = relays = mesh(tmp_path_factory.mktemp("pair"), test_ca, commands)
    with all_running(relays):
        until("ours is watched", lambda: varz(ours)["derp_watchers"] == 1)
        until("theirs is watched", lambda: varz(theirs)["derp_watchers"] == WORKERS)
        yield relays


def test_tailscales_clients_reach_each_other(
    binaries: dict[str, Path], test_ca: TestCA, pair: list[Relay]
) -> None:
    """Five at ours, of which hardly all come to one worker, and one at the Go derper."""
    ours, theirs = pair
    for relays in ([*[ours] * 5, theirs], [theirs, *[ours] * 5]):
        reach_each_other(binaries["derpcheck"], test_ca, relays)


@pytest.mark.parametrize("place", [0, 1], ids=["ours", "theirs"])
def test_a_watcher_knows_the_truth_after_a_storm(
    binaries: dict[str, Path], test_ca: TestCA, pair: list[Relay], clients: Clients, place: int
) -> None:
    """Whoever of ours is watched, it tells of all clients; and all know the Go derper's."""
    weather_a_storm(binaries["derpcheck"], test_ca, pair, clients, place)


@pytest.mark.parametrize(
    ("way", "host"), [("http-01", "127.0.0.71"), ("tls-alpn-01", "127.0.0.72")]
)
def test_a_certificate_is_ordered_once_and_served_by_all(
    command: list[str], authority: Pebble, tmp_path: Path, way: str, host: str
) -> None:
    """The authority asks three times, at whichever worker."""
    port = {"port": free_port()} if way == "http-01" else {"http_port": -1}
    name = f"workers-{way}.test"
    relay = acme_relay(command, tmp_path, authority, name, host, **port)
    before = authority.orders
    with running(relay):
        old = issued(relay, authority)
        assert authority.orders == before + 1
        new = renewed(relay, authority, old.chain[0])
        until(
            "all serve the new one",
            lambda: (
                {*new.chain[:1]}
                == {leaf for _ in range(16) for leaf in shake_with(relay).chain[:1] or [b""]}
            ),
        )
        assert authority.orders == before + 2
