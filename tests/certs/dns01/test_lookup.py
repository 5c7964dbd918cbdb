"""Where a record belongs, and who shows it."""

from collections.abc import Callable
from typing import Any

import dns.rcode
import pytest

from certs.dns01.budget import Budget
from certs.dns01.lookup import Answer, Lookup, Server
from certs.dns01.options import Resolver
from certs.dns01.record import Place, Record
from certs.errors import Failure, IssueError
from tests.certs.dns01.conftest import soa, zone

VALUE = "x" * 43
RECORD = Record("relay.example.org", VALUE)
NAME = "_acme-challenge.relay.example.org"
Serve = Callable[..., Any]


@pytest.fixture
def budget() -> Budget:
    return Budget.of(30.0)


def test_it_belongs_into_the_zone_above(serve: Serve, lookup: Lookup, budget: Budget) -> None:
    server = serve("127.0.0.1", zone("example.org", "127.0.0.1"))
    assert lookup.place(RECORD, budget) == Place(NAME, "example.org")
    assert lookup.primary("example.org", budget) == "ns1.example.org"
    # A resolver would remember that there is no such name.
    assert not [name for name, kind in server.asked if name == NAME and kind != "CNAME"]
    assert (NAME, "CNAME") not in server.asked_to_recurse


def test_the_resolver_is_not_asked_for_the_record(serve: Serve, port: int, budget: Budget) -> None:
    resolver = serve("127.0.0.1", zone("example.org", "127.0.0.2"))
    serve("127.0.0.2", zone("example.org", "127.0.0.2"))
    Lookup([Resolver("127.0.0.1", port)], port=port).place(RECORD, budget)
    assert NAME not in [name for name, _ in resolver.asked]


def test_a_cname_is_followed(serve: Serve, lookup: Lookup, budget: Budget) -> None:
    led = {(NAME, "CNAME"): ["one.auth.example.net."]}
    hop = {("one.auth.example.net", "CNAME"): ["two.auth.example.net."]}
    both = zone("example.org", "127.0.0.1") | zone("auth.example.net", "127.0.0.1")
    serve("127.0.0.1", both | led | hop)
    assert lookup.place(RECORD, budget) == Place("two.auth.example.net", "auth.example.net")


def test_a_circle_of_cnames(serve: Serve, lookup: Lookup, budget: Budget) -> None:
    circle = {(NAME, "CNAME"): ["b.example.org."], ("b.example.org", "CNAME"): [f"{NAME}."]}
    serve("127.0.0.1", zone("example.org", "127.0.0.1") | circle)
    with pytest.raises(IssueError, match="leads through more than 8 CNAMEs") as caught:
        lookup.place(RECORD, budget)
    assert caught.value.failure is Failure.REFUSED


def test_a_wildcard_cname_is_none_of_the_records(
    serve: Serve, lookup: Lookup, budget: Budget
) -> None:
    wildcard = {("*.relay.example.org", "CNAME"): ["web.example.net."]}
    serve("127.0.0.1", zone("example.org", "127.0.0.1") | wildcard)
    assert lookup.place(RECORD, budget) == Place(NAME, "example.org")


def test_the_record_s_name_is_a_zone_of_its_own(
    serve: Serve, lookup: Lookup, budget: Budget
) -> None:
    """Of the same server, which says so in a negative answer."""
    both = zone("example.org", "127.0.0.1") | zone(NAME, "127.0.0.1")
    serve("127.0.0.1", both)
    assert lookup.place(RECORD, budget) == Place(NAME, NAME)


def test_the_record_s_name_is_delegated(serve: Serve, port: int, budget: Budget) -> None:
    """To another server."""
    serve(
        "127.0.0.1",
        zone("example.org", "127.0.0.2") | zone(NAME, "127.0.0.3") | {(NAME, "TXT"): ["none"]},
    )
    serve("127.0.0.2", zone("example.org", "127.0.0.2"), referrals={NAME: f"ns1.{NAME}."})
    serve("127.0.0.3", soa(NAME))
    lookup = Lookup([Resolver("127.0.0.1", port)], port=port)
    assert lookup.place(RECORD, budget) == Place(NAME, NAME)
    assert [server.addresses for server in lookup.servers(NAME, budget)] == [("127.0.0.3",)]


