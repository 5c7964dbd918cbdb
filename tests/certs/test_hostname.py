from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certs.hostname import file_stem, is_among, is_covered, parse_ip


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8::7", "2001:db8::7"),
        ("2001:DB8:0::7", "2001:db8::7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
    ],
)
def test_an_address_is_recognised(text, address):
    assert parse_ip(text) == ip_address(address)


@pytest.mark.parametrize(
    "text",
    ["", "relay.example", "192.0.2", "192.0.2.07", "[2001:db8::7]", "fe80::1%eth0", "1", "0x7f.1"],
)
def test_anything_else_is_a_name(text):
    assert parse_ip(text) is None


@pytest.mark.parametrize(
    ("hostname", "stem"),
    [
        ("relay.example", "relay.example"),
        ("relay-1.Example.", "relay-1.Example."),
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8::7", "2001db87"),
        ("under_score.example", "underscore.example"),
        ("../../etc/passwd", "....etcpasswd"),
        ("bücher.example", "bcher.example"),
        ("relay.example\n", "relay.example"),
        ("*.relay.example", "_.relay.example"),
    ],
)
def test_files_are_named_as_go_names_them(hostname, stem):
    assert file_stem(hostname) == stem


@given(st.text())
def test_no_hostname_leaves_the_directory(hostname):
    assert not set(file_stem(hostname)) & set("/\\\0")


def test_names_are_the_same_whatever_their_case_and_final_dot():
    assert is_among("Relay.EXAMPLE", ["relay.example"])
    assert is_among("relay.example.", ["other.example", "Relay.Example"])
    assert not is_among("relay.example", ["relay.example.org"])


def test_a_wildcard_stands_for_one_label():
    names = ["relay.example", "*.Relay.example"]
    assert is_among("a.relay.EXAMPLE.", names)
    for other in ("a.b.relay.example", ".relay.example", "xrelay.example", "example", ""):
        assert not is_among(other, names), other


@pytest.mark.parametrize(
    ("hostname", "covered"),
    [
        ("relay.example", True),
        ("RELAY.example.", True),
        ("other.example", False),
        ("a.wild.example", True),
        ("A.WILD.EXAMPLE", True),
        ("a.b.wild.example", False),
        ("wild.example", False),
        (".wild.example", False),
        ("*.wild.example", True),
        ("partial1.example", False),
        ("192.0.2.7", True),
        ("192.0.2.8", False),
        ("192.0.2.9", False),
        ("::ffff:192.0.2.7", True),
        ("2001:0db8::7", True),
        ("", False),
        (".", False),
    ],
)
def test_which_hosts_a_certificate_covers(hostname, covered):
    dns_names = ["Relay.Example", "*.wild.example", "partial*.example", "*", "192.0.2.9"]
    addresses = [ip_address("192.0.2.7"), ip_address("2001:db8::7")]
    assert is_covered(hostname, dns_names, addresses) is covered
