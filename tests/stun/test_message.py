"""STUN messages, against what Go's net/stun makes and takes, and RFC 5769's examples."""

import contextlib
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stun import message
from stun.message import MappedAddress

RFC_ID = bytes.fromhex("b7e7a701bc34d686fa87dfae")
COUNTING_ID = bytes(range(12))

REQUEST = "000100142112a442000102030405060708090a0b802200087461696c6e6f6465802800048aabad90"
REQUEST_HEADER = "2112a442000102030405060708090a0b"
SOFTWARE = "802200087461696c6e6f6465"
RESPONSE_HEADER = "2112a442b7e7a701bc34d686fa87dfae"
ADDRESS = MappedAddress(IPv4Address("192.0.2.1"), 32853)

transaction_ids = st.binary(min_size=12, max_size=12)
addresses = st.ip_addresses()
ports = st.integers(0, 65535)


# Recorded from Go: stun.Request(id)
@pytest.mark.parametrize(
    ("transaction_id", "request_hex"),
    [
        (COUNTING_ID, REQUEST),
        (
            RFC_ID,
            "000100142112a442b7e7a701bc34d686fa87dfae802200087461696c6e6f6465802800049e8df0ce",
        ),
    ],
)
def test_builds_the_request_that_go_builds(transaction_id: bytes, request_hex: str) -> None:
    assert message.build_binding_request(transaction_id).hex() == request_hex


# Recorded from Go: stun.Response(RFC_ID, netip.AddrPortFrom(address, port)), the last address
# through Unmap first
@pytest.mark.parametrize(
    ("address", "port", "response"),
    [
        ("192.0.2.1", 32853, "0101000c" + RESPONSE_HEADER + "002000080001a147e112a643"),
        ("255.255.255.255", 65535, "0101000c" + RESPONSE_HEADER + "002000080001deeddeed5bbd"),
        ("0.0.0.0", 0, "0101000c" + RESPONSE_HEADER + "00200008000121122112a442"),
        ("127.0.0.1", 3478, "0101000c" + RESPONSE_HEADER + "0020000800012c845e12a443"),
        (
            "2001:db8:1234:5678:11:2233:4455:6677",
            32853,
            "01010018" + RESPONSE_HEADER + "002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9",
        ),
        (
            "::1",
            1,
            "01010018" + RESPONSE_HEADER + "00200014000221132112a442b7e7a701bc34d686fa87dfaf",
        ),
        (
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            65535,
            "01010018" + RESPONSE_HEADER + "002000140002deeddeed5bbd481858fe43cb297905782051",
        ),
        (
            "fe80::1%eth0",
            3478,
            "01010018" + RESPONSE_HEADER + "0020001400022c84df92a442b7e7a701bc34d686fa87dfaf",
        ),
        ("::ffff:192.0.2.1", 32853, "0101000c" + RESPONSE_HEADER + "002000080001a147e112a643"),
    ],
)
def test_builds_the_response_that_go_builds(address: str, port: int, response: str) -> None:
    assert message.build_binding_response(RFC_ID, ip_address(address), port).hex() == response


# Recorded from Go: stun.ParseBindingRequest(request) returns COUNTING_ID and no error
@pytest.mark.parametrize(
    "request_hex",
    [
        pytest.param(REQUEST, id="a client's"),
        pytest.param(
            "0001ffff" + REQUEST_HEADER + SOFTWARE + "80280004f96eb588", id="wrong length"
        ),
        pytest.param(
            "0001001c" + REQUEST_HEADER + "002400046e0001ff" + SOFTWARE + "802800044931abbd",
            id="another attribute",
        ),
        pytest.param(
            "00010020"
            + REQUEST_HEADER
            + "0006000568656c6c6f000000"
            + SOFTWARE
            + "802800043eb65799",
            id="a padded attribute",
        ),
        pytest.param(
            "00010028" + REQUEST_HEADER + "8022000461626364" + SOFTWARE + "802800048d4eb758",
            id="software twice",
        ),
        pytest.param(
            "00010018" + REQUEST_HEADER + "00250000" + SOFTWARE + "80280004c51a47db",
            id="an empty attribute",
        ),
        pytest.param(
            "0001001c" + REQUEST_HEADER + SOFTWARE + "8028000400000000" + "80280004941ed5cc",
            id="two fingerprints, the last right",
        ),
        pytest.param(
            "0001001c" + REQUEST_HEADER + "7fff000400000000" + SOFTWARE + "802800042de20206",
            id="an unknown attribute",
        ),
    ],
)
def test_takes_requests_that_go_takes(request_hex: str) -> None:
    assert message.parse_binding_request(bytes.fromhex(request_hex)) == COUNTING_ID


