import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derp.relay.networks import LOOPBACK, UNIX, is_in, is_private, network_of, site_of


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("192.0.2.7", "192.0.2.0/24"),
        ("127.0.1.255", "127.0.1.0/24"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8::1", "2001:db8::/64"),
        ("::1", "::/64"),
        ("::ffff:192.0.2.7", "192.0.2.0/24"),
        ("::ffff:c000:207", "192.0.2.0/24"),
    ],
)
def test_the_network_of_an_address(host: str, network: str) -> None:
    assert network_of(host) == network


@given(st.ip_addresses())
def test_it_is_the_one_that_the_address_is_in(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address
    network = ipaddress.ip_network(network_of(str(address)))
    assert address in network
    assert network.prefixlen == (24 if address.version == 4 else 64)


@pytest.mark.parametrize(
    ("network", "site"),
    [
        ("192.0.2.0/24", "192.0.2.0/24"),
        ("2001:db8:1:2::/64", "2001:db8:1::/48"),
        ("2001:db8:1::/64", "2001:db8:1::/48"),
        ("::/64", "::/48"),
    ],
)
def test_the_site_of_a_network(network: str, site: str) -> None:
    assert site_of(network) == site


@pytest.mark.parametrize(
    ("host", "inside"),
    [
        ("10.0.0.0", True),
        ("10.255.0.1", True),
        ("::ffff:10.1.2.3", True),
        ("11.0.0.1", False),
        ("2001:db8::7", True),
        ("2001:db9::7", False),
        ("::a00:1", False),
    ],
)
def test_being_in_a_network(host: str, inside: bool) -> None:
    networks = [ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("2001:db8::/32")]
    assert is_in(host, networks) is inside
    assert not is_in(host, [])


def test_loopback_is_one_address_of_each_family() -> None:
    assert all(ipaddress.ip_address(host).version for host in LOOPBACK - {UNIX})
    assert "127.0.1.1" not in LOOPBACK


def test_a_peer_of_a_unix_socket_is_its_own_network() -> None:
    assert UNIX in LOOPBACK
    assert site_of(network_of(UNIX)) == network_of(UNIX) == UNIX
    assert is_private(UNIX)
    everywhere = [ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")]
    assert not is_in(UNIX, everywhere)
    assert is_in(UNIX, [*everywhere, UNIX])
    assert not is_in("192.0.2.7", [UNIX])
    assert is_in("192.0.2.7", [UNIX, *everywhere])
