import ipaddress

import pytest

from derp.http.access import is_tailscale, may_debug
from derp.http.message import parse_request


def asks(remote: str, *headers: tuple[bytes, bytes]) -> bool:
    fields = [(b"host", b"derp.example"), *headers]
    return may_debug(parse_request(b"GET", b"/debug/", b"1.1", fields, remote))


@pytest.mark.parametrize(
    ("remote", "allowed"),
    [
        ("127.0.0.1", True),
        ("127.255.255.254", True),
        ("128.0.0.1", False),
        ("::1", True),
        ("::2", False),
        ("::ffff:127.0.0.1", True),
        ("::ffff:192.0.2.1", False),
        ("::ffff:100.64.0.1", True),
        ("100.63.255.255", False),
        ("100.64.0.0", True),
        ("100.115.91.255", True),
        ("100.115.92.0", False),
        ("100.115.93.255", False),
        ("100.115.94.0", True),
        ("100.127.255.255", True),
        ("100.128.0.0", False),
        ("fd7a:115c:a1e0::1", True),
        ("fd7a:115c:a1e0:ffff::1", True),
        ("fd7a:115c:a1e1::1", False),
        ("fd7a:115c:a1df:ffff::1", False),
        ("10.0.0.1", False),
        ("192.168.1.1", False),
        ("fe80::1", False),
        ("0.0.0.0", False),
        ("", False),
        ("localhost", False),
    ],
)
def test_remote(remote: str, allowed: bool) -> None:
    assert asks(remote) == allowed


@pytest.mark.parametrize("value", [b"192.0.2.1", b"127.0.0.1"])
def test_nobody_through_a_proxy(value: bytes) -> None:
    assert not asks("127.0.0.1", (b"x-forwarded-for", value))


def test_mapped_addresses_are_not_tailscale_unless_unmapped() -> None:
    assert not is_tailscale(ipaddress.ip_address("::ffff:100.64.0.1"))
