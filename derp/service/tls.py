"""The choice of the TLS context that answers a ClientHello.

With one certificate, TLSEngine's one context serves every client. The ClientHello is read only
while an ACME challenge is pending (RFC 8737), where the relay hides, and where the server has
certificates for IP addresses: a client that connects to an address sends no server name, and gets
the certificate for the address that its connection arrived at, as from Go's ipCertManager.
"""

import ssl
from collections.abc import Callable, Iterable, Sequence

from certs.acme.challenge import ALPN_OFFER, HTTP01, Challenge
from certs.context import HIDDEN_PROTOCOLS, make_alpn_refusal, make_waiting_context
from certs.hostname import IPAddress, parse_ip
from certs.tasks.manager import Certificates
from certs.tasks.plan import Plan
from certs.tasks.requests import Requests
from certs.tasks.status import Status
from derp.net.address import Endpoint
from derp.net.tlsengine import TLSEngine
from derp.wire.clienthello import UNREADABLE, ClientHello

RequestCertificate = Callable[[IPAddress], bool]
"""Requests a certificate for one of the server's addresses; returns whether one may come."""


class ByAddress:
    """The contexts of a server that has certificates for its IP addresses."""

    def __init__(self, named: Iterable[IPAddress], request: RequestCertificate) -> None:
        """Serve the addresses in `named`, and those for which `request` gets certificates."""
        self.contexts: dict[IPAddress, ssl.SSLContext] = {}
        self._named = tuple(named)
        self._request = request
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
        """Return the context for a client that asks for the address `asked`, None for no name.

        Its connection arrived at the address `local`.
        """
        if asked is not None and asked != local and asked not in self._named:
            return self._foreign
        address = local if asked is None else asked
        context = self.contexts.get(address)
        if context is not None:
            return context
        if address in self._named or self._request(address):
            return self._awaited
        if self._named:
            # Behind NAT, where connections arrive at a private address.
            return self.contexts.get(self._named[0], self._awaited)
        return self._impossible


class ServerContexts:
    """All contexts of a server; sets those that `engine` serves.

    `hidden`: a client that offers only protocols which a web server does not take is refused.
    """

    def __init__(
        self, engine: TLSEngine, by_address: ByAddress | None = None, *, hidden: bool = False
    ) -> None:
        self.engine = engine
        self.http_challenges: dict[str, str] = {}
        """Bodies of the answers to HTTP-01 challenges, by their tokens."""
        self._by_address = by_address
        self._hidden = hidden
        self._refusals: dict[ssl.SSLContext, ssl.SSLContext] = {}
        self._tls_challenges: dict[str, ssl.SSLContext] = {}
        self._update_engine()

    def install(self, names: Iterable[str], context: ssl.SSLContext) -> None:
        """Serve `context` on new connections that ask for one of `names`."""
        for name in names:
            address = parse_ip(name)
            if address is None or self._by_address is None:
                self.engine.context = context
            else:
                self._by_address.contexts[address] = context

    def show(self, challenge: Challenge, context: ssl.SSLContext | None) -> None:
        """Answer `challenge` until `hide`; `context` answers TLS-ALPN-01."""
        if isinstance(challenge, HTTP01):
            self.http_challenges[challenge.token] = challenge.body
        elif context is not None:
            self._tls_challenges[challenge.server_name.lower()] = context
            self._update_engine()

    def hide(self, challenge: Challenge) -> None:
        """Stop answering `challenge`."""
        if isinstance(challenge, HTTP01):
            self.http_challenges.pop(challenge.token, None)
        else:
            self._tls_challenges.pop(challenge.server_name.lower(), None)
            self._update_engine()

    def _update_engine(self) -> None:
        """Set `engine.choose` only where the context depends on the ClientHello."""
        needed = bool(self._tls_challenges) or self._by_address is not None or self._hidden
        self.engine.choose = self._choose if needed else None

    def _choose(self, hello: ClientHello, local: Endpoint) -> ssl.SSLContext:
        context = self._choose_by_name(hello, local)
        if not self._hidden or not hello.alpn or hello.alpn == ALPN_OFFER:
            return context
        if set(hello.alpn) & set(HIDDEN_PROTOCOLS):
            return context
        if context not in self._refusals:
            # Contexts are few, and change only with the certificates.
            self._refusals = {context: make_alpn_refusal(context)}
        return self._refusals[context]

    def _choose_by_name(self, hello: ClientHello, local: Endpoint) -> ssl.SSLContext:
        name = hello.server_name
        if name is not None and hello.alpn == ALPN_OFFER:
            challenge = self._tls_challenges.get(name.lower().removesuffix("."))
            if challenge is not None:
                return challenge
        asked = None if name is None else parse_ip(name)
        arrived_at = parse_ip(local.host)
        by_address = self._by_address
        asks_for_dns_name = name is not None and asked is None
        # A client that does not even speak TLS requests no certificate.
        if by_address is None or arrived_at is None or asks_for_dns_name or hello is UNREADABLE:
            return self.engine.context
        return by_address.choose(asked, arrived_at)


def make_certificates(
    plan: Plan, statuses: Sequence[Status], metacert_der: bytes
) -> Certificates[ServerContexts]:
    """Make the Certificates of the process that renews; `load` made their `statuses`.

    Blocks. Raises CertificateError.
    """
    requests = Requests(plan.on_demand, statuses)
    contexts = make_contexts(plan, requests.add, hidden=not metacert_der)
    return Certificates(statuses, contexts, requests, metacert_der)


def make_contexts(
    plan: Plan, request: RequestCertificate, *, hidden: bool = False
) -> ServerContexts:
    """Return the contexts for `plan`; `request` is called for certificates on demand."""
    by_address = None if plan.on_demand is None else ByAddress(plan.on_demand.named, request)
    return ServerContexts(TLSEngine(_default(plan)), by_address, hidden=hidden)


def _default(plan: Plan) -> ssl.SSLContext:
    """Return the context for clients that ask for no address, until there is a certificate."""
    for certificate in plan.certificates:
        if plan.on_demand is None or parse_ip(certificate.names[0]) is None:
            return make_waiting_context(f"there is no certificate for {certificate.names_text} yet")
    return make_waiting_context(
        "the client asked for a name, and this server has certificates for addresses only",
        ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME,
    )
