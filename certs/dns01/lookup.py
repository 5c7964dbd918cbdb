"""Questions to name servers: where a record belongs, and whether they show it.

Zones and the addresses of their servers are asked from recursive resolvers. All about a record
itself is asked from the zone's own servers: a resolver would remember for an hour that there is no
such record, and an authority may ask the same resolver.
"""

import contextlib
import enum
import secrets
from collections.abc import Sequence
from typing import Final

import attrs
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdatatype
import dns.resolver
from dns.name import Name
from dns.rdatatype import RdataType

from certs.dns01.budget import Budget
from certs.dns01.options import DNS_PORT, Resolver
from certs.dns01.record import LABEL, Place, Record
from certs.errors import Failure, IssueError, printable

QUERY_TIMEOUT: Final = 3.0
"""Seconds for one server's answer."""
_LOOKUP_TIMEOUT: Final = 15.0
"""Seconds for a resolver's answer."""
_MAX_HOPS: Final = 8
"""Most CNAMEs and delegations to follow."""
_MAX_SERVERS: Final = 16
_MAX_ADDRESSES: Final = 4
_UDP_SIZE: Final = 1232
_ANSWERED: Final = (dns.rcode.NOERROR, dns.rcode.NXDOMAIN)


class Answer(enum.Enum):
    """A name server's answer to the question for a record."""

    SHOWN = enum.auto()
    NOT_SHOWN = enum.auto()
    SILENT = enum.auto()
    """No answer, or none of a server that has the zone."""


@attrs.frozen
class Server:
    """A name server of a zone."""

    name: str
    addresses: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(self.addresses) or 'without an address'})"


