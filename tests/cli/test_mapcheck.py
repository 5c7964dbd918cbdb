"""What --check finds at names and addresses that no test may have in earnest."""

import socket
import ssl
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio
import trustme
from trio.testing import MockClock

from derp.cli import mapcheck, probe
from derp.cli.probe import NoTLS, NotReached
from derp.derpmap import Node
from derp.net import tlserrors
from derp.net.address import Endpoint
from derp.wire.frames import server_key

HOST = "relay.example"
Relay = Callable[..., Awaitable[int]]


class Resolver(trio.abc.HostnameResolver):
    """Knows the addresses of one name; without any it fails, and None keeps it busy for ever."""

    def __init__(self, *addresses: str | None) -> None:
        self.addresses = addresses

    async def getaddrinfo(self, *_: object, **_more: object) -> list[Any]:
        if not self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        if None in self.addresses:
            await trio.sleep_forever()
        return [(0, 0, 0, "", (address, 0)) for address in self.addresses]

    async def getnameinfo(self, *_: object) -> tuple[str, str]:
        raise NotImplementedError


def resolve(*addresses: str | None) -> None:
    trio.socket.set_custom_hostname_resolver(Resolver(*addresses))


@pytest.fixture
def relay(nursery: trio.Nursery) -> Relay:
    """Serve what greets like a relay, with a certificate for some name; return its port."""

    async def relay(name: str = HOST, **more: datetime) -> int:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert(name, **more).configure_cert(context)

        async def greet(stream: trio.SSLStream[trio.SocketStream]) -> None:
            try:
                await stream.receive_some(4096)
                await stream.send_all(server_key(bytes(32)))
            except trio.BrokenResourceError:
                pass

        port = 0
        for host in ("127.0.0.1", "127.0.0.2"):
            (listener,) = await trio.open_ssl_over_tcp_listeners(port, context, host=host)
            nursery.start_soon(trio.serve_listeners, greet, [listener])
            port = listener.transport_listener.socket.getsockname()[1]  # type: ignore[attr-defined]
        return port

    return relay


def over(port: int, hostname: str = HOST, pin: str | None = None) -> Node:
    return Node(hostname, pin, port, None)


async def test_a_name_without_address():
    resolve()
    assert await mapcheck.problems(over(443)) == [
        f"{HOST} has no address (Name or service not known); give it an A record, or correct it"
    ]


async def test_a_name_that_takes_too_long(autojump_clock: MockClock):
    resolve(None)
    (line,) = await mapcheck.problems(over(443))
    assert line.startswith(f"the look-up of {HOST} takes too long; ")


async def test_a_name_that_is_this_machine(relay: Relay):
    port = await relay()
    resolve("127.0.0.1")
    lines = await mapcheck.problems(over(port))
    assert lines[0].startswith(f"{HOST} is 127.0.0.1 on this machine, ")
    assert lines[1].startswith("clients refuse the certificate (unable to get local issuer")
    assert len(lines) == 2


async def test_what_all_addresses_have_wrong_is_told_once(relay: Relay):
    port = await relay()
    resolve("127.0.0.1", "127.0.0.2")
    lines = await mapcheck.problems(over(port))
    assert sum("clients refuse the certificate" in line for line in lines) == 1
    assert len(lines) == 3


@pytest.mark.parametrize("addresses", [("2001:db8::1",), ("2001:db8::1", "127.0.0.1")])
async def test_a_kind_of_address_that_this_machine_has_not(
    relay: Relay, monkeypatch: pytest.MonkeyPatch, addresses: tuple[str, ...]
):
    really = probe.connect

    async def connect(where: Endpoint, deadline: float) -> trio.SocketStream:
        if ":" in where.host:
            raise NotReached(f"TCP {where}: network is unreachable", no_route=True)
        return await really(where, deadline)

    monkeypatch.setattr(probe, "connect", connect)
    port = await relay()
    resolve(*addresses)
    lines = await mapcheck.problems(over(port))
    alone = len(addresses) == 1
    assert alone == any("network is unreachable; check from a machine" in line for line in lines)


