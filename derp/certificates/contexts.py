"""The listeners' side of certificates: which context answers which ClientHello.

Most relays have one certificate, and TLSEngine's one context serves everybody. It takes a look at
the ClientHello only while an ACME challenge is under way (RFC 8737), and where the server has
certificates for IP addresses: a client that connects to an address names none, and gets the
certificate for the address that its connection arrived at, as from Go's ipCertManager.
"""

import ssl
from collections.abc import Callable, Iterable

from certs.acme.challenge import ALPN_OFFER, HTTP01, Challenge
from certs.context import make_waiting_context
from certs.hostname import IPAddress, parse_ip
from derp.net.address import Endpoint
from derp.net.tls import TLSEngine
from derp.wire.clienthello import UNREADABLE, ClientHello

OnDemand = Callable[[IPAddress], bool]
"""Asks for a certificate for one of the server's addresses; False where none is to be had."""


class ByAddress:
    """The contexts of a server that has certificates for its IP addresses."""

    def __init__(self, named: Iterable[IPAddress], on_demand: OnDemand) -> None:
        self.contexts: dict[IPAddress, ssl.SSLContext] = {}
        self._named = tuple(named)
        self._on_demand = on_demand
        self._foreign = make_waiting_context(
            "the client asked for an IP address that is not this server's",
            ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME,
        )
        self._awaited = make_waiting_context("there is no certificate for that address yet")
        self._impossible = make_waiting_context(
            "the connection came to an address that no authority certifies; "
            "name the public ones with -acme-ip-addresses"
        )

    def choose(self, asked: IPAddress | None, local: IPAddress) -> ssl.SSLContext:
        """Return what answers a client that asks for the address `asked`, or for no name at all.

        `local` is the address that its connection arrived at.
        """
        if asked is not None and asked != local and asked not in self._named:
            return self._foreign
        address = local if asked is None else asked
        context = self.contexts.get(address)
        if context is not None:
            return context
        if address in self._named:
            return self._awaited
        if self._on_demand(address):
            return self._awaited
        if self._named:
            # Behind NAT, where connections arrive at a private address.
            return self.contexts.get(self._named[0], self._awaited)
        return self._impossible


class Contexts:
    """All contexts of a server; sees to what `engine` serves."""

    def __init__(self, engine: TLSEngine, by_address: ByAddress | None = None) -> None:
        self.engine = engine
        self.http_challenges: dict[str, str] = {}
        """Bodies of the answers to HTTP-01 challenges, by their tokens."""
        self._by_address = by_address
        self._tls_challenges: dict[str, ssl.SSLContext] = {}
        self._look_at_hellos()

    def install(self, names: Iterable[str], context: ssl.SSLContext) -> None:
        """Serve `context` to those who connect from now on and ask for one of `names`."""
        for name in names:
            address = parse_ip(name)
            if address is None or self._by_address is None:
                self.engine.context = context
            else:
                self._by_address.contexts[address] = context

    def show(self, challenge: Challenge, context: ssl.SSLContext | None) -> None:
        """Answer `challenge` until it is hidden; with `context` if it is TLS-ALPN-01."""
        if isinstance(challenge, HTTP01):
            self.http_challenges[challenge.token] = challenge.body
        elif context is not None:
            self._tls_challenges[challenge.server_name.lower()] = context
            self._look_at_hellos()

    def hide(self, challenge: Challenge) -> None:
        """Answer `challenge` no longer."""
        if isinstance(challenge, HTTP01):
            self.http_challenges.pop(challenge.token, None)
        else:
            self._tls_challenges.pop(challenge.server_name.lower(), None)
            self._look_at_hellos()

    def _look_at_hellos(self) -> None:
        needed = bool(self._tls_challenges) or self._by_address is not None
        self.engine.choose = self._choose if needed else None

    def _choose(self, hello: ClientHello, local: Endpoint) -> ssl.SSLContext:
        name = hello.server_name
        if name is not None and hello.alpn == ALPN_OFFER:
            challenge = self._tls_challenges.get(name.lower().removesuffix("."))
            if challenge is not None:
                return challenge
        asked = None if name is None else parse_ip(name)
        here = parse_ip(local.host)
        by_address = self._by_address
        asks_for_dns_name = name is not None and asked is None
        # Whoever does not even speak TLS is no reason to have a certificate.
        if by_address is None or here is None or asks_for_dns_name or hello is UNREADABLE:
            return self.engine.context
        return by_address.choose(asked, here)