# Recorded from Go: stun.ParseBindingRequest(request) returns an error
@pytest.mark.parametrize(
    ("request_hex", "error"),
    [
        pytest.param("", message.NotStunError, id="nothing"),
        pytest.param("0001000021", message.NotStunError, id="half a header"),
        pytest.param("8001" + REQUEST[4:], message.NotStunError, id="highest bit"),
        pytest.param("4001" + REQUEST[4:], message.NotStunError, id="second highest bit"),
        pytest.param(REQUEST[:14] + "43" + REQUEST[16:], message.NotStunError, id="wrong cookie"),
        pytest.param("0101" + REQUEST[4:], message.NotBindingRequestError, id="response"),
        pytest.param("0011" + REQUEST[4:], message.NotBindingRequestError, id="indication"),
        pytest.param("00010000" + REQUEST_HEADER, message.WrongSoftwareError, id="only a header"),
        pytest.param(
            "00010014" + REQUEST_HEADER + "802200087461696c6e6f64668028000413a2fc2a",
            message.WrongSoftwareError,
            id="other software",
        ),
        pytest.param(
            "00010018" + REQUEST_HEADER + "802200097461696c6e6f646573000000802800047054e570",
            message.WrongSoftwareError,
            id="longer software",
        ),
        pytest.param(
            "00010008" + REQUEST_HEADER + "802800045b0ff6fc",
            message.WrongSoftwareError,
            id="no software",
        ),
        pytest.param(
            "000100582112a442b7e7a701bc34d686fa87dfae"
            "802200105354554e207465737420636c69656e74"
            "002400046e0001ff80290008932ff9b151263b36"
            "000600096576746a3a68367659202020"
            "000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2"
            "80280004e57a3bcf",
            message.WrongSoftwareError,
            id="RFC 5769 2.1, which is valid STUN",
        ),
        pytest.param(
            "0001000c" + REQUEST_HEADER + SOFTWARE,
            message.WrongFingerprintError,
            id="no fingerprint",
        ),
        pytest.param(
            "00010018" + REQUEST_HEADER + SOFTWARE + "8028000473190ae3" + "00250000",
            message.WrongFingerprintError,
            id="fingerprint not last",
        ),
        pytest.param(REQUEST[:-2] + "00", message.WrongFingerprintError, id="wrong fingerprint"),
        pytest.param(
            "00010010" + REQUEST_HEADER + SOFTWARE + "80280000",
            message.MalformedAttributeError,
            id="empty fingerprint",
        ),
        pytest.param(REQUEST[:-2], message.MalformedAttributeError, id="cut short"),
        pytest.param(REQUEST + "00", message.MalformedAttributeError, id="a byte too many"),
        pytest.param(
            "00010012" + REQUEST_HEADER + "802200077461696c6e6f6480280004a9003b06",
            message.MalformedAttributeError,
            id="no padding",
        ),
    ],
)
def test_refuses_requests_that_go_refuses(request_hex: str, error: type[message.StunError]) -> None:
    with pytest.raises(error):
        message.parse_binding_request(bytes.fromhex(request_hex))


