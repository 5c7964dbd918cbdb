"""-verify-clients beside real tailscaled: a current one, alice's, and an old one, bob's.

The relay between them, through which they talk, asks alice's; others, on loopback, ask either. The
tailnet has members more, whose keys the tests know, and for which nothing runs; a verdict is
remembered, so each is asked about once.
"""

import os
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.interop import golang
from tests.interop.gated import gated, verdict_there
from tests.interop.logins import (
    ADMITTED,
    REFUSED,
    log_in,
    pass_packet,
    verdict,
    wait_for_end,
)
from tests.interop.netns import skip_unless_possible
from tests.interop.rawderp import SERVER, Key, Wire
from tests.interop.relay import Relay, TestCA, running, write_key_file
from tests.interop.tailnet import (
    REGION,
    Node,
    Tailnet,
    eventually,
    expel,
    tailnet_through,
    tailscales_control,
)
from tests.support.derp import upgrade_request

MEMBERS = [Key.named(f"member {number}") for number in range(20)]


@pytest.fixture(scope="module")
def net(
    under_test: list[str],
    binaries: dict[str, Path],
    test_ca: TestCA,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Tailnet]:
    skip_unless_possible("no real tailscaled here")
    folder = tmp_path_factory.mktemp("verify")

    flags = ["-verify-clients", "-socket", str(folder / "alice/socket")]
    serve = gated(under_test, test_ca, folder, *flags)
    control = tailscales_control(binaries["derpcheck"], folder, MEMBERS)
    old = golang.build(golang.OLD)
    with tailnet_through(
        serve, binaries, folder, blob_size=1000, control=control, bobs=old
    ) as running_net:
        yield running_net


def asking(node: Node, command: Sequence[str], folder: Path, *flags: str) -> Relay:
    """A relay on loopback that asks this node's tailscaled."""
    folder.mkdir()
    write_key_file(folder / "derper.key", SERVER.private)
    asked = ["-verify-clients", "-socket", str(node.socket), *flags]
    return Relay("relay", command, folder, tls=False, flags=asked)


@pytest.fixture(scope="module")
def member(net: Tailnet) -> Callable[[], Key]:
    """Gives a member that nobody has been asked about."""
    fresh = iter(MEMBERS)
    return lambda: next(fresh)


@pytest.fixture(params=["alice", "bob"], ids=["current", "old"])
def beside(net: Tailnet, request: pytest.FixtureRequest) -> Node:
    """The node whose tailscaled is asked."""
    node: Node = getattr(net, request.param)
    return node


def stranger() -> Key:
    return Key.named(f"stranger {os.urandom(8).hex()}")


def knows_members(node: Node) -> bool:
    """Whether it is as it should be: logged in, and told of the members."""
    status = node.tailscale("status", "--json").stdout
    return MEMBERS[0].public.hex() in status and '"BackendState": "Running"' in status


def test_members_talk_and_a_stranger_does_not(
    net: Tailnet, test_ca: TestCA, member: Callable[[], Key]
) -> None:
    """Alice is the relay's own node, and bob's tailscaled is an old one."""
    for one, other in ((net.alice, net.bob), (net.bob, net.alice)):
        eventually("a ping comes back", 60, lambda o=one, t=other: o.ping(t, 2) is not None)
        assert f"via DERP({REGION})" in str(one.ping(other))
    assert verdict_there(net, test_ca, member()) == ADMITTED
    assert verdict_there(net, test_ca, stranger()) == REFUSED


def test_the_old_one_is_too_old(net: Tailnet) -> None:
    """Otherwise it shows nothing."""
    target = f"/localapi/v0/whois?addr=nodekey:{MEMBERS[0].public.hex()}"
    for node, status in ((net.alice, 200), (net.bob, 400)):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(node.socket))
            wire = Wire(sock)
            wire.send(upgrade_request(path=target, host="local-tailscaled.sock"))
            assert wire.take_response().status == status


def test_who_is_known(
    beside: Node,
    net: Tailnet,
    under_test: list[str],
    is_go: bool,
    member: Callable[[], Key],
    tmp_path: Path,
    differences: list[str],
) -> None:
    """And what the Go derper says of them."""
    who = {"a member": member(), "alice": net.alice.key(), "bob": net.bob.key()}
    ours = asking(beside, under_test, tmp_path / "ours")
    theirs = asking(beside, [str(net.binaries["derper"])], tmp_path / "theirs")
    with running(ours), running(theirs):
        for name, key in who.items():
            expected = verdict(theirs, key)
            if expected == REFUSED and not is_go:
                assert beside is net.bob
                differences.append(f"verify: of an old tailscaled's tailnet, {name} is admitted")
                expected = ADMITTED
            assert verdict(ours, key) == expected, ours.log
        assert verdict(ours, stranger()) == verdict(theirs, stranger()) == REFUSED


@pytest.mark.parametrize("how", [Node.stop, Node.kill])
def test_restarted(
    beside: Node,
    how: Callable[[Node], None],
    under_test: list[str],
    is_go: bool,
    member: Callable[[], Key],
    tmp_path: Path,
) -> None:
    """Nothing is done to the relay, and who is in stays in."""
    if is_go and beside.name == "bob":
        pytest.skip("the Go derper can't ask an old tailscaled")
    flags = [] if is_go else ["-verify-again", "1s"]
    relay = asking(beside, under_test, tmp_path / "relay", *flags)
    with running(relay):
        inside, newcomer = member(), member()
        wire = log_in(relay, inside)
        how(beside)
        try:
            assert verdict(relay, member()) == REFUSED
            if not is_go:
                gone = relay.wait_for_log(rf".*-socket {re.escape(str(beside.socket))}: .*")[0]
                assert "start tailscaled, or name its socket" in gone
        finally:
            beside.start()
        eventually("tailscaled knows its tailnet", 30, lambda: knows_members(beside))
        with closing(wire), closing(log_in(relay, newcomer)) as other:
            pass_packet(other, newcomer, wire, inside)
            pass_packet(wire, inside, other, newcomer)


def test_expelled(
    net: Tailnet,
    under_test: list[str],
    is_go: bool,
    member: Callable[[], Key],
    tmp_path: Path,
) -> None:
    """Whoever is in the tailnet no longer is disconnected, by the word of either tailscaled."""
    if is_go:
        pytest.skip("the Go derper asks at login only")
    relays = [
        asking(node, under_test, tmp_path / node.name, "-verify-again", "1s")
        for node in (net.alice, net.bob)
    ]
    leaver, stays = member(), member()
    with ExitStack() as stack:
        for relay in relays:
            stack.enter_context(running(relay))
        inside = [
            [stack.enter_context(closing(log_in(relay, key))) for key in (leaver, stays)]
            for relay in relays
        ]
        expel(net, leaver)
        for relay, (leaving, staying) in zip(relays, inside, strict=True):
            wait_for_end(leaving)
            assert relay.wait_for_log(r".*no longer admitted by tailscaled.*")
            assert verdict(relay, leaver) == REFUSED
            pass_packet(staying, stays, staying, stays)
