"""What each release has to do with the relay, and how it is told in the table."""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from tests.clients.releases import Release
from tests.interop.netns import Namespace
from tests.interop.relay import Relay, TestCA
from tests.interop.tailnet import (
    REGION,
    RELAY_4,
    Node,
    Serve,
    Served,
    Tailnet,
    eventually,
    tailnet_through,
    tailscales_control,
)

SIZE = 20_000_000
PATIENCE = 90
COMMAND = [sys.executable, "-m", "derp"]


def serve(ca: TestCA, folder: Path) -> Serve:
    """A relay with a certificate that the nodes trust."""

    @contextlib.contextmanager
    def serving(middle: Namespace) -> Iterator[Served]:
        ca.issue(folder, "derp.test")
        relay = _relay(folder, "derp.test", middle)
        with _running(relay):
            yield Served(relay, ca.pem, {"HostName": "derp.test"})

    return serving


def serve_pinned(ca: TestCA, folder: Path) -> Serve:
    """A relay at an IP address, whose own certificate nobody trusts but by its hash."""

    @contextlib.contextmanager
    def serving(middle: Namespace) -> Iterator[Served]:
        relay = _relay(folder, RELAY_4, middle)
        with _running(relay):
            printed = relay.wait_for_log(r"\{[^{}]*sha256-raw:[^{}]*\}")
            node = json.loads(printed[0])
            names = {name: node[name] for name in ("HostName", "CertName")}
            yield Served(relay, ca.pem, names)

    return serving


def _relay(folder: Path, hostname: str, middle: Namespace) -> Relay:
    return Relay(
        *("relay", COMMAND, folder),
        listen="",
        hostname=hostname,
        stun=True,
        prefix=middle.prefix,
    )


@contextlib.contextmanager
def _running(relay: Relay) -> Iterator[None]:
    relay.start()
    try:
        yield
    finally:
        relay.kill()


def login(net: Tailnet) -> None:
    home = partial(net.varz, "derp_current_home_connections")
    eventually("the relay is home to both", PATIENCE, lambda: home() == 2)


def both_ways(net: Tailnet) -> None:
    for one, other in ((net.alice, net.bob), (net.bob, net.alice)):
        eventually("a ping comes back", PATIENCE, partial(through_the_relay, one, other))


def through_the_relay(one: Node, other: Node) -> bool:
    line = one.ping(other)
    assert line is None or f"via DERP({REGION})" in line, line
    return line is not None


def bulk(net: Tailnet) -> None:
    fetched = net.fetch()
    assert not fetched["error"], fetched["error"]
    assert fetched["bytes"] == SIZE, fetched["bytes"]
    assert fetched["sha256"] == net.checksum, "the checksum is another"


def restart(net: Tailnet) -> None:
    net.relay.kill()
    assert net.alice.ping(net.bob, patience=2) is None, "there is another way than the relay"
    net.relay.start()
    both_ways(net)
    bulk(net)


CHECKS: dict[str, Callable[[Tailnet], None]] = {
    "login": login,
    "both ways": both_ways,
    "20 MB": bulk,
    "restart": restart,
}
PINNED = "pinned"
"""The name of the last column: all but the restart, by a certificate known by its hash."""


def play(
    binaries: dict[str, Path], ca: TestCA, folder: Path, release: Release
) -> Iterator[tuple[str, str]]:
    """Yield each column's name, and what is to stand there: yes, or why not."""
    trusted, pinned = folder / "trusted", folder / "pinned"
    for home in (trusted, pinned):
        home.mkdir()
    try:
        with running(serve(ca, trusted), binaries, trusted, release) as net:
            for name, check in CHECKS.items():
                yield name, outcome(check, net)
    except AssertionError as error:
        yield "login", shown(error)
        return
    if not release.knows_pins:
        yield PINNED, "-"
        return
    try:
        with running(serve_pinned(ca, pinned), binaries, pinned, release) as net:
            done = [outcome(check, net) for check in (login, both_ways, bulk)]
            yield PINNED, next((told for told in done if told != "yes"), "yes")
    except AssertionError as error:
        yield PINNED, shown(error)


def running(
    serve: Serve, binaries: dict[str, Path], folder: Path, release: Release
) -> AbstractContextManager[Tailnet]:
    control = tailscales_control(binaries["derpcheck"], folder, old=release.is_old)
    return tailnet_through(serve, binaries, folder, blob_size=SIZE, control=control)


def outcome(check: Callable[[Tailnet], None], net: Tailnet) -> str:
    try:
        check(net)
    except AssertionError as error:
        return shown(error)
    return "yes"


def shown(error: AssertionError) -> str:
    """The first line of what went wrong, as a cell of a table."""
    line = (str(error).splitlines() or ["no"])[0]
    return f"no: {line[:120].replace('|', '/')}"
