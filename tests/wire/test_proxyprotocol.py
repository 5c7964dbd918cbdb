"""PROXY headers: what they say, that nothing behind them is taken, and what is refused."""

import ipaddress
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from derp.errors import ProxyHeaderFailed
from derp.wire.proxyprotocol import (
    LOCAL_HEADER,
    MAX_LINE,
    SIGNATURE,
    ClientAddress,
    HeaderReader,
    begins_with_header,
    parse_datagram,
)

HELLO = b"\x16\x03\x01\x02\0 and so on"
LINE = b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 443\r\n"
V4 = bytes((192, 0, 2, 7, 198, 51, 100, 1)) + struct.pack(">HH", 40000, 443)
V6 = (
    ipaddress.ip_address("2001:db8::7").packed
    + ipaddress.ip_address("2001:db8::1").packed
    + struct.pack(">HH", 40000, 443)
)
CLIENT4, CLIENT6 = ("192.0.2.7", 40000), ("2001:db8::7", 40000)


def binary(
    kind: int, body: bytes = b"", tlvs: bytes = b"", command: int = 0x21, length: int | None = None
) -> bytes:
    size = len(body + tlvs) if length is None else length
    return SIGNATURE + struct.pack(">BBH", command, kind, size) + body + tlvs


class Unfinished(Exception):
    """The header goes on after the last byte."""


def read(data: bytes, cuts: list[int] | None = None) -> tuple[ClientAddress | None, int]:
    """Read `data` as it comes in pieces; return the client, and how many bytes were taken."""
    reader, taken = HeaderReader(), 0
    ends = [*sorted({cut for cut in cuts or () if 0 < cut < len(data)}), len(data)]
    for arrived in ends:
        while taken < arrived and not reader.done:
            assert 0 < reader.look <= 4096
            seen = data[taken : min(arrived, taken + reader.look)]
            used = reader.feed(seen)
            assert 0 <= used <= len(seen)
            assert reader.done or used == len(seen), "it would be woken again and again"
            assert len(reader._kept) <= MAX_LINE
            taken += used
    if not reader.done:
        raise Unfinished
    return reader.client, taken