# Recorded from Go: stun.ParseResponse(response) returns RFC_ID, 192.0.2.1:32853 and no error
@pytest.mark.parametrize(
    "response",
    [
        pytest.param(
            "0101003c2112a442b7e7a701bc34d686fa87dfae"
            "8022000b7465737420766563746f7220"
            "002000080001a147e112a643"
            "000800142b91f599fd9e90c38c7489f92af9ba53f06be7d7"
            "80280004c07d4c96",
            id="RFC 5769 2.2",
        ),
        pytest.param("0101000c" + RESPONSE_HEADER + "002000080001a147e112a643", id="Go's"),
        pytest.param("0101000c" + RESPONSE_HEADER + "802000080001a147e112a643", id="draft number"),
        pytest.param("0101000c" + RESPONSE_HEADER + "0001000800018055c0000201", id="mapped only"),
        pytest.param(
            "01010018" + RESPONSE_HEADER + "002000080001a147e112a643" + "0001000800018055c0000202",
            id="XOR goes before mapped",
        ),
        pytest.param(
            "01010018" + RESPONSE_HEADER + "002000080001a147e112a642" + "802000080001a147e112a643",
            id="last XOR counts",
        ),
        pytest.param(
            "01010018" + RESPONSE_HEADER + "000100140002805500000000000000000000ffffc0000201",
            id="mapped into IPv6",
        ),
        pytest.param(
            "0101000c" + RESPONSE_HEADER + "002000080001a147e112a643ffffff", id="bytes behind"
        ),
        pytest.param("0101000c" + RESPONSE_HEADER + "00200008ff01a147e112a643", id="first byte"),
        pytest.param(
            "01010010" + RESPONSE_HEADER + "0020000c0001a147e112a64300000000", id="longer value"
        ),
    ],
)
def test_reads_responses_that_go_reads(response: str) -> None:
    assert message.parse_binding_response(bytes.fromhex(response)) == (RFC_ID, ADDRESS)


# Recorded from Go: stun.ParseResponse, with other addresses
@pytest.mark.parametrize(
    ("response", "address"),
    [
        pytest.param(
            "010100482112a442b7e7a701bc34d686fa87dfae"
            "8022000b7465737420766563746f7220"
            "002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9"
            "00080014a382954e4be67bf11784c97c8292c275bfe3ed41"
            "80280004c8fb0b4c",
            "2001:db8:1234:5678:11:2233:4455:6677",
            id="RFC 5769 2.3",
        ),
        pytest.param(
            "01010018" + RESPONSE_HEADER + "000100140002805520010db8000000000000000000000001",
            "2001:db8::1",
            id="mapped only",
        ),
    ],
)
def test_reads_ipv6_responses(response: str, address: str) -> None:
    expected = (RFC_ID, MappedAddress(IPv6Address(address), 32853))
    assert message.parse_binding_response(bytes.fromhex(response)) == expected


# Recorded from Go: stun.ParseResponse(response) returns an error
@pytest.mark.parametrize(
    ("response", "error"),
    [
        pytest.param("", message.NotStunError, id="nothing"),
        pytest.param("01010000" + RESPONSE_HEADER[:-2], message.NotStunError, id="half a header"),
        pytest.param(REQUEST, message.NotSuccessResponseError, id="request"),
        pytest.param(
            "01110000" + RESPONSE_HEADER, message.NotSuccessResponseError, id="error response"
        ),
        pytest.param("01010000" + RESPONSE_HEADER, message.NoAddressError, id="no address"),
        *(
            pytest.param(header + RESPONSE_HEADER + rest, message.MalformedAttributeError, id=name)
            for name, header, rest in (
                ("family 3", "0101000c", "002000080003a147e112a643"),
                ("value of 3 bytes", "01010008", "002000030001a100"),
                ("value of no bytes", "01010004", "00200000"),
                ("IPv4 address of 3 bytes", "0101000c", "002000070001a147e112a600"),
                ("IPv6 address of 4 bytes", "0101000c", "002000080002a147e112a643"),
                ("bytes missing", "01010010", "002000080001a147e112a643"),
                ("attribute cut by the length", "0101000a", "002000080001a147e112a643"),
                ("attribute without header", "01010002", "0020"),
                ("broken second address", "01010014", "002000080001a147e112a6430001000100000000"),
            )
        ),
    ],
)
def test_refuses_responses_that_go_refuses(response: str, error: type[message.StunError]) -> None:
    with pytest.raises(error):
        message.parse_binding_response(bytes.fromhex(response))


@settings(deadline=None)
@given(
    data=st.binary(max_size=200) | st.binary(max_size=80).map(bytes.fromhex(REQUEST)[:20].__add__)
)
def test_any_bytes_raise_nothing_but_our_error(data: bytes) -> None:
    for parse in (message.parse_binding_request, message.parse_binding_response):
        with contextlib.suppress(message.StunError):
            parse(data)


@settings(deadline=None)
@given(transaction_id=transaction_ids, address=addresses, port=ports, body=st.binary(max_size=60))
def test_any_body_of_a_response_raises_nothing_but_our_error(
    transaction_id: bytes, address: IPv4Address | IPv6Address, port: int, body: bytes
) -> None:
    response = message.build_binding_response(transaction_id, address, port)
    for data in (response[:20] + body, response + body, response[:2] + b"\xff\xff" + body):
        with contextlib.suppress(message.StunError):
            message.parse_binding_response(data)


