"""STUN through proxies whose datagrams begin with a header: who is told which address."""

import contextlib
import logging
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from derp.service.proxies import Proxies
from derp.wire.proxyprotocol import LOCAL_HEADER, SIGNATURE
from stun.message import (
    BINDING_REQUEST,
    FINGERPRINT,
    FINGERPRINT_LENGTH,
    MAX_ATTRIBUTES,
    MAX_REQUEST_LENGTH,
    SOFTWARE,
    TAILSCALE_SOFTWARE,
    _message,
    build_binding_request,
    build_binding_response,
    fingerprint,
    parse_binding_response,
)
from stun.plain import PlainResponder
from stun.responder import BURST, MAX_PER_CALL, Responder
from stun.server import open_sockets
from stun.stats import Stats
from tests.patience import PATIENCE
from tests.stun.test_plain import SENDER, Scripted

REQUEST = build_binding_request(bytes(12))
PROXY = Proxies(with_header=[ip_network("192.0.2.0/24"), ip_network("127.0.0.1/32")])
CLIENT4, CLIENT6 = ip_address("203.0.113.7"), ip_address("2001:db8::7")


def header(client: str, port: int, tlvs: bytes = b"", transport: int = 2) -> bytes:
    """What a proxy puts before a datagram."""
    packed = ip_address(client).packed
    body = packed + bytes(len(packed)) + struct.pack(">HH", port, 3478) + tlvs
    kind = (0x10 if len(packed) == 4 else 0x20) + transport
    return SIGNATURE + struct.pack(">BBH", 0x21, kind, len(body)) + body


@pytest.mark.parametrize(
    ("before", "address", "port"),
    [
        (header("203.0.113.7", 5000), CLIENT4, 5000),
        (header("2001:db8::7", 5000), CLIENT6, 5000),
        (header("::ffff:203.0.113.7", 5000), CLIENT4, 5000),
        (header("203.0.113.7", 5000, bytes(60_000)), CLIENT4, 5000),
        (LOCAL_HEADER, ip_address(SENDER[0]), SENDER[1]),
    ],
)
def test_the_answer_has_the_client_s_address(before: bytes, address: object, port: int) -> None:
    """It goes to the proxy, without a header."""
    stats, sock = Stats(), Scripted(before + REQUEST)
    responder = PlainResponder(sock, stats, PROXY)
    assert responder.answer(1) == 1
    assert sock.sent == [(build_binding_response(bytes(12), address, port), [], SENDER)]
    assert responder.senders == [(address.packed, port.to_bytes(2, "big"))]  # type: ignore[attr-defined]
    assert (stats.ipv4, stats.ipv6) == ((1, 0) if address.version == 4 else (0, 1))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("datagram", "reason"),
    [
        (REQUEST, "it is in -proxy-protocol-from, and sends no PROXY header first"),
        (
            b"PROXY TCP4 203.0.113.7 192.0.2.1 5000 3478\r\n" + REQUEST,
            "it is in -proxy-protocol-from, and sends no PROXY header first",
        ),
        (header("203.0.113.7", 5000)[:-1], "the PROXY header is longer than its datagram"),
        (
            header("203.0.113.7", 5000, transport=1) + REQUEST,
            "the PROXY header is for TCP, and this is UDP",
        ),
        (
            SIGNATURE + b"\x21\x22\0\x0c" + bytes(12) + REQUEST,
            "the PROXY header has 12 bytes for IPv6 addresses of 36",
        ),
    ],
)
def test_a_proxy_without_a_right_header_gets_no_answer(
    caplog: pytest.LogCaptureFixture, datagram: bytes, reason: str
) -> None:
    """The answer would tell the client the proxy's address. It is logged once."""
    proxies = Proxies(with_header=PROXY.with_header)
    stats, sock = Stats(), Scripted(datagram, datagram, header("203.0.113.7", 5000) + b"text")
    assert PlainResponder(sock, stats, proxies).answer(3) == 3
    assert not sock.sent
    assert stats == Stats(not_stun=3)
    (record,) = caplog.records
    assert record.getMessage() == "a proxy's STUN requests are not answered"
    fields = record.__dict__["fields"]
    assert (fields["proxy"], fields["reason"]) == (SENDER[0], reason)


def attribute(size: int) -> bytes:
    """An attribute of an unknown type, with `size` bytes in all."""
    return b"\x7f\xff" + (size - 4).to_bytes(2, "big") + bytes(size - 4)


def long_request(size: int) -> bytes:
    """A request that is right but for its length: an attribute fills it."""
    software = SOFTWARE.pack(TAILSCALE_SOFTWARE, bytes(12))
    filling = attribute(size - 20 - len(software) - FINGERPRINT_LENGTH)
    covered = _message(BINDING_REQUEST, bytes(12), filling + software, FINGERPRINT_LENGTH)
    request = covered + FINGERPRINT.pack(fingerprint(covered), bytes(12))
    assert len(request) == size
    return request


