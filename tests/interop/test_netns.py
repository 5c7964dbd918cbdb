"""Namespaces between which only a relay is, whatever the machine itself forwards."""

import contextlib
from collections.abc import Iterator

import pytest

from tests.interop.netns import Namespace, skip_unless_possible
from tests.interop.tailnet import join

FORWARDING = ("/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding")


@pytest.fixture
def middle() -> Iterator[Namespace]:
    """A namespace that forwards, and two that are joined to it."""
    skip_unless_possible("no network between tailscaled here")
    with contextlib.ExitStack() as stack:
        spaces = [Namespace.make() for _ in range(3)]
        for space in spaces:
            stack.callback(space.close)
        for switch in FORWARDING:
            spaces[0].run("sh", "-c", f"echo 1 > {switch}")
        for number, space in enumerate(spaces[1:], start=1):
            join(spaces[0], space, number)
        yield spaces[0]


def test_nothing_is_forwarded_where_the_machine_forwards(middle: Namespace) -> None:
    way = ("10.88.2.2", "from", "10.88.1.2", "iif", "veth1")
    assert "dev veth2" in middle.run("ip", "route", "get", *way)
    middle.forward_nothing()
    with pytest.raises(AssertionError, match="No route to host"):
        middle.run("ip", "route", "get", *way)
    # Asked for a route, the kernel tells one of IPv6 that it would not use.
    assert middle.run("cat", *FORWARDING).split() == ["0", "0"]
