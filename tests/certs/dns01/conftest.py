"""Name servers on loopback, which answer as they are told to."""

import contextlib
import random
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from certs.dns01.lookup import Lookup
from certs.dns01.options import Resolver

Records = dict[tuple[str, str], list[str]]
"""Texts by name and type."""


@attrs.define
class NameServer:
    """A name server with zones; its answers have authority for what is below one of them."""

    records: Records = attrs.Factory(dict)
    referrals: dict[str, str] = attrs.Factory(dict)
    """Name servers by the zones that it refers to."""
    rcode: int | None = None
    """What it answers to everything, if anything."""
    asked: list[tuple[str, str]] = attrs.Factory(list)
    asked_to_recurse: list[tuple[str, str]] = attrs.Factory(list)

    def answer(self, query: dns.message.Message) -> dns.message.Message:
        response = dns.message.make_response(query)
        question = query.question[0]
        name, kind = question.name.to_text(True), dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, kind))
        if query.flags & dns.flags.RD:
            self.asked_to_recurse.append((name, kind))
        if self.rcode is not None:
            response.set_rcode(self.rcode)
            return response
        for zone, server in self.referrals.items():
            if question.name.is_subdomain(dns.name.from_text(zone)):
                response.authority.append(dns.rrset.from_text(f"{zone}.", 60, "IN", "NS", server))
                return response
        response.flags |= dns.flags.AA
        parent = f"*.{name.partition('.')[2]}"
        for key in ((name, kind), (name, "CNAME"), (parent, kind), (parent, "CNAME")):
            if key in self.records and not (key[0] == parent and self._exists(name)):
                answer = dns.rrset.from_text(f"{name}.", 60, "IN", key[1], *self.records[key])
                response.answer.append(answer)
                return response
        if not self._exists(name):
            response.set_rcode(dns.rcode.NXDOMAIN)
        zones = [
            zone for zone, kind in self.records if kind == "SOA" and f".{name}".endswith(f".{zone}")
        ]
        if zones:
            zone = max(zones, key=len)
            soa = dns.rrset.from_text(f"{zone}.", 60, "IN", "SOA", *self.records[zone, "SOA"])
            response.authority.append(soa)
        return response

    def _exists(self, name: str) -> bool:
        return any(known == name for known, _ in self.records)


class _UDP(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        data, sock = self.request
        response = self.server.names.answer(dns.message.from_wire(data))  # type: ignore[attr-defined]
        sock.sendto(response.to_wire(), self.client_address)


@pytest.fixture
def port() -> int:
    """Find a port that is free for UDP and TCP, and that no client is given in the meantime."""
    ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for candidate in random.sample(range(10_000, ephemeral), 100):
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
            socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
        ):
            udp.bind(("", candidate))
            tcp.bind(("", candidate))
            return candidate
    raise AssertionError("a hundred ports are taken")


@pytest.fixture
def serve(port: int) -> Iterator[Callable[..., NameServer]]:
    """Serve at an address of loopback, on the port that all name servers have here."""
    with contextlib.ExitStack() as stack:

        def serve(address: str, records: Records | None = None, **more: Any) -> NameServer:
            names = NameServer(records or {}, **more)
            server = stack.enter_context(socketserver.UDPServer((address, port), _UDP))
            server.names = names  # type: ignore[attr-defined]
            thread = threading.Thread(target=server.serve_forever, args=(0.02,))
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            return names

        yield serve


@pytest.fixture
def lookup(port: int) -> Lookup:
    return Lookup([Resolver("127.0.0.1", port)], port=port)


def soa(zone: str) -> Records:
    return {(zone, "SOA"): [f"ns1.{zone}. hostmaster.{zone}. 1 60 60 600 60"]}


def zone(name: str, *addresses: str) -> Records:
    """The records of a zone whose name servers have these addresses."""
    servers = {f"ns{number}.{name}": each for number, each in enumerate(addresses, 1)}
    return {
        **soa(name),
        (name, "NS"): [f"{server}." for server in servers],
        **{(server, "A"): [address] for server, address in servers.items()},
    }