HEADERS: list[tuple[bytes, ClientAddress | None]] = [
    (LINE, CLIENT4),
    (b"PROXY TCP6 2001:db8::7 2001:db8::1 40000 443\r\n", CLIENT6),
    (b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:198.51.100.1 40000 443\r\n", CLIENT4),
    (b"PROXY TCP4 255.255.255.255 0.0.0.0 65535 0\r\n", ("255.255.255.255", 65535)),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff:f::1 what ever it says\r\n", None),
    (b"PROXY UNKNOWN " + b"x" * (MAX_LINE - 16) + b"\r\n", None),
    (binary(0x11, V4), CLIENT4),
    (binary(0x21, V6), CLIENT6),
    (binary(0x11, V4, b"\x04\0\x01x" * 50), CLIENT4),
    (binary(0x11, V4, bytes(0xFFFF - len(V4))), CLIENT4),
    (binary(0x21, V6, bytes(0xFFFF - len(V6))), CLIENT6),
    (binary(0x21, bytes(10) + b"\xff\xff" + V4[:4] + V6[16:]), CLIENT4),
    (binary(0x31, bytes(216)), None),
    (binary(0x00), None),
    (binary(0x00, bytes(40)), None),
    (LOCAL_HEADER, None),
    # What a LOCAL header says besides is not looked at.
    (binary(0x11, V4, command=0x20), None),
    (binary(0x7F, bytes(3), command=0x20), None),
]


@pytest.mark.parametrize(("header", "client"), HEADERS, ids=lambda each: repr(each)[:40])
def test_each_header_and_not_a_byte_more(header: bytes, client: ClientAddress | None) -> None:
    for behind in (HELLO, b"", b"\r\n", LINE, bytes(1 << 16)):
        assert read(header + behind) == (client, len(header))
    one_by_one = [*range(1, min(len(header), 200))]
    assert read(header + HELLO, one_by_one) == (client, len(header))


@given(st.sampled_from(HEADERS), st.lists(st.integers(0, 70_000)), st.binary(max_size=200))
def test_any_split(
    case: tuple[bytes, ClientAddress | None], cuts: list[int], behind: bytes
) -> None:
    header, client = case
    assert read(header + behind, cuts) == (client, len(header))


@given(st.ip_addresses(), st.ip_addresses(), st.integers(0, 65535), st.integers(0, 65535))
def test_any_address(
    client: ipaddress.IPv4Address | ipaddress.IPv6Address,
    other: ipaddress.IPv4Address | ipaddress.IPv6Address,
    port: int,
    other_port: int,
) -> None:
    if client.version != other.version:
        return
    mapped = client.ipv4_mapped if client.version == 6 else None
    expected = (str(mapped or client), port)
    family = "46"[client.version == 6]
    line = f"PROXY TCP{family} {client} {other} {port} {other_port}\r\n".encode()
    assert read(line) == (expected, len(line))
    body = client.packed + other.packed + struct.pack(">HH", port, other_port)
    header = binary(0x11 if client.version == 4 else 0x21, body)
    assert read(header) == (expected, len(header))
    size = len(header)
    header = binary(0x12 if client.version == 4 else 0x22, body)
    assert parse_datagram(header + HELLO) == (size, expected)


REFUSED = [
    (HELLO, "it is in -proxy-protocol-from, and sends no PROXY header first"),
    (b"GET / HTTP/1.1\r\n\r\n", "it is in -proxy-protocol-from, and sends no PROXY header first"),
    (b"PROXYTCP4", "it is in -proxy-protocol-from, and sends no PROXY header first"),
    (SIGNATURE[:6] + b"\n", "it is in -proxy-protocol-from, and sends no PROXY header first"),
    (b"PROXY " + b"x" * 101, "the PROXY line has no end within 107 bytes"),
    (b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n", "the PROXY line has no end within 107 bytes"),
    (LINE.replace(b"\r", b""), "the PROXY line is malformed"),
    (LINE.replace(b" 443", b""), "the PROXY line is malformed"),
    (LINE.replace(b" 4", b"  4"), "the PROXY line is malformed"),
    (LINE.replace(b" 443", b" 0443"), "the PROXY line is malformed"),
    (LINE.replace(b" 443", b" 443 1"), "the PROXY line is malformed"),
    (LINE.replace(b"TCP4", b"UDP4"), "the PROXY line is malformed"),
    (b"PROXY UNKNOWNS\r\n", "the PROXY line is malformed"),
    (b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", "the PROXY line is malformed"),
    (LINE.replace(b"40000", b"65536"), "a port of the PROXY line is larger than 65535"),
    (LINE.replace(b"192.0.2.7", b"192.0.2.07"), "an address of the PROXY line is not one of IPv4"),
    (LINE.replace(b"192.0.2.7", b"2001:db8::7"), "an address of the PROXY line is not one of IPv4"),
    (
        LINE.replace(b"198.51.100.1", b"2001:db8::1"),
        "an address of the PROXY line is not one of IPv4",
    ),
    (LINE.replace(b"TCP4", b"TCP6"), "an address of the PROXY line is not one of IPv6"),
    (binary(0x11, V4, command=0x11), "the PROXY header has version and command 0x11"),
    (binary(0x11, V4, command=0x22), "the PROXY header has version and command 0x22"),
    (binary(0x41, V4), "the PROXY header has family and transport 0x41"),
    (binary(0x10, V4), "the PROXY header has family and transport 0x10"),
    (binary(0x13, V4), "the PROXY header has family and transport 0x13"),
    (binary(0x12, V4), "the PROXY header is for UDP, and this is TCP"),
    (binary(0x21, V4), "the PROXY header has 12 bytes for IPv6 addresses of 36"),
    (binary(0x11, V4[:-1]), "the PROXY header has 11 bytes for IPv4 addresses of 12"),
    (binary(0x31, bytes(215)), "the PROXY header has 215 bytes for unix addresses of 216"),
]


@pytest.mark.parametrize(("data", "reason"), REFUSED, ids=lambda each: repr(each)[:60])
def test_what_is_refused(data: bytes, reason: str) -> None:
    for cuts in ([], [*range(len(data))]):
        with pytest.raises(ProxyHeaderFailed) as caught:
            read(data + HELLO, cuts)
        assert str(caught.value) == reason


STARTS = [b"", LINE[:6], SIGNATURE, SIGNATURE + b"\x21\x11"]


@given(st.sampled_from(STARTS), st.binary(max_size=300), st.lists(st.integers(0, 300)))
@example(SIGNATURE + b"\x21\x11", b"\xff\xff", [])
def test_any_bytes(start: bytes, behind: bytes, cuts: list[int]) -> None:
    """Refused, or awaited to their end; the same however they are split."""
    data, outcomes = start + behind, set()
    for split in ([], cuts, [*range(len(data))]):
        try:
            outcomes.add(read(data, split))
        except ProxyHeaderFailed as error:
            outcomes.add(str(error))
        except Unfinished:
            outcomes.add("no end")
    assert len(outcomes) == 1


@pytest.mark.parametrize(
    ("header", "client"),
    [
        (binary(0x12, V4), CLIENT4),
        (binary(0x22, V6), CLIENT6),
        (binary(0x12, V4, bytes(60_000)), CLIENT4),
        (binary(0x32, bytes(216)), None),
        (binary(0x00), None),
        (LOCAL_HEADER, None),
    ],
)
def test_datagrams(header: bytes, client: ClientAddress | None) -> None:
    assert parse_datagram(header + b"payload") == (len(header), client)
    assert parse_datagram(header) == (len(header), client)


@pytest.mark.parametrize(
    ("datagram", "reason"),
    [
        (b"", "it is in -proxy-protocol-from, and sends no PROXY header first"),
        (SIGNATURE, "it is in -proxy-protocol-from, and sends no PROXY header first"),
        (LINE, "it is in -proxy-protocol-from, and sends no PROXY header first"),
        (binary(0x11, V4), "the PROXY header is for TCP, and this is UDP"),
        (binary(0x12, V4, length=13), "the PROXY header is longer than its datagram"),
        (binary(0x22, V4), "the PROXY header has 12 bytes for IPv6 addresses of 36"),
    ],
)
def test_datagrams_that_are_refused(datagram: bytes, reason: str) -> None:
    with pytest.raises(ProxyHeaderFailed) as caught:
        parse_datagram(datagram)
    assert str(caught.value) == reason


@given(st.binary(max_size=300))
def test_any_datagram(data: bytes) -> None:
    for datagram in (data, SIGNATURE + data):
        try:
            size, _ = parse_datagram(datagram)
        except ProxyHeaderFailed:
            continue
        assert 16 <= size <= len(datagram)


def test_what_begins_with_a_header() -> None:
    for header, _ in HEADERS:
        assert begins_with_header(header)
        assert begins_with_header(header[:5])
        assert not begins_with_header(header[:4])
    for other in (
        HELLO,
        b"POST / HTTP/1.1\r\n",
        b"PROXYTCP",
        b"\r\n\r\nGET /",
        b"\r\n\r\n\0\r\nQUIT.",
    ):
        assert not begins_with_header(other)
