"""The signs of a proxy, and the default gateways in the tables of Linux."""

import sys
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stun.proxy_signs import (
    _MAX_SENDERS,
    MAX_PAUSE,
    MIN_DURATION,
    MIN_REQUESTS,
    Finding,
    Observation,
    ipv4_gateways,
    ipv6_gateways,
    is_loopback,
)
from tests.stun.routes import IPV4_HEAD, ipv4_route, ipv6_route

GATEWAY = bytes((172, 17, 0, 1))
STEP = MIN_DURATION / (MIN_REQUESTS - 1)
"""Seconds between the requests of a sender that lasts as soon as one can."""


def seen(requests: Iterable[tuple[float, int]]) -> list[Finding]:
    """Show requests, by time and port; return what was found after each."""
    observation = Observation(GATEWAY)
    return [
        observation.observe(GATEWAY, port.to_bytes(2, "big"), now) for now, port in sorted(requests)
    ]


def sender(port: int, start: float, count: int, every: float) -> list[tuple[float, int]]:
    return [(start + every * number, port) for number in range(count)]


def test_two_lasting_senders_are_a_sign() -> None:
    requests = sender(1, 0.0, MIN_REQUESTS, STEP) + sender(2, 1.0, MIN_REQUESTS, STEP)
    findings = seen(requests)
    assert findings == [Finding.UNSURE] * (2 * MIN_REQUESTS - 1) + [Finding.PROXIED]


def test_clients_with_the_timing_of_tailscale_are_a_sign() -> None:
    requests = [request for port in range(5) for request in sender(port, port * 7.0, 20, 23.0)]
    assert Finding.PROXIED in seen(requests)


def test_one_sender_is_no_sign() -> None:
    """The tailscaled of this machine."""
    assert set(seen(sender(41641, 0.0, 10_000, 23.0))) == {Finding.UNSURE}


@pytest.mark.parametrize("every", [1.0, 30.0, 60.0])
def test_health_checks_are_no_sign(every: float) -> None:
    """Each asks from another port; beside them is the tailscaled of this machine."""
    checks = [(number * every, 10_000 + number) for number in range(2000)]
    own = sender(41641, 0.5, 1000, 23.0)
    assert set(seen(checks + own)) == {Finding.UNSURE}


def test_health_checks_without_a_response_are_no_sign() -> None:
    checks = [
        request for number in range(100) for request in sender(number, number * 30.0, 10, 0.5)
    ]
    assert set(seen(checks)) == {Finding.UNSURE}


def test_requests_in_a_short_time_are_no_sign() -> None:
    short = (MIN_DURATION - 1) / 100
    requests = sender(1, 0.0, 100, short) + sender(2, 0.0, 100, short)
    assert set(seen(requests)) == {Finding.UNSURE}


def test_few_requests_are_no_sign() -> None:
    few, every = MIN_REQUESTS - 1, MAX_PAUSE - 1
    assert set(seen(sender(1, 0.0, few, every) + sender(2, 1.0, few, every))) == {Finding.UNSURE}


def test_a_port_may_be_another_clients_after_a_pause() -> None:
    requests = sender(1, 0.0, 50, MAX_PAUSE + 1) + sender(2, 1.0, 50, MAX_PAUSE + 1)
    assert set(seen(requests)) == {Finding.UNSURE}


def test_lasting_senders_one_after_the_other_are_no_sign() -> None:
    long = MIN_REQUESTS * STEP
    after = [
        request
        for number in range(20)
        for request in sender(number, number * (long + MAX_PAUSE + 1), MIN_REQUESTS, STEP)
    ]
    assert set(seen(after)) == {Finding.UNSURE}


def test_another_address_is_a_sign_against_a_proxy() -> None:
    observation = Observation(GATEWAY)
    assert observation.observe(GATEWAY, b"\0\1", 0.0) is Finding.UNSURE
    assert observation.observe(bytes((172, 17, 0, 2)), b"\0\1", 0.1) is Finding.DIRECT


def test_some_of_many_senders_are_recorded() -> None:
    """A busy relay: more senders than there is room for, none of which is slow."""
    ports = 50 * _MAX_SENDERS
    requests = [request for port in range(ports) for request in sender(port, port * 0.02, 6, 23.0)]
    observation = Observation(GATEWAY)
    findings = set()
    for now, port in sorted(requests):
        findings.add(observation.observe(GATEWAY, port.to_bytes(2, "big"), now))
        assert len(observation._senders) <= _MAX_SENDERS
    assert Finding.PROXIED in findings


def test_senders_that_stopped_make_room() -> None:
    checks = [(number * 0.1, 10_000 + number) for number in range(_MAX_SENDERS)]
    later = MAX_PAUSE + 2
    requests = sender(1, later, MIN_REQUESTS, STEP) + sender(2, later, MIN_REQUESTS, STEP)
    assert seen(checks + requests)[-1] is Finding.PROXIED


