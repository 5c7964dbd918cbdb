"""Orders of certificates, and requests for their renewal information.

Both functions block, for `timeout` seconds at most: call them in a thread.
"""

import contextlib
from collections.abc import Iterator, Sequence
from datetime import datetime
from http import HTTPStatus

from acme import messages
from acme.client import ClientV2
from acme.errors import ClientError
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from josepy.jwk import JWKEC

from certs.acme import store
from certs.acme.account import account_key
from certs.acme.ari import RenewalInfo, certificate_id, parse_renewal_info
from certs.acme.authority import Authority
from certs.acme.challenge import Kind, Present
from certs.acme.explain import explained
from certs.acme.issue import Issuer
from certs.acme.network import Network
from certs.acme.request import OrderRequest
from certs.errors import Failure, IssueError, UnusablePairError
from certs.hostname import is_covered, parse_ip
from certs.pair import Pair
from certs.parse import make_pair


def obtain(
    request: OrderRequest,
    kind: Kind,
    present: Present,
    now: datetime,
    *,
    timeout: float,
    replacing: bytes | None = None,
) -> bool:
    """Order a certificate with a new P-256 key, and write both to one file; return True.

    `replacing` is the leaf (DER) to replace, None if there is none. If the file has another usable
    one by now, orders nothing and returns False. `present` presents the answers to challenges of
    this `kind`. `now` is timezone-aware; `timeout` is in seconds, by the monotonic clock. The file
    system is probed first. Raises IssueError.
    """
    file = store.certificate_file(request.certdir, request.names[0])
    with _with_names(request):
        store.probe(file)
        with store.locked(request.certdir):
            stored = store.read_usable(request.certdir, request.names, now)
            if stored is not None and stored.chain_der[0] != replacing:
                return False
            key = JWKEC(key=account_key(request.certdir))
            network = Network(request.authority, key, now, timeout)
            with network.session:
                issuer = Issuer(network, request.authority, key)
                issuer.ensure_account()
                new_key = ec.generate_private_key(ec.SECP256R1())
                order = issuer.order(_signing_request(request.names, new_key), request.profile)
                issuer.validate(order, request.names, kind, present)
                chain_pem = issuer.fetch(order)
            pair = _checked(chain_pem, new_key, request, now, network.host)
            new_pem = new_key.private_bytes(
                Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()
            )
            store.write_certificate(file, request.authority.directory, new_pem, pair.chain_der)
            return True


def renewal_info(
    request: OrderRequest, pair: Pair, now: datetime, *, timeout: float = 60
) -> RenewalInfo | None:
    """Ask the authority when to renew `pair` (RFC 9773).

    Returns None if the authority has no such information, or the certificate has expired. `now` is
    timezone-aware; `timeout` is in seconds. Raises IssueError.
    """
    identifier = certificate_id(pair.chain_der[0])
    if identifier is None or now > pair.not_after:
        return None
    with _with_names(request, "no renewal information for"):
        network = Network(request.authority, None, now, timeout)
        with network.session, explained(network):
            return _fetch_renewal_info(network, request.authority, identifier)


def _fetch_renewal_info(
    network: Network, authority: Authority, identifier: str
) -> RenewalInfo | None:
    directory = ClientV2.get_directory(authority.directory, network)
    if "renewalInfo" not in directory.to_partial_json():
        return None
    try:
        answer = network.get(f"{directory['renewalInfo']}/{identifier}")
    except (messages.Error, ClientError):
        if network.status == HTTPStatus.NOT_FOUND:
            return None
        raise
    return parse_renewal_info(answer.json(), network.retry_after)


@contextlib.contextmanager
def _with_names(request: OrderRequest, what: str = "no certificate for") -> Iterator[None]:
    """Put `what` and the names before the message of an IssueError, unless it is Failure.BUSY."""
    try:
        yield
    except IssueError as error:
        if error.failure is Failure.BUSY:
            raise
        message = f"{what} {', '.join(request.names)}: {error}"
        raise IssueError(message, error.failure, error.retry_after) from error


def _signing_request(names: Sequence[str], key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the CSR for exactly these names, in PEM."""
    addresses = [(name, parse_ip(name)) for name in names]
    san = x509.SubjectAlternativeName(
        x509.DNSName(name) if address is None else x509.IPAddress(address)
        for name, address in addresses
    )
    builder = x509.CertificateSigningRequestBuilder(x509.Name([]))
    return builder.add_extension(san, critical=False).sign(key, SHA256()).public_bytes(Encoding.PEM)


def _checked(
    chain_pem: str, key: ec.EllipticCurvePrivateKey, request: OrderRequest, now: datetime, host: str
) -> Pair:
    """Return the issued chain as a Pair; check that it is for all names and has not expired."""
    key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        pair = make_pair(
            chain_pem.encode(), key_pem, chain_from=f"the chain from {host}", key_from="the new key"
        )
    except UnusablePairError as error:
        raise IssueError(str(error), Failure.SPENT) from error
    for name in request.names:
        if not is_covered(name, pair.dns_names, pair.ip_addresses):
            raise IssueError(
                f"{host} issued a certificate that is not for {name}; "
                f"use another -acme-directory, or ask its operator",
                Failure.SPENT,
            )
    if now > pair.not_after:
        raise IssueError(
            f"{host} issued a certificate that expired on {pair.not_after:%Y-%m-%d %H:%M} UTC; "
            f"check this machine's clock",
            Failure.SPENT,
        )
    return pair
