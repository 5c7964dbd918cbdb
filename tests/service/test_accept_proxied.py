"""Connections that come through proxies: whose address is logged, limited, asked about, refused."""

import contextlib
import logging
import socket
import struct
from collections.abc import AsyncIterator
from functools import partial
from ipaddress import ip_network

import attrs
import nacl.public
import pytest
import trio
import trio.testing
from trio.testing import wait_all_tasks_blocked

from derp.admission.model import Outcome, Question, Verdict
from derp.errors import NoRoom
from derp.http.hidden.answers import page
from derp.http.message import Answer, Request, Response, Upgrade
from derp.log import Coalescer
from derp.net.prelogin import WAKES_PER_TURN
from derp.relay.pending import COST, PendingConnections
from derp.service.accept import Acceptor
from derp.service.handshakes import HEADER_TIMEOUT
from derp.service.hiding import hide
from derp.service.proxies import Proxies
from derp.session.client import Client
from derp.session.state import RelayState
from derp.wire.proxyprotocol import LOCAL_HEADER, SIGNATURE
from tests.http.sites import make_backend
from tests.service.test_accept_pending import Front, is_open, lines
from tests.turns import counted_turns

HTTP_PROXY, TCP_PROXY, STRANGER = "10.0.0.5", "10.9.0.5", "203.0.113.66"
CLIENT = "192.0.2.7"
PROXIES = [ip_network("10.0.0.0/16")], [ip_network("10.9.0.0/16")]
LINE = f"PROXY TCP4 {CLIENT} 198.51.100.1 40000 443\r\n".encode()
LONG = SIGNATURE + struct.pack(">BBH", 0x21, 0x11, 0xFFFF) + bytes((192, 0, 2, 7, 198, 51, 100, 1))
LONG += struct.pack(">HH", 40000, 443) + bytes(0xFFFF - 12)


@attrs.define
class Asked:
    """An admission source that refuses all, and knows whom it was asked about."""

    addresses: list[str] = attrs.field(factory=list)

    def known(self, question: Question) -> Verdict | None:
        return None

    async def admit(self, question: Question) -> Verdict:
        await trio.lowlevel.checkpoint()
        self.addresses.append(question.address)
        return Verdict(Outcome.REFUSED, "test")

    recheck = admit


@attrs.define
class Site(Front):
    """A relay behind proxies, with the requests that it was asked."""

    requests: list[Request] = attrs.field(factory=list)

    def route(self, request: Request) -> Answer:
        self.requests.append(request)
        if request.path == "/derp":
            return Upgrade(websocket=False, fast_start=True, ideal_node="", answer=b"")
        return Response(200, body=request.remote.encode())

    async def say(self, host: str, *data: bytes) -> socket.socket:
        """Connect from `host`, and send pieces, each after the relay has read the one before."""
        client = self.connect(host)
        for piece in data:
            await wait_all_tasks_blocked()
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                client.sendall(piece)
        await wait_all_tasks_blocked()
        return client

    async def member(self) -> Client:
        with trio.fail_after(1000):
            while not self.state.hub.members:
                await wait_all_tasks_blocked()
        (client,) = self.state.hub.active.values()
        return client


@contextlib.asynccontextmanager
async def site(**limits: int) -> AsyncIterator[Site]:
    pending = PendingConnections(proxies=[*PROXIES[0], *PROXIES[1]], **limits)
    async with trio.open_nursery() as nursery:
        state = RelayState(
            nacl.public.PrivateKey.generate(), nursery, write_timeout=2, pending=pending
        )
        nursery.start_soon(state.poller.run)
        nursery.start_soon(state.prelogin.run)
        proxies = Proxies(*PROXIES)
        acceptor = Acceptor(
            state, nursery, lambda _: Response(404), None, None, Coalescer(), proxies=proxies
        )
        nursery.start_soon(acceptor.headers.run)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            made = Site(acceptor, listener)
            acceptor.route = made.route
            try:
                yield made
            finally:
                for client in made.clients:
                    client.close()
        nursery.cancel_scope.cancel()
    assert len(pending) == pending.held == 0
    assert not acceptor.headers._deadlines
    assert not state.prelogin._waiting