@given(
    st.lists(st.tuples(st.floats(0, 1000), st.integers(1, 5)), max_size=60),
)
def test_a_sign_needs_enough_lasting_senders(requests: list[tuple[float, int]]) -> None:
    requests.sort()
    findings = seen(requests)
    if Finding.PROXIED in findings:
        until = requests[: findings.index(Finding.PROXIED) + 1]
        lasting = 0
        for port in {port for _, port in until}:
            times = [now for now, each in until if each == port]
            lasting += len(times) >= MIN_REQUESTS and times[-1] - times[0] >= MIN_DURATION
        assert lasting >= 2


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", True),
        ("127.255.255.254", True),
        ("128.0.0.1", False),
        ("10.0.0.127", False),
        ("::1", True),
        ("::", False),
        ("::127.0.0.1", False),
        ("7f00::1", False),
        ("2001:db8::1", False),
    ],
)
def test_loopback(address: str, expected: bool) -> None:
    assert is_loopback(ip_address(address).packed) is expected


# /proc/net/route


def ipv4(*addresses: str) -> set[bytes]:
    return {IPv4Address(address).packed for address in addresses}


@pytest.mark.skipif(sys.byteorder != "little", reason="these bytes are of a little-endian machine")
def test_a_containers_routes_as_linux_writes_them() -> None:
    table = (
        IPV4_HEAD + b"eth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\t0\t0\t0        \n"
        b"eth0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0        \n"
    )
    assert ipv4_gateways(table) == ipv4("172.17.0.1")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], set()),
        ([ipv4_route("172.17.0.1")], {"172.17.0.1"}),
        ([ipv4_route("192.0.2.1"), ipv4_route("192.0.2.2")], {"192.0.2.1", "192.0.2.2"}),
        ([ipv4_route("192.0.2.1", interface=b"br-0123456789ab")], {"192.0.2.1"}),
        ([ipv4_route("192.0.2.1", interface=b"00000000")], {"192.0.2.1"}),
        # A metric from 2^31 on; Linux prints it with a sign.
        ([ipv4_route("192.0.2.1", metric=-16769024)], {"192.0.2.1"}),
        ([ipv4_route("192.0.2.1", flags=0x10003)], {"192.0.2.1"}),
        # A way to a network, an interface without a gateway, down, rejected
        ([ipv4_route("192.0.2.1", to="10.0.0.0", mask="255.0.0.0")], set()),
        ([ipv4_route("192.0.2.1", mask="128.0.0.0")], set()),
        ([ipv4_route("0.0.0.0", flags=1)], set()),
        ([ipv4_route("192.0.2.1", flags=2)], set()),
        ([ipv4_route("192.0.2.1", flags=0x203)], set()),
        ([ipv4_route("192.0.2.1")[:40]], set()),
    ],
)
def test_ipv4_gateways(lines: list[bytes], expected: set[str]) -> None:
    assert ipv4_gateways(IPV4_HEAD + b"".join(lines)) == ipv4(*expected)


ipv4_addresses = st.ip_addresses(v=4).map(str)


@given(st.lists(st.tuples(ipv4_addresses, ipv4_addresses), max_size=5))
def test_only_default_gateways_are_returned(routes: list[tuple[str, str]]) -> None:
    table = IPV4_HEAD + b"".join(
        ipv4_route(gateway, to=to, mask=to) + ipv4_route(gateway) for to, gateway in routes
    )
    assert ipv4_gateways(table) == ipv4(*(gateway for _, gateway in routes))


# /proc/net/ipv6_route

NOWHERE = b"%b 00 %b 00 %b ffffffff 00000001 00000000 00200200       lo\n" % ((b"0" * 32,) * 3)
LOCAL = (
    b"fd000000000000000000000000000000 40 00000000000000000000000000000000 00 "
    b"00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0\n"
)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], set()),
        ([LOCAL, NOWHERE], set()),
        ([ipv6_route("fd00::1")], {"fd00::1"}),
        ([LOCAL, ipv6_route("fe80::1", flags=0x00450003), NOWHERE], {"fe80::1"}),
        ([ipv6_route("fd00::1"), ipv6_route("fd00::2")], {"fd00::1", "fd00::2"}),
        # A way to a network, an interface without a gateway, down, rejected
        ([ipv6_route("fd00::1", to="2001:db8::", length=32)], set()),
        ([ipv6_route("fd00::1", length=1)], set()),
        ([ipv6_route("::", flags=1)], set()),
        ([ipv6_route("fd00::1", flags=2)], set()),
        ([ipv6_route("fd00::1", flags=0x203)], set()),
        ([ipv6_route("fd00::1")[:100]], set()),
    ],
)
def test_ipv6_gateways(lines: list[bytes], expected: set[str]) -> None:
    assert ipv6_gateways(b"".join(lines)) == {IPv6Address(each).packed for each in expected}


@given(st.binary())
def test_any_bytes_parse_to_addresses_or_none(table: bytes) -> None:
    assert {len(address) for address in ipv4_gateways(table)} <= {4}
    assert {len(address) for address in ipv6_gateways(table)} <= {16}


good = ipv4_route("192.0.2.1") + ipv6_route("fd00::1")


@given(st.integers(0, len(good) - 1), st.binary(max_size=3))
def test_a_damaged_table_parses_to_addresses_or_none(at: int, piece: bytes) -> None:
    table = good[:at] + piece + good[at + len(piece) :]
    assert {len(address) for address in ipv4_gateways(table)} <= {4}
    assert {len(address) for address in ipv6_gateways(table)} <= {16}
