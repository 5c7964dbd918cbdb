"""-isolate with two real tailnets on one relay, each with a tailscaled that the relay asks.

Alice's and bob's tailnet is one, carol's and dave's the other. Both have members more, for which
nothing runs, and whose keys the tests know: they try what no tailscaled would, to reach the others.
"""

import base64
import re
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, closing
from itertools import permutations
from pathlib import Path

import attrs
import pytest

from tests.interop.gated import HOSTNAME, gated, verdict_there
from tests.interop.logins import ADMITTED, REFUSED, hello, verdict_of
from tests.interop.netns import Namespace, skip_unless_possible
from tests.interop.rawderp import Key, SilentError, Wire
from tests.interop.relay import TestCA
from tests.interop.tailnet import (
    CONTROL_PORT,
    REGION,
    RELAY_4,
    Node,
    Served,
    Tailnet,
    eventually,
    join,
    start_node,
    tailnet_through,
    tailscales_control,
)
from tests.support.derp import PEER_GONE, RECV_PACKET, SEND_PACKET, frame

DISCO = bytes.fromhex("5453f09f92ac") + bytes(94)
OTHER_PORT = CONTROL_PORT + 1
MEMBERS = [[Key.named(f"member {n} of tailnet {place}") for n in range(2)] for place in range(2)]


@attrs.frozen
class Two:
    net: Tailnet
    carol: Node
    dave: Node


@pytest.fixture(scope="module")
def two(
    under_test: list[str],
    binaries: dict[str, Path],
    test_ca: TestCA,
    tmp_path_factory: pytest.TempPathFactory,
    is_go: bool,
) -> Iterator[Two]:
    if is_go:
        pytest.skip("the Go derper can't keep tailnets apart")
    skip_unless_possible("no real tailscaled here")
    folder = tmp_path_factory.mktemp("two")
    (folder / "other").mkdir()
    flags = ["-verify-clients", "-isolate", "-verify-again", "1s"]
    for name in ("alice", "carol"):
        flags += ["-socket", str(folder / name / "socket")]
    serve = gated(under_test, test_ca, folder, *flags)
    control = tailscales_control(binaries["derpcheck"], folder, MEMBERS[0])
    with (
        tailnet_through(serve, binaries, folder, blob_size=1000, control=control) as net,
        ExitStack() as stack,
    ):
        node = {
            "Name": "900a",
            "HostName": HOSTNAME,
            "IPv4": RELAY_4,
            "DERPPort": net.relay.port,
            "STUNPort": net.relay.stun_port,
        }
        other = tailscales_control(
            binaries["derpcheck"], folder / "other", MEMBERS[1], port=OTHER_PORT
        )
        stack.enter_context(other(net.middle, node))
        served = Served(net.relay, test_ca.pem, {})
        nodes = []
        for number, name in enumerate(("carol", "dave"), start=3):
            space = Namespace.make()
            stack.callback(space.close)
            join(net.middle, space, number)
            one = start_node(name, space, folder, binaries, served, OTHER_PORT)
            stack.callback(one.kill)
            nodes.append(one)
        for one in nodes:
            one.up()
        yield Two(net, *nodes)


def log_in(net: Tailnet, ca: TestCA, key: Key) -> Wire:
    """A member of a tailnet that says what it likes."""
    sock = net.middle.connect((RELAY_4, net.relay.port))
    tls = ssl.create_default_context(cafile=ca.pem)
    wire = Wire(tls.wrap_socket(sock, server_hostname=HOSTNAME))
    wire.send(hello(key))
    assert verdict_of(wire) == ADMITTED
    return wire


def test_each_tailnet_reaches_its_own(two: Two) -> None:
    net = two.net
    pairs = [(net.alice, net.bob), (net.bob, net.alice), (two.carol, two.dave)]
    for one, other in pairs:
        eventually("a ping comes back", 90, lambda o=one, t=other: o.ping(t, 2) is not None)
        assert f"via DERP({REGION})" in str(one.ping(other))
    assert net.fetch()


def test_and_not_the_others(two: Two, test_ca: TestCA) -> None:
    """Whoever tries is told what it would be told of one that is not connected."""
    net = two.net
    keys = [key for members in MEMBERS for key in members]
    before = net.varz('derp_packets_dropped{reason="isolated",kind="other"}')
    with ExitStack() as stack:
        wires = {key: stack.enter_context(closing(log_in(net, test_ca, key))) for key in keys}
        for one, other in permutations(keys, 2):
            together = any({one, other} <= {*members} for members in MEMBERS)
            wires[one].send(frame(SEND_PACKET, other.public + b"hello"))
            if together:
                assert wires[other].take_frame() == (RECV_PACKET, one.public + b"hello")
            else:
                wires[one].send(frame(SEND_PACKET, other.public + DISCO))
                assert wires[one].take_frame() == (PEER_GONE, other.public + b"\x01")
                with pytest.raises(SilentError):
                    wires[other].take_frame(0.2)
    after = net.varz('derp_packets_dropped{reason="isolated",kind="other"}')
    assert after == before + 8
    # Real tailscaleds of the other tailnet, too, are out of reach.
    with closing(log_in(net, test_ca, MEMBERS[0][0])) as wire:
        for node, there in ((net.alice, True), (two.carol, False)):
            wire.send(frame(SEND_PACKET, node.key().public + DISCO))
            if not there:
                assert wire.take_frame() == (PEER_GONE, node.key().public + b"\x01")


def test_a_stranger_is_in_neither(two: Two, test_ca: TestCA) -> None:
    assert verdict_there(two.net, test_ca, Key.named("a stranger")) == REFUSED
    names = ", ".join(f"tailscaled:{one.socket}" for one in (two.net.alice, two.carol))
    two.net.relay.wait_for_log(rf"is refused by {names}: not known to tailscaled")


def test_the_log_names_the_tailscaled(two: Two) -> None:
    for node, beside in ((two.net.bob, two.net.alice), (two.dave, two.carol)):
        short = base64.b64encode(node.key().public[:4])[:5].decode()
        two.net.relay.wait_for_log(
            rf"msg=joined.*client=\[{re.escape(short)}\].*source=tailscaled:{beside.socket}"
        )


def test_one_tailscaled_is_enough(two: Two, test_ca: TestCA) -> None:
    """While one is down, the other tailnet comes in as before."""
    two.carol.stop()
    try:
        assert verdict_there(two.net, test_ca, MEMBERS[0][1]) == ADMITTED
        eventually("a ping comes back", 60, lambda: two.net.alice.ping(two.net.bob) is not None)
    finally:
        two.carol.start()
