import ipaddress
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derp.http.bootstrap_dns import (
    MAX_QUERIED,
    BootstrapDNS,
    Name,
    Record,
    in_share,
    parse_names,
    parse_percent,
)

REMOTE = "192.0.2.7"


def counts(directory: BootstrapDNS) -> dict[str, int]:
    names = (
        "requests",
        "published_hits",
        "published_misses",
        "unpublished_hits",
        "unpublished_misses",
        "unpublished_percent_misses",
        "queried_domains",
    )
    return {name: count for name in names if (count := getattr(directory, name))}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", ()),
        (" , ,", ()),
        ("a.example", (Name("a.example"),)),
        ("a.example.", (Name("a.example."),)),
        ("a,b/_p.c", (Name("a"), Name("b", "_p.c"))),
        (" a , b/c ", (Name("a"), Name("b", "c"))),
        ("bücher.example", (Name("bücher.example"),)),
    ],
)
def test_parse_names(text: str, names: tuple[Name, ...]) -> None:
    assert parse_names(text) == names


@pytest.mark.parametrize(
    "part",
    [
        "/a",
        "a/",
        "a/b/c",
        "a..b",
        ".a",
        "a b",
        "https://a",
        "a:53",
        "*.a",
        "x" * 64,
        ".".join(["x" * 50] * 6),
        "a/" + "x" * 64,
        "\ud800",
    ],
)
def test_parse_names_that_are_none(part: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        parse_names(f"good,{part}")
    assert str(caught.value) == part


def test_nothing_known() -> None:
    directory = BootstrapDNS()
    assert json.loads(directory.answer("", REMOTE)) == {}
    assert json.loads(directory.answer("q=a", REMOTE)) == {}
    assert counts(directory) == {"requests": 2, "unpublished_misses": 1, "queried_domains": 1}


def test_form_is_that_of_go() -> None:
    directory = BootstrapDNS()
    directory.publish("b", Record(("192.0.2.1",)))
    directory.publish("a", Record(("192.0.2.2", "2001:db8::1")))
    expected = (
        '{\n\t"a": [\n\t\t"192.0.2.2",\n\t\t"2001:db8::1"\n\t],\n\t"b": [\n\t\t"192.0.2.1"\n\t]\n}'
    )
    assert directory.answer("", REMOTE) == expected.encode()


def test_published() -> None:
    directory = BootstrapDNS()
    directory.publish("a", Record(("192.0.2.1",)))
    directory.publish("empty", Record(()))
    everything = directory.answer("", REMOTE)
    for query in ("q=a", "q=empty", "q=", "x=a", "q=&q=a", "%zz", "q=b&q=a"):
        assert directory.answer(query, REMOTE) == everything
    assert counts(directory) == {
        "requests": 8,
        "published_hits": 1,
        "published_misses": 1,
        "unpublished_misses": 1,
        "queried_domains": 3,
    }


def test_unpublished_is_told_by_name_only() -> None:
    directory = BootstrapDNS()
    directory.publish("a", Record(("192.0.2.1",)))
    directory.add_unpublished("secret", Record(("192.0.2.9",)))
    directory.add_unpublished("unknown-yet", Record(()))
    assert json.loads(directory.answer("", REMOTE)) == {"a": ["192.0.2.1"]}
    assert json.loads(directory.answer("q=%73ecret", REMOTE)) == {"secret": ["192.0.2.9"]}
    assert json.loads(directory.answer("q=unknown-yet", REMOTE)) == {"a": ["192.0.2.1"]}
    assert counts(directory) == {
        "requests": 3,
        "unpublished_hits": 1,
        "unpublished_misses": 1,
        "queried_domains": 2,
    }


def test_unpublished_to_nobody() -> None:
    directory = BootstrapDNS()
    directory.add_unpublished("secret", Record(("192.0.2.9",), share=0.0))
    assert json.loads(directory.answer("q=secret", REMOTE)) == {}
    assert counts(directory) == {
        "requests": 1,
        "unpublished_hits": 1,
        "unpublished_percent_misses": 1,
        "unpublished_misses": 1,
        "queried_domains": 1,
    }


def test_names_asked_for_are_bounded() -> None:
    directory = BootstrapDNS()
    for number in range(MAX_QUERIED):
        directory.answer(f"q={number}", REMOTE)
        directory.answer("q=0", REMOTE)
    assert directory.queried_domains == MAX_QUERIED
    directory.answer(f"q={'x' * 254}", REMOTE)
    assert directory.queried_domains == MAX_QUERIED
    directory.answer("q=new", REMOTE)
    assert directory.queried_domains == 0


@given(st.ip_addresses(), st.floats(0, 1), st.floats(0, 1))
def test_share_only_grows(address: ipaddress.IPv4Address, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert in_share(str(address), low) <= in_share(str(address), high)
    assert not in_share(str(address), 0.0)
    assert in_share(str(address), 1.0)


def test_share_is_about_right() -> None:
    addresses = [f"10.1.{a}.{b}" for a in range(16) for b in range(256)]
    taken = sum(in_share(address, 0.25) for address in addresses)
    assert 0.2 < taken / len(addresses) < 0.3


def test_share_of_what_is_no_address() -> None:
    assert not in_share("", 0.99)
    assert in_share("", 1.0)


@pytest.mark.parametrize(
    ("texts", "share"),
    [
        ([], 0.0),
        (["0"], 0.0),
        (["50"], 0.5),
        (["100"], 1.0),
        (["101"], 0.0),
        (["-1"], 0.0),
        (["1e1"], 0.0),
        (["٣"], 0.0),
        ([" 5"], 0.0),
        (["5\n"], 0.0),
        (["v=spf1", "7", "nonsense"], 0.07),
        (["7", "8"], 0.08),
    ],
)
def test_parse_percent(texts: list[str], share: float) -> None:
    assert parse_percent(texts) == share


@given(st.text(), st.text())
def test_any_query(query: str, remote: str) -> None:
    directory = BootstrapDNS()
    directory.publish("a", Record(("192.0.2.1",)))
    assert json.loads(directory.answer(query, remote)) == {"a": ["192.0.2.1"]}
