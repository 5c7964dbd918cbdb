import json
import socket
from collections.abc import Mapping
from typing import Any

import attrs
import dns.asyncresolver
import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.resolver
import dns.rrset
import pytest
import trio
import trio.testing

from derp.http.bootstrap_dns import BootstrapDNS, Name, Record
from derp.http.bootstrap_refresh import (
    CONCURRENCY,
    INTERVAL,
    TIMEOUT,
    Refresher,
    look_up_addresses,
    look_up_txt,
)


@attrs.define
class FakeDNS:
    """Answers from tables; a value that is an error is raised, a name not there never answers."""

    a: Mapping[str, tuple[str, ...] | Exception] = attrs.field(factory=dict)
    t: Mapping[str, list[str] | Exception] = attrs.field(factory=dict)
    running: int = 0
    most: int = 0
    rounds: int = 0
    seconds: float = 0.0

    async def addresses(self, name: str) -> tuple[str, ...]:
        self.rounds += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await trio.sleep(self.seconds)
            return await self.answer(self.a, name)
        finally:
            self.running -= 1

    async def txt(self, name: str) -> list[str]:
        return await self.answer(self.t, name)

    @staticmethod
    async def answer(table: Mapping[str, Any], name: str) -> Any:
        if name not in table:
            await trio.sleep_forever()
        value = table[name]
        if isinstance(value, Exception):
            raise value
        return value

    def refresher(
        self,
        records: BootstrapDNS,
        *,
        published: list[Name] | None = None,
        unpublished: list[Name] | None = None,
    ) -> Refresher:
        return Refresher(
            records, published or [], unpublished or [], addresses=self.addresses, txt=self.txt
        )


NO_SUCH_NAME = socket.gaierror(socket.EAI_NONAME, "Name or service not known")


async def test_published() -> None:
    records = BootstrapDNS()
    addresses = tuple(f"192.0.2.{number}" for number in range(200))
    fake = FakeDNS({"a": addresses, "b": ("2001:db8::1",)})
    await fake.refresher(records, published=[Name("a", "ignored"), Name("b")]).refresh()
    answer = json.loads(records.answer("", ""))
    assert set(answer) == {"a", "b"}
    assert sorted(answer["a"]) == sorted(addresses)
    assert answer["a"] != list(addresses), "not shuffled"


async def test_unpublished() -> None:
    fake = FakeDNS(
        {"a": ("192.0.2.1",), "b": ("192.0.2.2",), "c": ("192.0.2.3",)},
        {"p.b": ["50"], "p.c": []},
    )
    records = BootstrapDNS()
    names = [Name("a"), Name("b", "p.b"), Name("c", "p.c")]
    await fake.refresher(records, unpublished=names).refresh()
    assert records.unpublished == {
        "a": Record(("192.0.2.1",), 1.0),
        "b": Record(("192.0.2.2",), 0.5),
        "c": Record(("192.0.2.3",), 0.0),
    }
    assert not records.published


