"""-verify-headscale with a real headscale: who is in its list of nodes is in, and nobody else."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.interop import golang
from tests.interop.gated import gated, verdict_there
from tests.interop.headnet import URL, Headscale
from tests.interop.logins import ADMITTED, REFUSED
from tests.interop.netns import Namespace, skip_unless_possible
from tests.interop.rawderp import Key
from tests.interop.relay import TestCA
from tests.interop.tailnet import REGION, Tailnet, eventually, tailnet_through

TWO_MINUTES = 120.0
NAME = "headscale:10.99.0.1:8080"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("headscale-nodes")


@pytest.fixture(scope="module")
def headscale(folder: Path, is_go: bool) -> Headscale:
    if is_go:
        pytest.skip("the Go derper can't ask headscale's API")
    skip_unless_possible("no real headscale here")
    return Headscale(golang.build(golang.HEADSCALE)["headscale"], folder / "headscale")


@pytest.fixture(scope="module")
def net(
    headscale: Headscale,
    under_test: list[str],
    binaries: dict[str, Path],
    test_ca: TestCA,
    folder: Path,
) -> Iterator[Tailnet]:
    """The relay starts before headscale, with a key that headscale does not know yet."""
    key = folder / "api-key"
    key.write_text("hskey-api-none-yet\n")
    key.chmod(0o600)
    flags = ["-verify-headscale", URL, "-headscale-api-key-file", str(key), "-verify-again", "0"]
    serve = gated(under_test, test_ca, folder, *flags)

    @contextmanager
    def control(middle: Namespace, node: Mapping[str, object]) -> Iterator[Sequence[str]]:
        with headscale.run(middle, node) as joining:
            key.write_text(f"{headscale.ask('apikeys', 'create')}\n")
            yield joining

    with tailnet_through(serve, binaries, folder, blob_size=1000, control=control) as running:
        yield running


def test_nodes_talk_and_a_stranger_does_not(net: Tailnet, test_ca: TestCA) -> None:
    for one, other in ((net.alice, net.bob), (net.bob, net.alice)):
        eventually("a ping comes back", 90, lambda o=one, t=other: o.ping(t, 2) is not None)
        assert f"via DERP({REGION})" in str(one.ping(other))
    assert verdict_there(net, test_ca, net.alice.key()) == ADMITTED
    assert verdict_there(net, test_ca, Key.named("a stranger")) == REFUSED
    net.relay.wait_for_log(f"is refused by {NAME}: not among the devices that it lists")


def test_expired_and_deleted(net: Tailnet, test_ca: TestCA, headscale: Headscale) -> None:
    """Both are disconnected within two minutes, and stay out."""
    eventually("both are connected", 90, lambda: net.varz("derp_current_connections") == 2)
    alice, bob = net.alice.key(), net.bob.key()
    began = time.monotonic()
    headscale.expire(alice)
    headscale.delete(bob)
    eventually("both are out", TWO_MINUTES, lambda: net.varz("derp_current_connections") == 0)
    assert time.monotonic() - began < TWO_MINUTES
    net.relay.wait_for_log(f"no longer admitted by {NAME}: not among")
    net.relay.wait_for_log(f"no longer admitted by {NAME}: its node key has expired")
    assert verdict_there(net, test_ca, alice) == verdict_there(net, test_ca, bob) == REFUSED