@pytest.fixture(autouse=True)
def info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def get(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: x", *headers, "", ""]).encode()


UPGRADE = get("/derp", f"X-Forwarded-For: {STRANGER}, {CLIENT}")


@pytest.mark.parametrize(
    ("proxy", "first", "port"),
    [
        (HTTP_PROXY, [UPGRADE], 0),
        (HTTP_PROXY, [get("/derp", f"Forwarded: for={CLIENT}:40000")], 40000),
        (TCP_PROXY, [LINE + get("/derp")], 40000),
        (TCP_PROXY, [LINE[:7], LINE[7:] + get("/derp")[:3], get("/derp")[3:]], 40000),
        (TCP_PROXY, [LONG, get("/derp")], 40000),
        # What a client says itself does not matter.
        (TCP_PROXY, [LINE + get("/derp", f"X-Forwarded-For: {STRANGER}")], 40000),
        # A proxy before a proxy.
        (TCP_PROXY, [LINE.replace(CLIENT.encode(), HTTP_PROXY.encode()) + UPGRADE], 0),
    ],
)
async def test_the_client_is_known_everywhere(
    caplog: pytest.LogCaptureFixture, proxy: str, first: list[bytes], port: int
) -> None:
    async with site() as front:
        await front.say(proxy, *first, front.info())
        client = await front.member()
        assert client.transport.remote.host == CLIENT
        assert client.transport.remote.port == port
        # PeerPresent: the key, 16 bytes of address, 2 of port.
        packed = client.present_frame()[5 + 32 :][:18]
        assert packed[:16] == bytes(10) + b"\xff\xff" + socket.inet_aton(CLIENT)
        assert int.from_bytes(packed[16:], "big") == port
    (joined,) = lines(caplog, "joined")
    assert joined["remote"] == f"{CLIENT}:{port}"
    assert joined["proxy"].startswith(f"{proxy}:")


@pytest.mark.parametrize(
    ("proxy", "first"), [(HTTP_PROXY, UPGRADE), (TCP_PROXY, LINE + get("/derp"))]
)
async def test_admission_is_asked_about_the_client(
    caplog: pytest.LogCaptureFixture, proxy: str, first: bytes
) -> None:
    async with site() as front:
        front.state.admission = asked = Asked()
        client = await front.say(proxy, first + front.info())
        with trio.fail_after(1000):
            while is_open(client):
                await wait_all_tasks_blocked()
        assert asked.addresses == [CLIENT]
    (refused,) = lines(caplog, "refused")
    assert refused["remote"].startswith(f"{CLIENT}:")
    assert refused["tries"] == 1  # type: ignore[comparison-overlap]


async def test_a_stranger_is_not_believed(caplog: pytest.LogCaptureFixture) -> None:
    async with site() as front:
        await front.say(STRANGER, UPGRADE + front.info())
        client = await front.member()
        assert client.transport.remote.host == STRANGER
        assert front.requests[0].proxy == ""
    (joined,) = lines(caplog, "joined")
    assert "proxy" not in joined


async def test_each_request_on_a_shared_connection_has_its_client() -> None:
    async with site() as front:
        client = await front.say(
            HTTP_PROXY,
            get("/a", f"X-Real-IP: {CLIENT}"),
            get("/b", f"X-Real-IP: {STRANGER}"),
            get("/c"),
            get("/d", f"X-Forwarded-For: {STRANGER}, {HTTP_PROXY}"),
        )
        assert is_open(client)
        asked = [(request.path, request.remote) for request in front.requests]
        assert asked == [("/a", CLIENT), ("/b", STRANGER), ("/c", HTTP_PROXY), ("/d", STRANGER)]
        assert {request.proxy for request in front.requests} == {"-trusted-proxies"}


@pytest.mark.parametrize("says", [b"PROXY UNKNOWN\r\n", LOCAL_HEADER, SIGNATURE + b"\x21\0\0\0"])
async def test_a_proxy_that_names_nobody_is_the_client_itself(says: bytes) -> None:
    async with site() as front:
        await front.say(TCP_PROXY, says + get("/"))
        (request,) = front.requests
        assert (request.remote, request.proxy) == (TCP_PROXY, "-proxy-protocol-from")


async def test_proxies_that_contradict_themselves(
    caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    async with site() as front:
        forged = get("/derp", f"X-Real-IP: {CLIENT}", f"Forwarded: for={STRANGER}")
        client = await front.say(HTTP_PROXY, forged)
        client.setblocking(True)
        answer = client.recv(1 << 16)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert not front.requests
        await trio.sleep(2)  # the relay lingers
    (refused,) = lines(caplog, "refused")
    assert refused["reason"] == (
        "http_failed: X-Real-IP and Forwarded name different clients; -trusted-proxies has to have "
        "all proxies, and these to remove what they do not set"
    )


@pytest.mark.parametrize(
    ("proxy", "hello"), [(HTTP_PROXY, b""), (TCP_PROXY, LINE.replace(b"192.0.2.7", b"10.0.0.5"))]
)
@pytest.mark.parametrize(
    ("second", "reason"),
    [
        (get("/%", f"X-Real-IP: {STRANGER}"), "the request target has a % without two hexa"),
        (
            get("/", f"X-Real-IP: {STRANGER}", f"Forwarded: for={CLIENT}"),
            "X-Real-IP and Forwarded name different clients",
        ),
        (get("/", "X-Real-IP: unknown"), "X-Real-IP names no client that can be read"),
        (b"GET / HTTP/1.1\r\nHost: " + bytes(17 << 10), "the request's head is larger than 16 KiB"),
        (b"nonsense\r\n\r\n", "not a well-formed HTTP/1.1 request"),
    ],
)
async def test_a_refused_request_is_not_put_down_to_the_client_before(
    caplog: pytest.LogCaptureFixture,
    autojump_clock: trio.testing.MockClock,
    proxy: str,
    hello: bytes,
    second: bytes,
    reason: str,
) -> None:
    """Else a stranger could have another client of the proxy's banned."""
    async with site() as front:
        first = get("/", f"X-Real-IP: {CLIENT}")
        await front.say(proxy, hello + first, second)
        await trio.sleep(2)  # the relay lingers
        assert front.ends() == {"http_failed": 1}
        (request,) = front.requests
        assert request.remote == CLIENT
    (refused,) = lines(caplog, "refused")
    assert refused["reason"].startswith(f"http_failed: {reason}")
    assert refused["remote"].startswith(f"{HTTP_PROXY}:")
    assert refused["tries"] is None
    if proxy == HTTP_PROXY:
        assert "proxy" not in refused
    else:
        assert refused["proxy"].startswith(f"{TCP_PROXY}:")


@pytest.mark.parametrize("second", [b"nonsense\r\n\r\n", get("/%"), bytes(40 << 10)])
async def test_nor_is_it_where_the_relay_hides(
    caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock, second: bytes
) -> None:
    async with site() as front:
        front.acceptor = hide(front.acceptor, make_backend(home="hidden"))
        first = get("/", f"X-Real-IP: {CLIENT}")
        await front.say(HTTP_PROXY, first, second)
        await trio.sleep(100)
        assert front.requests == []
    for refused in lines(caplog, "refused"):
        assert refused["tries"] is None
    assert lines(caplog, "refused")


HALF = (LINE[:20], SIGNATURE[:5], SIGNATURE + b"\x21\x11\0\x0c\1\2", LONG[:40_000])
NONE = "it is in -proxy-protocol-from, and sends no PROXY header first"
SECOND = "a second PROXY header follows the first"
NOT_LISTED = "it sends a PROXY header, and -proxy-protocol-from does not have it"
BAD = (
    (TCP_PROXY, get("/"), NONE),
    (TCP_PROXY, b"\x16\3\1\2\0\1", NONE),
    (
        TCP_PROXY,
        LINE.replace(b"192.0.2.7", b"2001:db8::7"),
        "an address of the PROXY line is not one of IPv4",
    ),
    (
        TCP_PROXY,
        SIGNATURE + b"\x21\x21\0\x0c" + bytes(12),
        "the PROXY header has 12 bytes for IPv6 addresses of 36",
    ),
    (TCP_PROXY, LINE * 2, SECOND),
    (TCP_PROXY, LINE + LONG, SECOND),
    (STRANGER, LINE, NOT_LISTED),
    (HTTP_PROXY, LINE, NOT_LISTED),
    (STRANGER, LONG, NOT_LISTED),
)


@pytest.mark.parametrize(("host", "data", "reason"), BAD)
async def test_bad_input_is_one_line(
    caplog: pytest.LogCaptureFixture, host: str, data: bytes, reason: str
) -> None:
    async with site() as front:
        client = await front.say(host, data)
        assert not is_open(client)
        assert front.ends() == {"proxy_header_failed": 1}
        assert not front.requests
    (refused,) = lines(caplog, "refused")
    assert refused["reason"] == f"proxy_header_failed: {reason}"
    assert bool(notices(caplog)) is (reason == NOT_LISTED)


@pytest.mark.parametrize("half", HALF, ids=range(len(HALF)))
async def test_half_a_header(
    caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock, half: bytes
) -> None:
    """Its end is awaited for a while, and it is no more memory than any connection."""
    async with site() as front:
        client = await front.say(TCP_PROXY, half)
        assert front.state.pending.held == COST
        await trio.sleep(HEADER_TIMEOUT - 0.01)
        assert is_open(client)
        await trio.sleep(0.02)
        assert not is_open(client)
        left = await front.say(TCP_PROXY, half)
        left.close()
        await wait_all_tasks_blocked()
        assert front.ends() == {"proxy_header_failed": 1, "peer_vanished": 1}
    assert [line["reason"] for line in lines(caplog, "refused")] == [
        "proxy_header_failed: no whole PROXY header within 10 s",
        "peer_vanished: the connection was closed in the middle of a PROXY header",
    ]


async def test_a_header_in_many_pieces(caplog: pytest.LogCaptureFixture) -> None:
    async with site() as front:
        client = await front.say(TCP_PROXY, *(LONG[at : at + 1] for at in range(100)))
        assert not is_open(client)
    (refused,) = lines(caplog, "refused")
    assert refused["reason"] == "proxy_header_failed: the PROXY header comes in too many pieces"


async def test_one_that_makes_room_while_its_header_is_awaited() -> None:
    async with site() as front:
        client = await front.say(TCP_PROXY, LINE[:9])
        (pending,) = front.state.pending._pending
        pending.close(NoRoom("for the test"))
        await wait_all_tasks_blocked()
        assert not is_open(client)
        assert front.ends() == {"no_room": 1}


async def test_many_headers_at_once_do_not_hold_up_a_turn() -> None:
    async with site() as front:
        for _ in range(5 * WAKES_PER_TURN):
            front.connect(TCP_PROXY)
        await wait_all_tasks_blocked()
        with counted_turns() as turns:

            def counted(request: Request) -> Answer:
                turns.note()
                return front.route(request)

            front.acceptor.route = counted
            for client in front.clients:
                client.sendall(LINE + get("/"))
            with trio.fail_after(1000):
                while len(front.requests) < len(front.clients):
                    await trio.lowlevel.checkpoint()
        assert turns.most <= WAKES_PER_TURN


@pytest.mark.parametrize(
    ("proxy", "first"), [(HTTP_PROXY, UPGRADE), (TCP_PROXY, LINE + get("/derp"))]
)
async def test_the_limits_are_those_of_the_client_s_network(
    caplog: pytest.LogCaptureFixture,
    autojump_clock: trio.testing.MockClock,
    proxy: str,
    first: bytes,
) -> None:
    async with site(max_pending=2) as front:
        for _ in range(4):
            await front.say(proxy, first)
        await trio.sleep(1.5)  # after an answer the relay lingers
        assert [is_open(client) for client in front.clients] == [True, True, False, False]
        other = first.replace(CLIENT.encode(), b"198.51.100.7")
        assert is_open(await front.say(proxy, other))
        assert front.ends() == {"too_many_pending": 2}
        assert len(front.state.pending) == 3
    (refused,) = lines(caplog, "refused")
    assert refused["remote"].startswith(f"{CLIENT}:")
    assert (
        refused["reason"] == "too_many_pending: 2 connections from 192.0.2.0/24 have not logged in"
    )


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (
            {"max_pending": 1},
            "too_many_pending: 1 connections from 192.0.2.0/24 have not logged in",
        ),
        (
            {"rate": 1},
            "too_many_connections: more than 1 new connections a second from 192.0.2.0/24",
        ),
    ],
)
@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_so_are_those_of_what_a_hidden_relay_does_not_answer(
    caplog: pytest.LogCaptureFixture,
    autojump_clock: trio.testing.MockClock,
    version: str,
    limits: dict[str, int],
    reason: str,
) -> None:
    """Who looks for a relay gets what nginx's limit_req says; others of the proxy go on."""
    async with site(**limits) as front:
        front.acceptor = hide(front.acceptor, make_backend(home="hidden"))
        names = f"X-Real-IP: {CLIENT}", "Connection: keep-alive"
        probe = get("/derp/probe", *names).replace(b"HTTP/1.1", f"HTTP/{version}".encode())
        statuses = [b""]
        while statuses[-1] != b"503" and len(statuses) < 5:
            client = await front.say(HTTP_PROXY, probe)
            client.setblocking(True)
            answer = client.recv(1 << 16)
            statuses.append(answer[9:12])
        assert (set(statuses[1:-1]), statuses[-1]) == ({b"404"}, b"503")
        assert answer.endswith(page(503))
        assert b"\r\nConnection: close\r\n" in answer
        # The limits are the client's own, and no client's of another network.
        client = await front.say(HTTP_PROXY, probe.replace(CLIENT.encode(), STRANGER.encode()))
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 404 ")
        await trio.sleep(100)
        assert front.requests == []
    (refused,) = lines(caplog, "refused")
    assert refused["reason"] == reason
    # Nothing that a stranger says is put down to one of the clients.
    assert refused["remote"].startswith(f"{HTTP_PROXY}:")