def test_no_resolver_answers(port: int, budget: Budget) -> None:
    lookup = Lookup([Resolver("127.0.0.1", port)], port=port)
    with pytest.raises(IssueError) as caught:
        lookup.place(RECORD, Budget.of(0.2))
    message = str(caught.value)
    assert "\n" not in message
    assert "finds no zone of relay.example.org" in message
    assert message.endswith("give -acme-dns-resolvers one that asks the internet")
    assert caught.value.failure is Failure.TRANSIENT


def test_a_zone_that_is_not_there(serve: Serve, lookup: Lookup, budget: Budget) -> None:
    serve("127.0.0.1")
    with pytest.raises(IssueError, match=r"finds no zone of relay\.example\.org"):
        lookup.place(RECORD, budget)


@pytest.mark.parametrize(
    ("records", "more", "answer"),
    [
        ({(NAME, "TXT"): [f'"{VALUE}"']}, {}, Answer.SHOWN),
        ({(NAME, "TXT"): ['"old"', f'"{VALUE[:20]}" "{VALUE[20:]}"']}, {}, Answer.SHOWN),
        ({(NAME, "TXT"): ['"old"']}, {}, Answer.NOT_SHOWN),
        ({}, {}, Answer.NOT_SHOWN),
        ({(NAME, "TXT"): [f'"{VALUE}"']}, {"rcode": dns.rcode.REFUSED}, Answer.SILENT),
        ({(NAME, "TXT"): [f'"{VALUE}"']}, {"rcode": dns.rcode.SERVFAIL}, Answer.SILENT),
        ({}, {"referrals": {"example.org": "ns1.example.net."}}, Answer.SILENT),
    ],
)
def test_what_a_server_shows(
    serve: Serve, lookup: Lookup, budget: Budget, records: Any, more: Any, answer: Answer
) -> None:
    serve("127.0.0.1", records | soa("example.org"), **more)
    place = Place(NAME, "example.org")
    assert lookup.ask(Server("ns1", ("127.0.0.1",)), place, VALUE, budget) is answer


def test_a_server_is_asked_at_its_next_address(
    serve: Serve, lookup: Lookup, budget: Budget
) -> None:
    serve("127.0.0.1", {(NAME, "TXT"): [f'"{VALUE}"']} | soa("example.org"))
    place = Place(NAME, "example.org")
    server = Server("ns1", ("256.0.0.1", "127.0.0.1"))
    assert lookup.ask(server, place, VALUE, budget) is Answer.SHOWN
    assert lookup.ask(Server("ns1", ()), place, VALUE, budget) is Answer.SILENT


def test_an_order_that_is_given_up_asks_nobody(lookup: Lookup, budget: Budget) -> None:
    budget.stop.set()
    with pytest.raises(IssueError, match="given up"):
        lookup.ask(Server("ns1", ("127.0.0.1",)), Place(NAME, "example.org"), VALUE, budget)


def test_a_server_without_an_address_is_silent(
    serve: Serve, lookup: Lookup, budget: Budget
) -> None:
    records = {("example.org", "NS"): ["ns1.example.net.", "ns1.example.org."]}
    serve("127.0.0.1", zone("example.org", "127.0.0.1") | records)
    first, second = lookup.servers("example.org", budget)
    assert (first, second) == (
        Server("ns1.example.net", ()),
        Server("ns1.example.org", ("127.0.0.1",)),
    )
    assert str(first) == "ns1.example.net (without an address)"


def test_a_name_that_leaves_no_room_for_the_record(lookup: Lookup, budget: Budget) -> None:
    with pytest.raises(IssueError, match="is too long for DNS; give -hostname a shorter") as caught:
        lookup.place(Record(".".join(["a" * 60] * 4), VALUE), budget)
    assert caught.value.failure is Failure.REFUSED
