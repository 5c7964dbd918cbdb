"""The ClientHello against those that OpenSSL makes, and against what OpenSSL reads out of ours."""

import ssl
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from derp.wire.clienthello import MAX_FLIGHT, MAX_RECORDS, UNREADABLE, ClientHello, HelloReader

TLS_1_2, TLS_1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
NAME = "relay.example"


def sent(
    name: str | None = NAME,
    alpn: tuple[str, ...] = (),
    newest: ssl.TLSVersion = TLS_1_3,
    oldest: ssl.TLSVersion = TLS_1_2,
) -> bytes:
    """What a client of Python's `ssl` sends first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.minimum_version, context.maximum_version = oldest, newest
    if alpn:
        context.set_alpn_protocols(list(alpn))
    outgoing = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name).do_handshake()
    return outgoing.read()


def read(data: bytes) -> ClientHello | None:
    return HelloReader().feed(data)


def read_in_pieces(data: bytes, size: int = 1) -> tuple[ClientHello | None, int]:
    """Return what is found, and after how many bytes."""
    reader = HelloReader()
    for start in range(0, len(data), size):
        piece = data[start : start + size]
        if (hello := reader.feed(memoryview(piece))) is not None:
            assert reader.flight == data[: start + len(piece)]
            return hello, len(reader.flight)
    assert reader.flight == data
    return None, len(data)


def vector(width: int, data: bytes) -> bytes:
    return len(data).to_bytes(width, "big") + data


def extension(kind: int, data: bytes) -> bytes:
    return kind.to_bytes(2, "big") + vector(2, data)


def host_name(name: bytes, kind: int = 0) -> bytes:
    return extension(0, vector(2, bytes([kind]) + vector(2, name)))


def protocols(*names: bytes) -> bytes:
    return extension(16, vector(2, b"".join(vector(1, name) for name in names)))


def message(*extensions: bytes, behind: bytes = b"") -> bytes:
    """A ClientHello as it stands in RFC 8446, 4.1.2."""
    body = b"\x03\x03" + bytes(range(32)) + vector(1, b"") + vector(2, b"\x13\x01")
    body += vector(1, b"\0") + vector(2, b"".join(extensions)) + behind
    return b"\x01" + vector(3, body)


def records(data: bytes, *sizes: int) -> bytes:
    """`data` in records of these sizes, the last of them over and over."""
    packed = b""
    for size in sizes:
        packed += record(data[:size])
        data = data[size:]
    size = sizes[-1] if sizes else 1 << 14
    return packed + b"".join(record(data[i : i + size]) for i in range(0, len(data), size))


def record(fragment: bytes) -> bytes:
    return struct.pack(">BBBH", 22, 3, 1, len(fragment)) + fragment


@pytest.mark.parametrize("newest", [TLS_1_2, TLS_1_3])
@pytest.mark.parametrize("name", [NAME, "RELAY.Example.", "xn--bcher-kva.example", None])
@pytest.mark.parametrize("alpn", [(), ("http/1.1",), ("acme-tls/1",), ("h2", "http/1.1", "x")])
def test_what_a_client_asks_for(
    name: str | None, alpn: tuple[str, ...], newest: ssl.TLSVersion
) -> None:
    expected = ClientHello(name, tuple(protocol.encode() for protocol in alpn))
    data = sent(name, alpn, newest)
    assert read(data) == expected
    assert read_in_pieces(data) == (expected, len(data))


def test_a_client_of_tls_1_3_alone() -> None:
    assert read(sent(oldest=TLS_1_3)) == ClientHello(NAME, ())


def test_a_name_that_python_makes_ascii_first() -> None:
    assert read(sent("bücher.example")) == ClientHello("xn--bcher-kva.example", ())


def test_an_address_is_no_name() -> None:
    assert read(sent("192.0.2.7")) == ClientHello(None, ())


@pytest.mark.parametrize("count", [100, 1000, 4500])
def test_a_long_list_of_protocols(count: int) -> None:
    alpn = tuple(f"protocol-{i:03}" for i in range(count))
    data = sent(alpn=alpn)
    assert len(data) > 12 * count
    expected = ClientHello(NAME, tuple(protocol.encode() for protocol in alpn))
    assert read(data) == expected
    assert read_in_pieces(data, 1400) == (expected, len(data))
    assert read_in_pieces(data) == (expected, len(data))


@pytest.mark.parametrize("sizes", [(1,), (5, 1), (3, 1, 100), (40, 16384)])
def test_one_in_several_records(sizes: tuple[int, ...]) -> None:
    data = records(message(host_name(b"a.example"), protocols(b"h2")), *sizes)
    expected = ClientHello("a.example", (b"h2",))
    assert read(data) == expected
    assert read_in_pieces(data) == (expected, len(data))


def test_what_comes_behind_is_kept_but_not_looked_at() -> None:
    data = records(message(host_name(b"a.example")))
    reader = HelloReader()
    assert reader.feed(data[:20]) is None
    assert reader.feed(data[20:] + b"\x17\x03\x03 early data") == ClientHello("a.example", ())
    assert reader.flight == data + b"\x17\x03\x03 early data"


def test_another_message_in_the_same_record_is_left_alone() -> None:
    data = record(message(host_name(b"a.example")) + b"\x01" + vector(3, b"no hello"))
    assert read(data) == ClientHello("a.example", ())


def test_extensions_may_be_absent() -> None:
    body = message()[4:-2]
    hello = read(record(b"\x01" + vector(3, body)))
    assert hello == ClientHello(None, ())
    assert hello is not UNREADABLE


def test_other_extensions_are_passed_by() -> None:
    data = message(extension(0xFFCE, bytes(300)), host_name(b"a"), extension(0x0A0A, b""))
    assert read(record(data)) == ClientHello("a", ())


@pytest.mark.parametrize("name", [b"", b"..", b"a b\0\n", b"*", b"a" * 5000])
def test_a_name_is_not_judged(name: bytes) -> None:
    assert read(record(message(host_name(name)))) == ClientHello(name.decode(), ())


GOOD = message(host_name(b"a.example"), protocols(b"h2"))


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n",
        b"\x80\x2e\x01\x03\x01" + bytes(60),
        bytes(5),
        b"\x15\x03\x01\x00\x02\x02\x28",
        b"\x17\x03\x03\x00\x01\x00",
        b"\x16\x02\x00\x00\x01\x01",
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\x40\x01",
        b"\x16\x03\x01\xff\xff",
        record(b"\x02" + GOOD[1:]),
        record(b"\x02"),
        records(GOOD, 30)[:35] + b"\x14\x03\x03\x00\x01\x01",
        record(b"\x01" + vector(3, b"")),
        record(b"\x01" + vector(3, GOOD[4:-1])),
        record(b"\x01" + vector(3, GOOD[4:38])),
        record(b"\x01\xff\xff\xff"),
        record(message(host_name(b"a.example"), behind=b"\0")),
        record(message(host_name(b"a.example"), host_name(b"b.example"))),
        record(message(protocols(b"h2"), protocols(b"h2"))),
        record(message(host_name(b"a.example"), extension(5, b""), extension(5, b""))),
        record(message(host_name(b"a.example", kind=1))),
        record(message(host_name(b"b\xfccher.example"))),
        record(message(extension(0, b""))),
        record(message(extension(0, vector(2, b"")))),
        record(message(extension(0, vector(2, b"\0" + vector(2, b"a.example")) + b"\0"))),
        record(message(extension(0, vector(2, b"\0" + vector(2, b"a.example") + b"\0")))),
        record(message(extension(0, vector(2, b"\0\x00\x0aa.example")))),
        record(message(host_name(b"a.example"), extension(16, b""))),
        record(message(host_name(b"a.example"), protocols(b"h2", b""))),
        record(message(host_name(b"a.example"), extension(16, vector(2, b"\x03h2")))),
        record(message(host_name(b"a.example"), extension(16, vector(2, b"\x02h2") + b"\0"))),
        record(message(host_name(b"a.example"), b"\x00")),
        record(message(host_name(b"a.example"), b"\x0a\x0a\x00\x01")),
    ],
)
def test_what_can_not_be_read_asks_for_nothing(data: bytes) -> None:
    assert read(data) == UNREADABLE
    assert read_in_pieces(data)[0] == UNREADABLE


def test_what_is_no_tls_is_known_after_one_header() -> None:
    assert read_in_pieces(b"GET / HTTP/1.1\r\n\r\n") == (UNREADABLE, 5)


@pytest.mark.parametrize("size", [1 << 14, 1 << 16])
@pytest.mark.parametrize("fragment", [600, 1000, 1 << 14])
def test_a_hello_of_64_kib_is_read(size: int, fragment: int) -> None:
    padding = extension(21, bytes(size - len(GOOD) - 4))
    whole = message(host_name(b"a.example"), protocols(b"h2"), padding)
    assert len(whole) == size
    data = records(whole, fragment)
    expected = ClientHello("a.example", (b"h2",))
    assert read(data) == expected
    assert read_in_pieces(data, 999) == (expected, len(data))


def test_one_that_is_said_to_be_longer_is_not_waited_for() -> None:
    data = records(b"\x01" + vector(3, GOOD[4:] + bytes(MAX_FLIGHT)))
    assert read_in_pieces(data) == (UNREADABLE, 5 + (1 << 14))


def test_one_in_too_many_records_is_not_waited_for() -> None:
    data = records(b"\x01" + vector(3, GOOD[4:] + bytes(1 << 15)), 1)
    assert read_in_pieces(data) == (UNREADABLE, (MAX_RECORDS + 1) * 6)
    assert read(data) == UNREADABLE


def test_one_that_is_too_long_with_its_records_is_not_waited_for() -> None:
    data = records(b"\x01" + vector(3, GOOD[4:] + bytes(MAX_FLIGHT - len(GOOD))), 1000)
    assert read_in_pieces(data) == (UNREADABLE, MAX_FLIGHT)


hellos = st.binary(max_size=300).map(record) | st.sampled_from(
    [records(GOOD), records(GOOD, 20), sent(), sent(None, ("acme-tls/1",), TLS_1_2)]
)


@given(st.binary() | st.binary().map(lambda data: b"\x16\x03\x01" + vector(2, data)) | hellos)
def test_any_bytes_in_any_pieces_are_the_same(data: bytes) -> None:
    assert read_in_pieces(data)[0] == read(data)


@given(st.lists(st.binary(max_size=70), max_size=30), hellos)
def test_any_split(cuts: list[bytes], data: bytes) -> None:
    reader, rest = HelloReader(), data
    found = None
    for cut in cuts:
        piece, rest = rest[: len(cut)], rest[len(cut) :]
        found = found or reader.feed(piece)
    assert (found or reader.feed(rest)) == read(data)


class ByOpenSSL:
    """What OpenSSL makes of the first bytes of a connection."""

    def __init__(self, data: bytes) -> None:
        self.names: list[str | None] = []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.sni_callback = self._note
        incoming = ssl.MemoryBIO()
        incoming.write(data)
        with pytest.raises(ssl.SSLError) as caught:
            context.wrap_bio(incoming, ssl.MemoryBIO(), server_side=True).do_handshake()
        self.waits = isinstance(caught.value, ssl.SSLWantReadError)

    def _note(self, _tls: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> int:
        self.names.append(name)
        return ssl.ALERT_DESCRIPTION_INTERNAL_ERROR


REAL = sent(NAME, ("h2", "http/1.1"))


@given(
    st.lists(
        st.tuples(st.integers(0, len(REAL) - 1), st.sampled_from([0, 1, 2, 0x10, 0x7F])),
        max_size=3,
    ),
    st.sampled_from([17, 1 << 14]),
    st.integers(0, len(REAL)),
)
@example([], 1 << 14, 0)
@example([(REAL.index(NAME.encode()), 0x40)], 17, 0)
@example([(0, 0)], 1 << 14, 0)
def test_openssl_finds_the_same(changes: list[tuple[int, int]], size: int, lacking: int) -> None:
    data = bytearray(REAL)
    for place, value in changes:
        data[place] = value
    if size < len(REAL):
        data = bytearray(records(bytes(data[5:]), size))
    data = data[: len(data) - lacking]
    hello, by_openssl = read(bytes(data)), ByOpenSSL(bytes(data))
    if hello is None:
        assert by_openssl.waits
    elif hello != UNREADABLE:
        assert by_openssl.names in ([], [hello.server_name])
    if not changes and not lacking:
        assert hello == ClientHello(NAME, (b"h2", b"http/1.1"))
        assert by_openssl.names == [NAME]