async def test_a_hidden_relay_counts_a_client_s_request_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with site(rate=1) as front:
        front.acceptor = hide(front.acceptor, make_backend(home="hidden"))
        for _ in range(2):  # the burst
            await front.say(
                HTTP_PROXY,
                UPGRADE.replace(b"Host", b"Upgrade: DERP\r\nConnection: upgrade\r\nHost")
                + front.info(),
            )
        with trio.fail_after(1000):
            while len(front.state.hub.members) < 2:
                await wait_all_tasks_blocked()


def raise_(end: Exception, *_: object) -> None:
    raise end


@pytest.mark.parametrize(
    ("limits", "status", "reason"),
    [
        (
            {"max_pending": 1},
            b"429 Too Many Requests",
            "too_many_pending: 1 connections from 192.0.2.0/24 have not logged in",
        ),
        (
            {"rate": 1},
            b"429 Too Many Requests",
            "too_many_connections: more than 1 new connections a second from 192.0.2.0/24",
        ),
        ({}, b"503 Service Unavailable", "no_room: for the test"),
    ],
)
async def test_a_client_over_its_limits_gets_an_answer(
    caplog: pytest.LogCaptureFixture,
    autojump_clock: trio.testing.MockClock,
    monkeypatch: pytest.MonkeyPatch,
    limits: dict[str, int],
    status: bytes,
    reason: str,
) -> None:
    """A proxy that finds its connection closed takes the relay for one that is down."""
    name, _, message = reason.partition(": ")
    if not limits:
        end = NoRoom(message)
        monkeypatch.setattr(PendingConnections, "identify", staticmethod(partial(raise_, end)))
    async with site(**limits) as front:
        while not front.ends():
            client = await front.say(HTTP_PROXY, get("/", f"X-Real-IP: {CLIENT}"))
            client.setblocking(True)
            answer = client.recv(1 << 16)
            if not answer.startswith(b"HTTP/1.1 200 "):
                await trio.sleep(2)  # the relay lingers
        assert answer.startswith(b"HTTP/1.1 " + status)
        assert b"\r\nConnection: close\r\n" in answer
        assert answer.endswith(message.encode() + b"\n")
        assert front.ends() == {name: 1}
    (refused,) = lines(caplog, "refused")
    assert refused["reason"] == reason
    assert refused["remote"].startswith(f"{CLIENT}:")


