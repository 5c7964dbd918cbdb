"""Certificates for IP addresses: each for the address that a connection has come to."""

import socket
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from tests.interop.issuing import (
    INTERNAL_ERROR,
    RECORD_ALERT,
    RECORD_HANDSHAKE,
    UNRECOGNIZED_NAME_ALERT,
    Shaken,
    acme_relay,
    answer_to_name,
    issued,
    shake,
    shake_with,
)
from tests.interop.pebble import Pebble
from tests.interop.relay import Relay, running
from tests.support.waiting import until

HERE, ALSO_HERE, ELSEWHERE = "127.0.0.21", "127.0.0.22", "127.0.0.29"


def for_address(relay: Relay, authority: Pebble, address: str) -> Shaken:
    """Wait for the certificate that clients get who connect to this address."""
    until("there is one", lambda: shake((address, relay.port), address).chain)
    return shake((address, relay.port), address, authority.trust())


def names_of(leaf: x509.Certificate) -> set[str]:
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(name.value) for name in names}


def is_short_lived(leaf: x509.Certificate) -> bool:
    return leaf.not_valid_after_utc - leaf.not_valid_before_utc < timedelta(days=7)


def test_each_when_the_first_client_comes(
    under_test: list[str], authority: Pebble, tmp_path: Path
) -> None:
    relay = acme_relay(
        *(under_test, tmp_path, authority, "derp.test", HERE, "-acme-ip-certs"), listen=""
    )
    with running(relay):
        by_name = issued(relay, authority)
        assert names_of(by_name.leaf) == {"derp.test"}
        orders = authority.orders

        for address in (HERE, ALSO_HERE):
            assert shake((address, relay.port), address).alert == INTERNAL_ERROR
            by_address = for_address(relay, authority, address)
            assert names_of(by_address.leaf) == {address}
            assert is_short_lived(by_address.leaf)
            assert relay.certdir.joinpath(address).is_file()
        assert authority.orders == orders + 2

        here = (HERE, relay.port)
        foreign = answer_to_name(here, ELSEWHERE)
        assert foreign[0] == RECORD_ALERT
        assert foreign[-2:] == UNRECOGNIZED_NAME_ALERT
        assert answer_to_name(here, ALSO_HERE) == foreign
        assert answer_to_name(here, HERE)[0] == RECORD_HANDSHAKE
        assert shake_with(relay).chain == by_name.chain
        assert authority.orders == orders + 2


def test_the_addresses_of_a_server_behind_nat(
    under_test: list[str], authority: Pebble, tmp_path: Path
) -> None:
    """They share one certificate, had at start, and clients get it wherever they arrive."""
    named, also_named = "::1", "127.0.0.23"
    try:
        socket.create_server((named, 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    flags = ("-acme-ip-certs", "-acme-ip-addresses", f"{named},{also_named}")
    relay = acme_relay(under_test, tmp_path, authority, named, named, *flags, listen="")
    orders = authority.orders
    with running(relay):
        first = issued(relay, authority)
        assert names_of(first.leaf) == {named, also_named}
        assert is_short_lived(first.leaf)
        assert for_address(relay, authority, also_named).chain == first.chain
        assert authority.orders == orders + 1
        assert (relay.certdir / "..1").is_file()
    with authority.held(), running(relay):
        assert shake_with(relay).chain == first.chain
