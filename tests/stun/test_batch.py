"""A batch gives what `stun.message` gives, row by row, whatever else is in the batch."""

import itertools
import struct
import sys
from ipaddress import IPv4Address, IPv6Address

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stun import message
from stun.batch import (
    CAPACITY,
    DATAGRAM_AT,
    IPV4,
    IPV6,
    OVERFLOW,
    ROW_CAPACITY,
    STRIDE,
    Batch,
    Family,
    answered_ranges,
)

BATCHES = {4: Batch(IPV4), 6: Batch(IPV6)}
"""Kept from example to example, so that what an earlier batch left is there to be found."""

LONGEST = ROW_CAPACITY + OVERFLOW


@attrs.frozen
class Datagram:
    data: bytes
    address: IPv4Address | IPv6Address
    port: int

    @property
    def name(self) -> bytes:
        family = {4: 2, 6: 10}[self.address.version].to_bytes(2, sys.byteorder)
        flow = b"" if self.address.version == 4 else bytes(4)
        return family + struct.pack(">H", self.port) + flow + self.address.packed

    @property
    def response(self) -> bytes | None:
        if len(self.data) > LONGEST:
            return None
        try:
            transaction_id = message.parse_binding_request(self.data)
        except message.StunError:
            return None
        return message.build_binding_response(transaction_id, self.address, self.port)


def receive(batch: Batch, datagrams: list[Datagram]) -> list[bytes | None]:
    """Put datagrams into a batch as the kernel does; return the responses."""
    for row, datagram in enumerate(datagrams):
        at, rest, name = (
            row * STRIDE + DATAGRAM_AT,
            row * OVERFLOW,
            row * batch.family.sockaddr_stride,
        )
        head, tail = datagram.data[:ROW_CAPACITY], datagram.data[ROW_CAPACITY:LONGEST]
        batch.rows[at : at + len(head)] = head
        batch.overflow[rest : rest + len(tail)] = tail
        batch.sockaddrs[name : name + len(datagram.name)] = datagram.name
    answered = batch.answer([len(datagram.data) for datagram in datagrams])
    length = batch.family.response_length
    return [
        bytes(batch.rows[row * STRIDE + DATAGRAM_AT :][:length]) if yes else None
        for row, yes in enumerate(answered)
    ]


def request(transaction_id: bytes, extra: bytes = b"") -> bytes:
    """Make a valid request, with attributes before SOFTWARE."""
    client = message.build_binding_request(transaction_id)
    unsigned = client[:20] + extra + client[20:32]
    return unsigned + b"\x80\x28\x00\x04" + message.fingerprint(unsigned).to_bytes(4, "big")


def attribute(length: int) -> bytes:
    return b"\x00\x25" + length.to_bytes(2, "big") + bytes(length + (-length % 4))


transaction_ids = st.binary(min_size=12, max_size=12)
requests = transaction_ids.map(message.build_binding_request)
other_requests = st.builds(request, transaction_ids, st.integers(0, 1500).map(attribute))
changed_requests = st.builds(
    lambda data, at, flip: data[:at] + bytes((data[at] ^ flip,)) + data[at + 1 :],
    requests,
    st.integers(0, 39),
    st.integers(0, 255),
)
cut_requests = st.builds(lambda data, length: data[:length], requests, st.integers(0, 40))
garbage = st.binary(max_size=100)


@pytest.mark.parametrize("version", [4, 6])
@settings(deadline=None)
@given(data=st.data())
def test_a_batch_answers_as_one_by_one(version: int, data: st.DataObject) -> None:
    kinds = data.draw(
        st.sampled_from(
            [
                requests,
                requests | changed_requests,
                requests | other_requests | changed_requests | cut_requests | garbage,
            ]
        )
    )
    # The kernel lets no IPv4-mapped sender through to a socket that is IPV6_V6ONLY.
    addresses = st.ip_addresses(v=version).filter(lambda ip: not getattr(ip, "ipv4_mapped", None))
    datagram = st.builds(Datagram, kinds, addresses, st.integers(0, 65535))
    datagrams = data.draw(st.lists(datagram, min_size=1, max_size=12))
    assert receive(BATCHES[version], datagrams) == [each.response for each in datagrams]


