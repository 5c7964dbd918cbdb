"""The plain responder, by a socket that does as it is told."""

import errno
import os
import socket
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stun.message import build_binding_request, build_binding_response
from stun.pktinfo import IP_PKTINFO
from stun.plain import PlainResponder, response
from stun.stats import Stats

REQUEST = build_binding_request(bytes(12))
ANSWER = build_binding_response(bytes(12), IPv4Address("192.0.2.1"), 41641)
SENDER = ("192.0.2.1", 41641)


class Scripted:
    """A socket that has received these datagrams, and refuses to send to some addresses."""

    family = socket.AF_INET

    def __init__(self, *datagrams: bytes | OSError, control: list = (), sender: tuple = SENDER):
        self.waiting = [*datagrams]
        self.control, self.sender = [*control], sender
        self.refuses: list[int] = []
        self.sent: list = []

    def getsockopt(self, _level: int, _option: int) -> int:
        return int(bool(self.control))

    def recvmsg_into(self, views: list[memoryview], space: int) -> tuple:
        if not self.waiting:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        assert bool(space) is bool(self.control)
        datagram = self.waiting.pop(0)
        if isinstance(datagram, OSError):
            raise datagram
        size = min(len(views[0]), len(datagram))
        views[0][:size] = datagram[:size]
        return size, self.control, 0, self.sender

    def sendmsg(self, pieces: list[bytes], control: list, _flags: int, to: tuple) -> None:
        if self.refuses:
            number = self.refuses.pop(0)
            raise OSError(number, os.strerror(number))
        self.sent.append((b"".join(pieces), control, to))


@given(st.binary(min_size=12, max_size=12), st.ip_addresses(), st.integers(0, 65535))
def test_a_response_is_that_of_message(
    transaction_id: bytes, address: IPv4Address | IPv6Address, port: int
) -> None:
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        return  # It does not reach a socket that is IPV6_V6ONLY.
    built = build_binding_response(transaction_id, address, port)
    assert response(transaction_id, address.packed, port) == built


def test_takes_as_many_as_it_may() -> None:
    stats, sock = Stats(), Scripted(*[REQUEST] * 5)
    responder = PlainResponder(sock, stats)
    assert [responder.answer(1), responder.answer(2), responder.answer(9)] == [1, 2, 2]
    assert sock.sent == [(ANSWER, [], SENDER)] * 5
    assert stats == Stats(success=5, ipv4=5)
    with pytest.raises(BlockingIOError):
        responder.answer(1)


def test_the_senders_that_were_answered_are_known() -> None:
    """All of them: the proxy detector must not see only those that ask first."""
    responder = PlainResponder(Scripted(REQUEST, b"text", REQUEST, REQUEST), Stats())
    sender = bytes((192, 0, 2, 1)), (41641).to_bytes(2, "big")
    responder.answer(1)
    assert responder.senders == [sender]
    responder.answer(1)
    assert responder.senders == []
    responder.answer(2)
    assert responder.senders == [sender] * 2


@pytest.mark.parametrize("number", [errno.ENETUNREACH, errno.EPERM, errno.EAGAIN, errno.EINVAL])
def test_counts_what_can_not_be_sent_and_goes_on(number: int) -> None:
    stats, sock = Stats(), Scripted(REQUEST, REQUEST)
    sock.refuses = [number]
    assert PlainResponder(sock, stats).answer(9) == 2
    assert stats == Stats(write_error=1, success=1, ipv4=2)


def test_an_error_of_the_network_is_raised() -> None:
    stats = Stats()
    unreachable = OSError(errno.EHOSTUNREACH, "unreachable")
    responder = PlainResponder(Scripted(REQUEST, unreachable, REQUEST), stats)
    with pytest.raises(OSError, match="unreachable"):
        responder.answer(9)
    assert responder.answer(9) == 1
    assert stats == Stats(success=2, ipv4=2)


@pytest.mark.parametrize("length", [1501, 65507])
def test_what_is_longer_than_a_packet_is_not_answered(length: int) -> None:
    stats = Stats()
    long = build_binding_request(bytes(12))[:20] + bytes(length - 20)
    assert PlainResponder(Scripted(long), stats).answer(1) == 1
    assert stats == Stats(not_stun=1)


def test_responds_from_where_it_was_asked_by_any_interface() -> None:
    interface, local, destination = b"\x07\0\0\0", b"\x7f\0\0\2", b"\x7f\0\0\3"
    asked = (socket.IPPROTO_IP, IP_PKTINFO, interface + local + destination)
    sock = Scripted(REQUEST, control=[asked])
    PlainResponder(sock, Stats()).answer(1)
    control = [(socket.IPPROTO_IP, IP_PKTINFO, bytes(4) + local + destination)]
    assert sock.sent == [(ANSWER, control, SENDER)]


def test_an_ipv6_sender_may_have_a_zone() -> None:
    stats, local = Stats(), IPv6Address("fe80::2").packed
    asked = (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, local + b"\x07\0\0\0")
    sock = Scripted(REQUEST, control=[asked], sender=("fe80::1%eth0", 41641, 0, 7))
    sock.family = socket.AF_INET6
    PlainResponder(sock, stats).answer(1)
    answer = build_binding_response(bytes(12), IPv6Address("fe80::1"), 41641)
    control = [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, local + bytes(4))]
    assert sock.sent == [(answer, control, sock.sender)]
    assert stats == Stats(success=1, ipv6=1)
