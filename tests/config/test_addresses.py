"""Where to listen: what an operator may write, and what overlaps."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derp.config import Config, flag_table, goflags
from derp.config.addresses import listen_addresses, stun_addresses
from derp.errors import UsageError
from derp.net.listenaddress import Address, ListenAddress, UnixSocket, overlap, without_overlaps

ENVIRON = {"HOME": "/h"}
TLS = ("-hostname", "derp.example", "-certmode", "manual")


def configure(*argv: str) -> Config:
    found = goflags.parse(flag_table(ENVIRON, root=True), argv, ENVIRON)
    return Config.from_settings(found.settings)


def usage_error(*argv: str) -> str:
    with pytest.raises(UsageError) as caught:
        configure(*argv)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def unix(path: str, mode: int = 0o600, user: str = "", group: str = "") -> UnixSocket:
    return UnixSocket(Path(path), mode, user, group)


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        (":443", [Address("", 443)]),
        ("0.0.0.0:443", [Address("0.0.0.0", 443)]),
        ("ipv4@:443", [Address("", 443, 4)]),
        ("ipv4@0.0.0.0:443", [Address("0.0.0.0", 443, 4)]),
        ("ipv6@[::]:443", [Address("::", 443, 6)]),
        ("ipv6@derp.example:443", [Address("derp.example", 443, 6)]),
        ("ipv4@:443, ipv6@:443", [Address("", 443, 4), Address("", 443, 6)]),
        ("192.0.2.1:443,192.0.2.2:443", [Address("192.0.2.1", 443), Address("192.0.2.2", 443)]),
        ("[fe80::1%eth0]:443", [Address("fe80::1%eth0", 443)]),
        ("unix:/run/d", [unix("/run/d")]),
        ("unix:/run/d,mode=0660", [unix("/run/d", 0o660)]),
        (
            "unix:/a,mode=666,user=root,group=www-data,:443 , unix:/b,group=33",
            [unix("/a", 0o666, "root", "www-data"), Address("", 443), unix("/b", group="33")],
        ),
    ],
)
def test_what_may_be_written(text: str, addresses: list[ListenAddress]) -> None:
    assert listen_addresses(text) == tuple(addresses)


def test_the_flag_again_adds_an_address() -> None:
    both = (Address("", 8443), Address("127.0.0.1", 8080))
    assert configure("-a", ":8443", "-a=127.0.0.1:8080").listening.addresses == both
    found = configure("-a", "unix:/s", "-a", "mode=0660", "-a", ":8080").listening.addresses
    assert found == (unix("/s", 0o660), Address("", 8080))
    assert configure("-a", ":1", "-metrics-addr", ":2", "-metrics-addr=unix:/m").monitoring == (
        configure("-a", ":1", "-metrics-addr", ":2,unix:/m").monitoring
    )
    given = configure("-a", ":1", "-stun-addr", "192.0.2.1", "-stun-addr", "[::1]:9")
    assert given.stun_addresses == [Address("192.0.2.1", 3478), Address("::1", 9)]


UNIX = "want unix: and an absolute path of at most 107 bytes"
OPTIONS = "want mode=0660, user=NAME and group=NAME after the path of a unix socket"
FORM = "want :port, ip:port or [ip6]:port, with a port from 0 to 65535, or unix:/path"


@pytest.mark.parametrize(
    ("text", "want"),
    [
        (":443,", f"{FORM}, in place of ''"),
        (":443,junk", f"{FORM}, in place of junk"),
        (":443,mode=0660", f"{FORM}, in place of mode=0660"),
        ("ipv4@[::1]:443", "want an IPv4 address after ipv4@"),
        ("ipv6@0.0.0.0:443", "want an IPv6 address after ipv6@"),
        ("ipv5@:443", FORM),
        ("ipv4@unix:/a", FORM),
        ("[fe80::1]:443", "want the interface of a link-local address: fe80::1%eth0"),
        ("unix:run/d", UNIX),
        ("unix:/" + "\u00fc" * 54, UNIX),
        ("unix:/a,mode=7777", OPTIONS),
        ("unix:/a,mode=rw", OPTIONS),
        ("unix:/a,owner=root", OPTIONS),
        ("unix:/a,user=a b", OPTIONS),
        (":443,:443", "want :443 or :443, not both: they overlap"),
        (":443,127.0.0.1:443", "want 127.0.0.1:443 or :443, not both: they overlap"),
        ("ipv6@:443,[::1]:443", "want [::1]:443 or ipv6@:443, not both: they overlap"),
        ("[::1]:1,[0:0::1]:1", "want [0:0::1]:1 or [::1]:1, not both: they overlap"),
        ("unix:/a,unix:/a,mode=666", "want unix:/a or unix:/a, not both: they overlap"),
    ],
)
def test_what_may_not_is_one_line(text: str, want: str) -> None:
    assert usage_error("-a", text).endswith(f": {want}")


@pytest.mark.parametrize("text", ["ipv4@:443,ipv6@:443", ":443,:444", ":0,:0", "ipv6@:1,1.2.3.4:1"])
def test_what_does_not_overlap(text: str) -> None:
    listen_addresses(text)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ("-a", ":443,127.0.0.1:80", *TLS),
            "-http-port 80 (the default): the port of -a; want another one, or -1 for none",
        ),
        (
            ("-a", "unix:/a", "-metrics-addr", "unix:/a"),
            "-metrics-addr unix:/a: the path of -a; want another one",
        ),
        (
            ("-a", ":8080", "-stun-addr", "*,192.0.2.1:3478"),
            "-stun-addr *,192.0.2.1:3478: want 192.0.2.1:3478 or :3478, not both: they overlap",
        ),
        (
            ("-a", ":8080", "-stun-addr", "192.0.2.1,unix:/a"),
            (
                "-stun-addr 192.0.2.1,unix:/a: want an IP address: STUN tells clients theirs, "
                "and unix sockets have none, in place of unix:/a"
            ),
        ),
        (("-a", ":8080", "-mesh-fwmark", "0x1"), "-mesh-fwmark 0x1: want -mesh-with with it"),
    ],
)
def test_what_does_not_go_together(argv: tuple[str, ...], message: str) -> None:
    assert usage_error(*argv) == message


@pytest.mark.parametrize(
    ("text", "plain", "stun"),
    [
        (":443", [":80"], [":3478"]),
        ("192.0.2.1:443,192.0.2.1:8443", ["192.0.2.1:80"], ["192.0.2.1:3478"]),
        ("192.0.2.1:443,:8443", [":80"], [":3478"]),
        ("ipv4@:443,[::1]:443", ["ipv4@:80", "[::1]:80"], ["ipv4@:3478", "[::1]:3478"]),
        ("unix:/s", [], [":3478"]),
        ("unix:/s,192.0.2.1:443", ["192.0.2.1:80"], ["192.0.2.1:3478"]),
    ],
)
def test_plain_http_and_stun_are_beside_it(text: str, plain: list[str], stun: list[str]) -> None:
    config = configure("-a", text, *TLS)
    assert [str(address) for address in config.plain_addresses] == plain
    assert [str(address) for address in config.stun_addresses] == stun
    assert configure("-a", text, *TLS, "-http-port", "-1").plain_addresses == []
    assert configure("-a", text, *TLS, "-stun=false").stun_addresses == []


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("", []),
        ("*", [":3478"]),
        ("*:9", [":9"]),
        (":9", [":9"]),
        ("ipv4@*", ["ipv4@:3478"]),
        ("ipv6@[::]:9", ["ipv6@[::]:9"]),
        ("192.0.2.1:9, 2001:db8::1", ["192.0.2.1:9", "[2001:db8::1]:3478"]),
        ("fe80::1%eth0,[fe80::1%eth1]:9", ["[fe80::1%eth0]:3478", "[fe80::1%eth1]:9"]),
    ],
)
def test_addresses_for_stun(text: str, addresses: list[str]) -> None:
    assert [str(address.at(3478)) for address in stun_addresses(text)] == addresses


def test_https_is_for_all_or_none() -> None:
    assert configure("-a", ":8443,127.0.0.1:443,unix:/s", "-hostname", "derp.example").serve_tls
    assert not configure("-a", ":8443,unix:/s").serve_tls


HOSTS = st.sampled_from(["", "::", "0.0.0.0", "127.0.0.1", "::1", "a.example"])
ADDRESSES = st.builds(Address, HOSTS, st.sampled_from([0, 1, 2]), st.sampled_from([0, 4, 6]))


@given(ADDRESSES, ADDRESSES)
def test_overlapping_is_mutual(one: Address, other: Address) -> None:
    assert overlap(one, other) == overlap(other, one)
    assert overlap(one, one) == (one.port != 0)


@given(st.lists(ADDRESSES, max_size=5))
def test_of_those_that_overlap_one_stays(addresses: list[Address]) -> None:
    kept = without_overlaps(addresses)
    assert set(kept) <= set(addresses)
    for address in addresses:
        assert address in kept or any(overlap(address, other) for other in kept)


@given(st.text(alphabet=":,@[]%.*=/0148abcdefuinxpv", max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    for check in (listen_addresses, stun_addresses):
        with contextlib.suppress(ValueError):
            for found in check(text):
                assert str(found)
