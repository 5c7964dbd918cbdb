"""The last release's container is swapped for this one's, and back, while tailscaled use it.

All state is what the last release has made, and later what this one has added to it.
"""

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.container.clients import admitted
from tests.container.podman import Podman
from tests.interop.netns import Namespace, skip_unless_possible
from tests.interop.rawderp import Key
from tests.interop.relay import Relay
from tests.interop.tailnet import Served, Tailnet, eventually, tailnet_through
from tests.support.waiting import until
from tests.upgrade.swapped import KEPT_LIST, NAME, POLICY, Swapped, swapped

DENIED, FRIEND, STRANGER = map(Key.named, ("denied", "friend", "stranger"))
RATE = "8 Mbit/s"
BLOB_SIZE = 16_000_000
UNDER_WAY = BLOB_SIZE // 2
"""Bytes of a download that have come when a swap begins."""
OVERHEAD = 1.3
"""By how much more the relay may send than is downloaded: IP, WireGuard, DERP, TLS, pings."""
PATIENCE = 120


@contextlib.contextmanager
def network(
    podman: Podman, last_image: str, image: str, binaries: dict[str, Path], folder: Path
) -> Iterator[tuple[Tailnet, Swapped]]:
    """Two tailscaled, and the last release's container as their relay."""
    made: list[Swapped] = []

    @contextlib.contextmanager
    def serve(middle: Namespace) -> Iterator[Served]:
        with swapped(podman, image, binaries, folder, middle, listed=DENIED) as relay:
            made.append(relay)
            relay.start(last_image)
            root = folder / "root.pem"
            root.write_text(relay.authority.root())
            where = Relay("container", [], folder, port=443, http_port=80, stun_port=3478)
            yield Served(where, root, {"HostName": NAME})

    with tailnet_through(serve, binaries, folder, blob_size=BLOB_SIZE) as net:
        yield net, made[0]


def node_key(key: Key) -> str:
    """Return a key as files and commands have it."""
    return f"nodekey:{key.public.hex()}"


def swap(net: Tailnet, relay: Swapped, image: str) -> str:
    """Swap the container during a download, which goes on; return the log of the stopped one."""
    begun, before = net.varz("derp_bytes_sent"), relay.accounts()
    with ThreadPoolExecutor(1) as pool:
        download = pool.submit(net.fetch)
        until(
            "a download is under way",
            lambda: download.done() or net.varz("derp_bytes_sent") > begun + UNDER_WAY,
        )
        began = time.monotonic()
        log = relay.stop()
        assert not download.done(), "the download was over before the container was stopped"
        stopped = time.monotonic()
        relay.start(image)
        serves = time.monotonic()
        eventually("a ping comes back", PATIENCE, lambda: bool(net.alice.ping(net.bob, 1)))
        back = time.monotonic()
        print(
            f"the container ended within {stopped - began:.1f} s, the next one served after "
            f"{serves - stopped:.1f} s more, and a ping came back {back - serves:.1f} s later"
        )
        fetched = download.result()
    assert fetched["sha256"] == net.checksum, fetched
    assert before <= relay.accounts(), "an account has less than before"
    return log


def check_admission(net: Tailnet, relay: Swapped, friend: bool) -> None:
    """What lists, policy and the kept list of a tailnet say holds; nobody can be asked."""
    assert not admitted(relay.container, DENIED, NAME)
    assert not admitted(relay.container, STRANGER, NAME)
    assert admitted(relay.container, FRIEND, NAME) == friend
    line = net.alice.ping(net.bob)
    assert line, "no ping came back"
    assert "via DERP(ours)" in line


def test_up_and_down_again(
    podman: Podman, last_image: str, image: str, binaries: dict[str, Path], tmp_path: Path
) -> None:
    skip_unless_possible("no network where ports 80 and 443 are free")
    with network(podman, last_image, image, binaries, tmp_path) as (net, relay):
        identity, chain = relay.container.identity(NAME), relay.container.serves(NAME).chain
        assert relay.authority.orders == 1

        def check_identity() -> None:
            assert relay.container.identity(NAME) == identity
            assert relay.container.serves(NAME).chain == chain
            assert relay.authority.orders == 1

        alice, bob = map(node_key, (net.alice.key(), net.bob.key()))
        relay.add_to_list(net.alice.key())
        relay.api.list(net.bob.key())
        relay.command("deny", node_key(DENIED))
        relay.command("limit", bob, RATE)
        assert node_key(DENIED) in relay.file(POLICY)
        assert RATE in relay.file(POLICY)
        eventually("a ping comes back", PATIENCE, lambda: bool(net.alice.ping(net.bob, 1)))
        until("the tailnet's list is kept", lambda: bob in relay.file(KEPT_LIST))
        relay.api.refuse(503)
        check_admission(net, relay, friend=False)

        logs = [swap(net, relay, image)]
        check_identity()
        check_admission(net, relay, friend=False)
        relay.command("allow", node_key(FRIEND), "a friend's phone")
        check_admission(net, relay, friend=True)
        written = relay.file(POLICY)
        assert node_key(FRIEND) in written

        logs.append(swap(net, relay, last_image))
        check_identity()
        check_admission(net, relay, friend=True)
        assert relay.file(POLICY) == written
        logs.append(relay.stop())
        sent = relay.last_accounts(last_image)[alice, "sent"]
        # Each container has sent a quarter of it, or a half.
        assert 2 * BLOB_SIZE < sent < 2 * BLOB_SIZE * OVERHEAD
    for log in logs:
        assert "Traceback" not in log, log
        assert "kept in memory only" not in log, log