@settings(deadline=None)
@given(transaction_id=transaction_ids)
def test_a_request_comes_back(transaction_id: bytes) -> None:
    request = message.build_binding_request(transaction_id)
    assert len(request) == 40
    assert message.is_client_request(request)
    assert message.parse_binding_request(request) == transaction_id


@settings(deadline=None)
@given(transaction_id=transaction_ids, at=st.integers(0, 39), flip=st.integers(1, 255))
def test_no_changed_byte_is_overlooked(transaction_id: bytes, at: int, flip: int) -> None:
    request = bytearray(message.build_binding_request(transaction_id))
    request[at] ^= flip
    assert not message.is_client_request(bytes(request))
    with pytest.raises(message.StunError):
        message.parse_binding_request(bytes(request))


@settings(deadline=None)
@given(transaction_id=transaction_ids, address=addresses, port=ports)
def test_a_response_comes_back(
    transaction_id: bytes, address: IPv4Address | IPv6Address, port: int
) -> None:
    response = message.build_binding_response(transaction_id, address, port)
    expected = (getattr(address, "ipv4_mapped", None) or address, port)
    assert message.parse_binding_response(response) == (transaction_id, MappedAddress(*expected))


def signed(attributes: bytes) -> bytes:
    """Make a request of attributes, and then a right fingerprint."""
    unsigned = bytes.fromhex("00010000" + REQUEST_HEADER) + attributes
    return unsigned + b"\x80\x28\x00\x04" + message.fingerprint(unsigned).to_bytes(4, "big")


def packed(number: int, value: bytes) -> bytes:
    padding = bytes(-len(value) % 4)
    return number.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value + padding


@settings(deadline=None)
@given(
    attributes=st.lists(
        st.tuples(st.integers(0, 0xFFFF), st.binary(max_size=20)),
        max_size=2 * message.MAX_ATTRIBUTES,
    ),
    at=st.integers(0, 2 * message.MAX_ATTRIBUTES),
)
def test_a_request_has_as_many_attributes_as_may_be(
    attributes: list[tuple[int, bytes]], at: int
) -> None:
    """Whatever they are, and wherever among them the client's own is."""
    every = [packed(number, value) for number, value in attributes]
    every.insert(at, bytes.fromhex(SOFTWARE))
    request = signed(b"".join(every))
    if len(every) + 1 <= message.MAX_ATTRIBUTES:  # with the fingerprint
        assert message.parse_binding_request(request) == COUNTING_ID
    else:
        with pytest.raises(message.TooManyAttributesError):
            message.parse_binding_request(request)


@pytest.mark.parametrize("value", [b"", b"1234"])
def test_no_more_attributes_are_looked_at(value: bytes) -> None:
    """What comes behind them is not even read: it would be refused as malformed."""
    many = packed(0x7FFF, value) * message.MAX_ATTRIBUTES
    request = signed(bytes.fromhex(SOFTWARE) + many) + b"\x7f"
    with pytest.raises(message.TooManyAttributesError):
        message.parse_binding_request(request)


@settings(deadline=None)
@given(
    transaction_id=transaction_ids,
    attributes=st.lists(st.tuples(st.integers(0, 0xFFFF), st.binary(max_size=30)), max_size=5),
)
def test_the_shortest_request_bounds_amplification(
    transaction_id: bytes, attributes: list[tuple[int, bytes]]
) -> None:
    extra = b"".join(packed(number, value) for number, value in attributes)
    client = message.build_binding_request(transaction_id)
    unsigned = client[:20] + extra + client[20:32]
    request = unsigned + b"\x80\x28\x00\x04" + message.fingerprint(unsigned).to_bytes(4, "big")
    assert message.parse_binding_request(request) == transaction_id
    ipv4 = message.build_binding_response(transaction_id, IPv4Address("192.0.2.1"), 1)
    ipv6 = message.build_binding_response(transaction_id, IPv6Address("2001:db8::1"), 1)
    assert len(ipv4) == 32 < len(request)
    # No request can be shorter than 40 bytes, and an IPv6 address takes 44 to tell.
    assert len(ipv6) == 44 <= len(request) + 4