class Lookup:
    """The DNS look-ups of one order."""

    def __init__(self, resolvers: Sequence[Resolver] = (), *, port: int = DNS_PORT) -> None:
        """`port` is that of the zones' own servers. Raises IssueError without any resolver."""
        try:
            self.resolver = dns.resolver.Resolver(configure=not resolvers)
        except (dns.exception.DNSException, OSError) as error:
            raise IssueError(
                f"/etc/resolv.conf names no resolver ({printable(str(error), 100)}); "
                f"add one there, or give -acme-dns-resolvers"
            ) from error
        if resolvers:
            self.resolver.nameservers = [each.host for each in resolvers]
            self.resolver.nameserver_ports = {each.host: each.port for each in resolvers}
        self.port = port
        self._servers: dict[str, tuple[Server, ...]] = {}

    def place(self, record: Record, budget: Budget) -> Place:
        """Return where `record` has to be set: CNAMEs and delegations are followed.

        A CNAME that is a wildcard's is not, as a record of its own takes its place. Raises
        IssueError.
        """
        budget.check()
        try:
            name = dns.name.from_text(record.name)
        except dns.exception.DNSException as error:
            raise IssueError(
                f"{record.name} is too long for DNS; give -hostname a shorter name", Failure.REFUSED
            ) from error
        zone = self._zone(name.parent(), budget)
        for _ in range(_MAX_HOPS):
            budget.check()
            response = self._ask_any(self.servers(_text(zone), budget), name, budget)
            target = self._cname(name, budget) if response is None else _target(response, name)
            if target is not None and not self._is_wildcard(zone, name, target, budget):
                name = target
                zone = self._zone(name.parent(), budget)
            elif response is not None and (deeper := _delegation(response, name, zone)) is not None:
                zone = deeper
            else:
                return Place(_text(name), _text(zone))
        raise IssueError(
            f"{record.name} leads through more than {_MAX_HOPS} CNAMEs and delegations; "
            f"have it lead to the record's place in fewer",
            Failure.REFUSED,
        )

    def servers(self, zone: str, budget: Budget) -> tuple[Server, ...]:
        """Return the name servers of a zone. Raises IssueError."""
        if zone not in self._servers:
            found = self._resolve(dns.name.from_text(zone), RdataType.NS, budget)
            names = sorted(answer.target for answer in found)[:_MAX_SERVERS]
            self._servers[zone] = tuple(self._server(name, budget) for name in names)
        return self._servers[zone]

    def primary(self, zone: str, budget: Budget) -> str:
        """Return the name of a zone's primary server, of its SOA. Raises IssueError."""
        found = self._resolve(dns.name.from_text(zone), RdataType.SOA, budget)
        return _text(found[0].mname)

    def addresses(self, host: str, budget: Budget) -> tuple[str, ...]:
        """Return the addresses of a host; none if none are found."""
        return self._server(dns.name.from_text(host), budget).addresses

    def ask(self, server: Server, place: Place, value: str, budget: Budget) -> Answer:
        """Ask one server, at any of its addresses, whether it shows a TXT record."""
        name = dns.name.from_text(place.name)
        response = self._ask_any((server,), name, budget, RdataType.TXT)
        if response is None or not response.flags & dns.flags.AA:
            return Answer.SILENT
        texts = response.get_rrset(dns.message.ANSWER, name, dns.rdataclass.IN, RdataType.TXT)
        shown = texts is not None and any(value.encode() == b"".join(t.strings) for t in texts)
        return Answer.SHOWN if shown else Answer.NOT_SHOWN

    def _zone(self, name: Name, budget: Budget) -> Name:
        """Return the zone that a name is in, by the resolvers. Raises IssueError."""
        try:
            lifetime = budget.left(_LOOKUP_TIMEOUT)
            return dns.resolver.zone_for_name(name, resolver=self.resolver, lifetime=lifetime)
        except dns.exception.DNSException as error:
            raise self._unanswered(_text(name), "zone", error) from error

    def _resolve(self, name: Name, kind: RdataType, budget: Budget) -> dns.resolver.Answer:
        lifetime = budget.left(_LOOKUP_TIMEOUT)
        try:
            return self.resolver.resolve(name, kind, lifetime=lifetime, search=False)
        except dns.exception.DNSException as error:
            raise self._unanswered(_text(name), RdataType.to_text(kind), error) from error

    def _unanswered(self, name: str, what: str, error: Exception) -> IssueError:
        asked = ", ".join(map(str, self.resolver.nameservers))
        return IssueError(
            f"the resolver {asked} finds no {what} of {name} ({printable(str(error), 200)}); "
            f"see to this machine's DNS, or give -acme-dns-resolvers one that asks the internet"
        )

    def _server(self, name: Name, budget: Budget) -> Server:
        found = []
        for kind in (RdataType.A, RdataType.AAAA):
            lifetime = budget.left(_LOOKUP_TIMEOUT)
            # A server whose address can't be looked up is one that does not answer.
            with contextlib.suppress(dns.exception.DNSException):
                answer = self.resolver.resolve(name, kind, lifetime=lifetime, search=False)
                found += [record.address for record in answer]
        return Server(_text(name), tuple(found[:_MAX_ADDRESSES]))

    def _ask_any(
        self,
        servers: Sequence[Server],
        name: Name,
        budget: Budget,
        kind: RdataType = RdataType.CNAME,
    ) -> dns.message.Message | None:
        """Return the first answer of one of the servers; None if none gives any."""
        query = dns.message.make_query(name, kind, use_edns=0, payload=_UDP_SIZE)
        query.flags &= ~dns.flags.RD
        for address in (address for server in servers for address in server.addresses):
            budget.check()
            timeout = budget.left(QUERY_TIMEOUT)
            try:
                response, _ = dns.query.udp_with_fallback(
                    query, address, timeout=timeout, port=self.port, ignore_unexpected=True
                )
            except (OSError, dns.exception.DNSException, ValueError):
                continue
            if response.rcode() in _ANSWERED:
                return response
        return None

    def _cname(self, name: Name, budget: Budget) -> Name | None:
        """Return where a name leads by a CNAME, by the resolvers."""
        try:
            answer = self._resolve(name, RdataType.CNAME, budget)
        except IssueError:
            return None
        target: Name = answer[0].target
        return target

    def _is_wildcard(self, zone: Name, name: Name, target: Name, budget: Budget) -> bool:
        """Return whether a name that nobody has given leads to `target`, too."""
        other = dns.name.Name((f"{LABEL}-{secrets.token_hex(8)}".encode(), *name.labels[1:]))
        response = self._ask_any(self.servers(_text(zone), budget), other, budget)
        return response is not None and _target(response, other) == target


def _target(response: dns.message.Message, name: Name) -> Name | None:
    """Return where a CNAME in an answer leads."""
    found = response.get_rrset(dns.message.ANSWER, name, dns.rdataclass.IN, RdataType.CNAME)
    if found is None:
        return None
    target: Name = found[0].target
    return target


def _delegation(response: dns.message.Message, name: Name, zone: Name) -> Name | None:
    """Return the zone below `zone` that has `name`, by a server's answer; None if there is none.

    A server refers to others for it, or has it itself, and names it in a negative answer.
    """
    kind = RdataType.SOA if response.flags & dns.flags.AA else RdataType.NS
    for rrset in response.authority:
        is_deeper = rrset.name != zone and rrset.name.is_subdomain(zone)
        if rrset.rdtype == kind and is_deeper and name.is_subdomain(rrset.name):
            return rrset.name
    return None


def _text(name: Name) -> str:
    return name.to_text(omit_final_dot=True)