@pytest.mark.parametrize("family", [IPV4, IPV6])
def test_a_full_batch_is_answered(family: Family) -> None:
    kind, size = (IPv4Address, 4) if family is IPV4 else (IPv6Address, 16)
    datagrams = [
        Datagram(request(bytes((row,)) * 12), kind(bytes((255 - row,)) * size), 1000 + row)
        for row in range(CAPACITY)
    ]
    responses = receive(Batch(family), datagrams)
    assert responses == [each.response for each in datagrams]
    assert {len(each or b"") for each in responses} == {family.response_length}


@pytest.mark.parametrize(
    ("family", "address"), [(IPV4, IPv4Address("192.0.2.7")), (IPV6, IPv6Address("2001:db8::7"))]
)
def test_the_first_sender_is_known(family: Family, address: IPv4Address | IPv6Address) -> None:
    batch = Batch(family)
    other = type(address)(int(address) + 1)
    receive(batch, [Datagram(b"", address, 0x1234), Datagram(b"", other, 0x5678)])
    assert batch.first_sender() == (address.packed, b"\x12\x34")


@pytest.mark.parametrize("row", [0, 1, CAPACITY - 1])
def test_one_wrong_fingerprint_is_found_in_a_full_batch(row: int) -> None:
    datagrams = [
        Datagram(request(bytes((row,)) * 12), IPv4Address("192.0.2.1"), 1)
        for row in range(CAPACITY)
    ]
    datagrams[row] = attrs.evolve(datagrams[row], data=datagrams[row].data[:-1] + b"\x00")
    responses = receive(Batch(IPV4), datagrams)
    assert [at for at, response in enumerate(responses) if response is None] == [row]


@pytest.mark.parametrize(
    ("padding", "answered"),
    [
        pytest.param(ROW_CAPACITY - 44, True, id="just a row"),
        pytest.param(ROW_CAPACITY - 40, True, id="a little more than a row"),
        pytest.param(LONGEST - 44, True, id="all that fits"),
        pytest.param(LONGEST - 40, False, id="more than fits"),
    ],
)
def test_long_requests_are_answered_up_to_a_limit(padding: int, *, answered: bool) -> None:
    datagram = Datagram(request(bytes(12), attribute(padding)), IPv4Address("192.0.2.1"), 1)
    (response,) = receive(Batch(IPV4), [datagram])
    assert (response is not None) == answered
    assert response == datagram.response


def test_the_end_of_a_long_request_is_not_read_from_the_next_row() -> None:
    data = request(bytes(12), attribute(LONGEST - 40))
    end_lies_there = bytes(ROW_CAPACITY) + data[LONGEST:]
    datagrams = [Datagram(each, IPv4Address("192.0.2.1"), 1) for each in (data, end_lies_there)]
    assert receive(Batch(IPV4), datagrams) == [None, None]


def test_the_missing_end_of_a_request_is_not_read_from_an_earlier_one() -> None:
    batch = Batch(IPV4)
    whole = Datagram(request(bytes(12)), IPv4Address("192.0.2.1"), 1)
    assert receive(batch, [whole]) == [whole.response]
    for length in range(40):
        batch.rows[DATAGRAM_AT : DATAGRAM_AT + 40] = whole.data
        assert receive(batch, [attrs.evolve(whole, data=whole.data[:length])]) == [None]


@settings(deadline=None)
@given(answered=st.lists(st.booleans()))
def test_ranges_are_the_answered_rows(answered: list[bool]) -> None:
    found = [*answered_ranges(answered)]
    rows = [row for first, stop in found for row in range(first, stop)]
    assert rows == [row for row, yes in enumerate(answered) if yes]
    for (_, stop), (first, _) in itertools.pairwise(found):
        assert stop < first