async def test_a_certificate_that_has_expired(relay: Relay):
    yesterday = datetime.now(UTC) - timedelta(days=1)
    port = await relay("127.0.0.1", not_before=yesterday - timedelta(days=9), not_after=yesterday)
    (line,) = await mapcheck.problems(over(port, "127.0.0.1"))
    assert line.startswith("clients refuse the certificate (")


def verification(code: int) -> str:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code, error.verify_message = code, "the reason"
    return mapcheck._certificate_problem(error, HOST)


@pytest.mark.parametrize(
    ("code", "cure"),
    [
        (9, "set the clock "),
        (10, "renew it"),
        (18, "serve its intermediates "),
        (20, "serve its intermediates "),
        (62, f"have one issued for {HOST}"),
        (64, f"have one issued for {HOST}"),
        (26, "have another one issued"),
    ],
)
def test_each_refusal_has_its_cure(code: int, cure: str):
    assert verification(code).startswith(f"clients refuse the certificate (the reason); {cure}")


@pytest.mark.parametrize(
    ("reason", "cure"),
    [
        (tlserrors.INTERNAL_ERROR, "failed: there is no certificate yet"),
        (tlserrors.UNRECOGNIZED_NAME, f"failed: the relay is not {HOST}; want its -hostname"),
        ("", "failed; clients need HTTPS there"),
    ],
)
def test_each_alert_has_its_cure(reason: str, cure: str):
    error = ssl.SSLError(1, "x")
    error.reason = reason
    assert mapcheck._tls_problem(NoTLS("failed", error), HOST).startswith(cure)


async def test_a_pinned_certificate_outside_its_dates(relay: Relay):
    from certs.pair import cert_pin

    now = datetime.now(UTC)
    day = timedelta(days=1)
    for begin, end, words in (
        (now - 9 * day, now - day, "(it expired on "),
        (now + day, now + 9 * day, "(it begins on "),
    ):
        port = await relay("127.0.0.1", not_before=begin, not_after=end)
        leaf = await trio.to_thread.run_sync(served, port)
        (line,) = await mapcheck.problems(over(port, "127.0.0.1", cert_pin(leaf)))
        assert words in line


def served(port: int) -> bytes:
    return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", port)))


async def test_each_name_is_checked() -> None:
    """And what is wrong with both is said once."""

    class Names(Resolver):
        async def getaddrinfo(self, host: bytes, *_: object, **_more: object) -> list[Any]:
            return await Resolver(*([] if host == b"b.example" else ["127.0.0.1"])).getaddrinfo()

    trio.socket.set_custom_hostname_resolver(Names())
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        node = Node("a.example", None, closed.getsockname()[1], None, None, ("b.example", HOST))
        found = await mapcheck.problems(node)
    nobody = [line for line in found if line.startswith("TCP 127.0.0.1:")]
    assert len(nobody) == 1
    assert [line for line in found if line.startswith("b.example has no address")]
    assert [line for line in found if line.startswith("a.example is 127.0.0.1 on this machine")]
    assert [line for line in found if line.startswith(f"{HOST} is 127.0.0.1 on this machine")]


async def test_stun_is_asked_once_at_an_address(monkeypatch: pytest.MonkeyPatch):
    """It does not know by which of the relay's names the address was found."""
    resolve("127.0.0.1", "127.0.0.2")
    asked: list[str] = []

    async def answer(where: Endpoint, _deadline: float) -> None:
        asked.append(str(where))
        await trio.lowlevel.checkpoint()
        raise probe.NoSTUN(f"{where}: no answer")

    monkeypatch.setattr(probe, "stun", answer)
    node = Node(HOST, None, None, 3478, more_hostnames=("other.example", "*.relay.example"))
    found = [line for line in await mapcheck.problems(node) if "no answer" in line]
    assert sorted(asked) == ["127.0.0.1:3478", "127.0.0.2:3478"]
    assert len(found) == 2