@pytest.mark.parametrize("host", [SENDER[0], "198.51.100.7"])
@pytest.mark.parametrize("size", [MAX_REQUEST_LENGTH, MAX_REQUEST_LENGTH + 4, 64_000])
def test_a_long_request_is_no_work(host: str, size: int) -> None:
    """The buffer is large, for headers; a request is as short as without a proxy."""
    proxies = Proxies(with_header=[ip_network(f"{SENDER[0]}/32")])
    before = header("203.0.113.7", 5000) if host == SENDER[0] else b""
    stats, sock = Stats(), Scripted(before + long_request(size))
    sock.sender = (host, SENDER[1])
    assert PlainResponder(sock, stats, proxies).answer(1) == 1
    answered = size <= MAX_REQUEST_LENGTH
    assert len(sock.sent) == stats.success == answered
    assert stats.not_stun == (not answered)


@settings(deadline=None)
@given(
    client=st.ip_addresses(),
    port=st.integers(0, 65535),
    tlvs=st.binary(max_size=300),
    count=st.integers(0, 2 * MAX_ATTRIBUTES),
    words=st.integers(1, 10),
)
def test_a_request_behind_a_header_is_bounded_as_any(
    client: IPv4Address | IPv6Address, port: int, tlvs: bytes, count: int, words: int
) -> None:
    """With whatever else the header has, the client that it names is told; or nobody is."""
    body = attribute(4 * words) * count + SOFTWARE.pack(TAILSCALE_SOFTWARE, bytes(12))
    covered = _message(BINDING_REQUEST, bytes(12), body, FINGERPRINT_LENGTH)
    request = covered + FINGERPRINT.pack(fingerprint(covered), bytes(12))
    stats, sock = Stats(), Scripted(header(str(client), port, tlvs) + request)
    assert PlainResponder(sock, stats, PROXY).answer(1) == 1
    answered = count + 2 <= MAX_ATTRIBUTES
    assert (stats.success, stats.not_stun) == (answered, not answered)
    told = build_binding_response(bytes(12), client, port)
    assert sock.sent == [(told, [], SENDER)] * answered


def test_others_have_no_header(caplog: pytest.LogCaptureFixture) -> None:
    proxies = Proxies(with_header=[ip_network("10.0.0.0/8")])
    stats = Stats()
    sock = Scripted(header("203.0.113.7", 5000) + REQUEST, REQUEST, LOCAL_HEADER + REQUEST)
    assert PlainResponder(sock, stats, proxies).answer(3) == 3
    expected = build_binding_response(bytes(12), ip_address(SENDER[0]), SENDER[1])
    assert sock.sent == [(expected, [], SENDER)]
    assert stats == Stats(not_stun=2, success=1, ipv4=1)
    (record,) = caplog.records
    assert record.getMessage() == "a STUN datagram with a PROXY header is not answered"
    assert record.__dict__["fields"] == {
        "sender": SENDER[0],
        "reason": "-proxy-protocol-from does not have its address, which anybody can make up",
        "cure": "if a proxy of yours passes STUN on, list its address in -proxy-protocol-from",
    }
    # It does not keep a proxy's connections from being told.
    proxies.notices.unlisted(SENDER[0], "a PROXY header", "-proxy-protocol-from")
    assert len(caplog.records) == 2


def test_without_any_proxy_one_that_is_not_listed_is_told(caplog: pytest.LogCaptureFixture) -> None:
    stats, proxies = Stats(), Proxies()
    sock = Scripted(header("203.0.113.7", 5000) + REQUEST, b"\rtext", b"text", REQUEST)
    assert PlainResponder(sock, stats, proxies).answer(4) == 4
    assert stats == Stats(not_stun=3, success=1, ipv4=1)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


@pytest.fixture
def server() -> Iterator[socket.socket]:
    (sock,) = open_sockets("127.0.0.1", 0)
    with sock:
        yield sock


def test_a_flood_of_many_clients_through_one_proxy(server: socket.socket) -> None:
    """There are no batches, whose rows would have the proxy's address."""
    stats = Stats()
    responder = Responder(server, stats, PROXY)
    with ExitStack() as stack:
        proxy = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        proxy.connect(server.getsockname())
        proxy.settimeout(PATIENCE)
        count = 5 * BURST
        for number in range(count):
            proxy.send(header(f"203.0.113.{number}", 5000 + number) + REQUEST)
        with contextlib.suppress(BlockingIOError):
            for _ in range(MAX_PER_CALL):
                responder.answer()
        assert stats.success == count
        told = set()
        for _ in range(count):
            _, mapped = parse_binding_response(proxy.recv(2048))
            told.add((str(mapped.address), mapped.port))
    assert told == {(f"203.0.113.{number}", 5000 + number) for number in range(count)}