def notices(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str, str]]:
    message = "there may be a proxy that is not listed, and hides its clients"
    return [(line["proxy"], line["sends"], line["cure"]) for line in lines(caplog, message)]


async def test_a_proxy_that_is_not_listed_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """Strangers don't keep that of a proxy from being told."""
    async with site() as front:
        for host in ("8.8.8.8", "8.8.4.4", "172.17.0.1", "172.17.0.2", HTTP_PROXY):
            for header in (f"X-Forwarded-For: {CLIENT}", f"Forwarded: for={CLIENT}"):
                await front.say(host, get("/", header))
        for host in ("8.8.8.8", "::ffff:172.17.0.1", "fd00::5"):
            await front.say(host, LINE)
    assert notices(caplog) == [
        (
            "8.8.8.8",
            "X-Forwarded-For",
            "if it is yours, and itself sets that: -trusted-proxies 8.8.8.8/32",
        ),
        (
            "172.17.0.1",
            "X-Forwarded-For",
            "if it is yours, and itself sets that: -trusted-proxies 172.17.0.1/32",
        ),
        (
            "8.8.8.8",
            "a PROXY header",
            "if it is yours, and itself sets that: -proxy-protocol-from 8.8.8.8/32",
        ),
        (
            "::ffff:172.17.0.1",
            "a PROXY header",
            "if it is yours, and itself sets that: -proxy-protocol-from 172.17.0.1/32",
        ),
    ]


async def test_heads_that_differ_for_each_client_are_not_remembered() -> None:
    async with site() as front:
        await front.say(HTTP_PROXY, UPGRADE)
        assert not front.acceptor.known._requests
        await front.say(TCP_PROXY, LINE + get("/derp"))
        assert len(front.acceptor.known._requests) == 1
        await front.say(HTTP_PROXY, get("/derp") + front.info())
        assert front.requests[-1].remote == HTTP_PROXY
        assert front.requests[-1].proxy == "-trusted-proxies"
