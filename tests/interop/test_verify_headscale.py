"""-verify-client-url with a real headscale: its nodes are in, and nobody else."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop import golang
from tests.interop.gated import gated, verdict_there
from tests.interop.headnet import URL, Headscale
from tests.interop.logins import ADMITTED, REFUSED
from tests.interop.netns import skip_unless_possible
from tests.interop.rawderp import Key
from tests.interop.relay import TestCA
from tests.interop.tailnet import REGION, Tailnet, eventually, tailnet_through


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("headscale")


@pytest.fixture(scope="module")
def headscale(folder: Path) -> Headscale:
    skip_unless_possible("no real headscale here")
    return Headscale(golang.build(golang.HEADSCALE)["headscale"], folder / "headscale")


@pytest.fixture(scope="module")
def net(
    headscale: Headscale,
    under_test: list[str],
    binaries: dict[str, Path],
    is_go: bool,
    test_ca: TestCA,
    folder: Path,
) -> Iterator[Tailnet]:
    flags = ["-verify-client-url", f"{URL}/verify", "-verify-client-url-fail-open=false"]
    flags += [] if is_go else ["-verify-again", "1s"]
    serve = gated(under_test, test_ca, folder, *flags)
    with tailnet_through(serve, binaries, folder, blob_size=1000, control=headscale.run) as running:
        yield running


def test_nodes_talk_and_a_stranger_does_not(net: Tailnet, test_ca: TestCA) -> None:
    for one, other in ((net.alice, net.bob), (net.bob, net.alice)):
        eventually("a ping comes back", 60, lambda o=one, t=other: o.ping(t, 2) is not None)
        assert f"via DERP({REGION})" in str(one.ping(other))
    assert verdict_there(net, test_ca, net.alice.key()) == ADMITTED
    assert verdict_there(net, test_ca, Key.named("a stranger")) == REFUSED


def test_deleted(net: Tailnet, test_ca: TestCA, headscale: Headscale, is_go: bool) -> None:
    """A node that is deleted is disconnected, and stays out.

    Wherever it comes from, unless it was just admitted from there: that is remembered for a while.
    """
    if is_go:
        pytest.skip("the Go derper asks at login only")
    eventually("both are connected", 60, lambda: net.varz("derp_current_connections") == 2)
    headscale.delete(net.bob.key())
    net.relay.wait_for_log(r"no longer admitted by")
    assert verdict_there(net, test_ca, net.bob.key()) == REFUSED
    assert verdict_there(net, test_ca, net.alice.key()) == ADMITTED