@pytest.mark.parametrize("error", [NO_SUCH_NAME, OSError("no network"), UnicodeError("too long")])
async def test_failure_keeps_what_was_known(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    records = BootstrapDNS()
    records.publish("a", Record(("192.0.2.1",)))
    fake = FakeDNS({"a": error, "b": ("192.0.2.2",), "new": error})
    names = [Name("a"), Name("b"), Name("new")]
    await fake.refresher(records, published=names).refresh()
    assert records.published == {"a": Record(("192.0.2.1",)), "b": Record(("192.0.2.2",))}
    assert len(caplog.records) == 2


async def test_unpublished_name_not_found_keeps_what_was_known() -> None:
    records = BootstrapDNS()
    records.add_unpublished("a", Record(("192.0.2.1",), 0.3))
    fake = FakeDNS({"a": NO_SUCH_NAME}, {"p": ["70"]})
    await fake.refresher(records, unpublished=[Name("a", "p")]).refresh()
    assert records.unpublished == {"a": Record(("192.0.2.1",), 0.7)}


async def test_failed_percentage_keeps_what_was_known(caplog: pytest.LogCaptureFixture) -> None:
    records = BootstrapDNS()
    records.add_unpublished("a", Record(("192.0.2.1",), 0.3))
    fake = FakeDNS(
        {"a": ("192.0.2.9",), "b": ("192.0.2.2",)},
        {"p": dns.exception.Timeout(), "q": OSError("no network")},
    )
    await fake.refresher(records, unpublished=[Name("a", "p"), Name("b", "q")]).refresh()
    assert records.unpublished == {
        "a": Record(("192.0.2.9",), 0.3),
        "b": Record(("192.0.2.2",), 0.0),
    }
    assert len(caplog.records) == 2


async def test_slow_names_hold_nothing_up(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    records = BootstrapDNS()
    fake = FakeDNS({"a": ("192.0.2.1",)})
    refresher = fake.refresher(records, published=[Name("slow"), Name("a")])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(refresher.refresh)
        await trio.sleep(1)
        assert set(records.published) == {"a"}
    assert trio.current_time() == pytest.approx(TIMEOUT)
    assert len(caplog.records) == 1


async def test_side_by_side_with_a_bound(autojump_clock: trio.testing.MockClock) -> None:
    names = [Name(f"n{number}") for number in range(4 * CONCURRENCY)]
    fake = FakeDNS({name.name: ("192.0.2.1",) for name in names}, seconds=1.0)
    records = BootstrapDNS()
    await fake.refresher(records, published=names).refresh()
    assert fake.most == CONCURRENCY
    assert trio.current_time() == pytest.approx(4)
    assert len(records.published) == len(names)


async def test_again_and_again(autojump_clock: trio.testing.MockClock) -> None:
    fake = FakeDNS({"a": ("192.0.2.1",)})
    with trio.move_on_after(3.5 * INTERVAL):
        await fake.refresher(BootstrapDNS(), published=[Name("a")]).run()
    assert fake.rounds == 4


async def test_nothing_to_do() -> None:
    fake = FakeDNS()
    records = BootstrapDNS()
    await fake.refresher(records).run()
    assert fake.rounds == 0
    assert not records.published


async def test_addresses_of_localhost() -> None:
    assert "127.0.0.1" in await look_up_addresses("localhost")


async def test_addresses_of_what_is_no_name() -> None:
    with pytest.raises((OSError, UnicodeError)):
        await look_up_addresses("x" * 64)


async def serve_txt(sock: trio.socket.SocketType) -> None:
    """A name server that knows four names."""
    while True:
        data, asker = await sock.recvfrom(4096)
        query = dns.message.from_wire(data)
        reply = dns.message.make_response(query)
        reply.flags |= dns.flags.RA
        question = query.question[0]
        match question.name.to_text():
            case "percent.example.":
                records = dns.rrset.from_text(question.name, 1, "IN", "TXT", '"4" "2"', '"x"')
                reply.answer.append(records)
            case "nothing.example.":
                pass
            case "broken.example.":
                reply.set_rcode(dns.rcode.SERVFAIL)
            case _:
                reply.set_rcode(dns.rcode.NXDOMAIN)
        await sock.sendto(reply.to_wire(), asker)


async def test_txt() -> None:
    sock = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sock:
        await sock.bind(("127.0.0.1", 0))
        resolver = dns.asyncresolver.Resolver(configure=False)
        resolver.nameservers = ["127.0.0.1"]
        resolver.port = sock.getsockname()[1]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_txt, sock)
            assert sorted(await look_up_txt("percent.example", resolver)) == ["42", "x"]
            assert await look_up_txt("nothing.example", resolver) == []
            assert await look_up_txt("missing.example", resolver) == []
            with pytest.raises(dns.resolver.NoNameservers):
                await look_up_txt("broken.example", resolver)
            with pytest.raises(dns.exception.DNSException):
                await look_up_txt("x" * 64, resolver)
            nursery.cancel_scope.cancel()
