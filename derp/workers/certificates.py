"""The certificates of a relay with workers: ordered and made by the supervisor, served by them.

    supervisor                                      worker
    CertificatesForWorkers ── certificates.show ──► a challenge is answered …
                           ── certificates.hide ──► … no longer
                           ── certificates.look ──► there is something new in the files
                           ◄ certificates.wanted ── a client came to an address without one

What is served lies in files that all of them read. No private key is told but that of a
TLS-ALPN-01 challenge, which nobody keeps.
"""

import ssl
from collections.abc import Sequence
from datetime import datetime
from typing import Final, NoReturn

import trio

from certs.acme.challenge import HTTP01, TLSALPN01, Challenge
from certs.context import make_challenge_context
from certs.errors import CertificateError
from certs.hostname import IPAddress, parse_ip
from certs.pair import Pair, make_pair
from derp import log
from derp.certificates.contexts import Contexts
from derp.certificates.following import Following, load
from derp.certificates.plan import Plan
from derp.certificates.tasks import Announce, Certificates
from derp.errors import ControlLost
from derp.workers.asking import Call, Workers
from derp.workers.rpc import Handler, Json

_SHOW: Final = "certificates.show"
_HIDE: Final = "certificates.hide"
_LOOK: Final = "certificates.look"
_WANTED: Final = "certificates.wanted"

logger = log.get("certificates")


class CertificatesForWorkers:
    """The supervisor's part: the Listeners of its certificates are the workers.

    `handlers` are for the control connection of each of them.
    """

    def __init__(self, certificates: Certificates, pool: Workers) -> None:
        self._certificates = certificates
        self._pool = pool
        self._up: dict[Challenge, Json] = {}
        self._last_id = 0
        self.handlers: dict[str, Handler] = {_WANTED: self._wanted}

    def handover(self) -> Json:
        """Return what a worker is told that starts now: the part for `follow`.

        It is reached by `each` from the same moment on; else it would miss what comes between.
        """
        return {"addresses": self._addresses(), "challenges": list(self._up.values())}

    async def run(self, announce: Announce) -> NoReturn:
        """Keep all certificates; see Certificates.run."""
        await self._certificates.run(announce, self)

    async def look(self) -> None:
        """Have everybody look at the files at once, and what is due be tried."""
        self._certificates.wake()
        await self.renewed()

    async def show(self, challenge: Challenge) -> None:
        """Have all workers answer `challenge`; those that are late don't hold up the order."""
        self._last_id += 1
        self._up[challenge] = told = {"id": self._last_id, **_told(challenge)}
        await self._pool.each(_SHOW, told)

    async def hide(self, challenge: Challenge) -> None:
        """Have no worker answer `challenge` any longer."""
        told = self._up.pop(challenge, None)
        if told is not None:
            await self._pool.each(_HIDE, told["id"])

    async def renewed(self) -> None:
        """Have all workers look at the files."""
        await self._pool.each(_LOOK, self._addresses())

    async def _wanted(self, body: Json) -> Json:
        address = parse_ip(body)
        return address is not None and self._certificates.want(address)

    def _addresses(self) -> list[str]:
        return sorted(map(str, self._certificates.addresses))


class WorkerCertificates:
    """A worker's part. `handlers` are for its control connection."""

    def __init__(self, certificates: Following, part: Json) -> None:
        """Answer the challenges that are up. Blocks."""
        self.certificates = certificates
        self._contexts: Contexts = certificates.contexts
        self._up: dict[int, Challenge] = {}
        self.handlers: dict[str, Handler] = {
            _SHOW: self._show,
            _HIDE: self._hide,
            _LOOK: self._look,
        }
        for told in part["challenges"]:
            if (challenge := _challenge(told)) is not None:
                self._up[told["id"]] = challenge
                self._contexts.show(challenge, _context(challenge))

    async def run(self) -> None:
        """Serve what is new in the files, and pass on what is wanted."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.certificates.run, _announce_nothing)
            nursery.start_soon(self.certificates.pass_wishes_on)

    async def _show(self, body: Json) -> Json:
        challenge = _challenge(body)
        if challenge is None:
            return
        number: int = body["id"]
        self._up[number] = challenge
        context = await trio.to_thread.run_sync(_context, challenge)
        if number in self._up:
            # Else it was hidden meanwhile, by an order that did not wait for this worker.
            self._contexts.show(challenge, context)

    async def _hide(self, body: Json) -> Json:
        challenge = self._up.pop(body, None)
        if challenge is not None:
            self._contexts.hide(challenge)

    async def _look(self, body: Json) -> Json:
        self.certificates.follow(_parsed(body))
        self.certificates.wake()


def follow(
    plan: Plan, part: Json, metacert_der: bytes, now: datetime, call: Call
) -> WorkerCertificates:
    """Read and serve the certificates that the supervisor keeps. Blocks.

    `part` is from CertificatesForWorkers.setup, `call` asks the supervisor. What can't be served
    ends no start.
    """

    async def want(address: IPAddress) -> bool:
        try:
            return bool(await call(_WANTED, str(address)))
        except ControlLost as error:
            logger.debug("not asked for a certificate", address=str(address), reason=str(error))
            return False

    addresses = _parsed(part["addresses"])
    certificates = Following(plan, load(plan, addresses, now), metacert_der, want)
    return WorkerCertificates(certificates, part)


def _told(challenge: Challenge) -> dict[str, Json]:
    """Return a challenge as it is told; for TLS-ALPN-01 with its private key."""
    if isinstance(challenge, HTTP01):
        return {"token": challenge.token, "body": challenge.body}
    chain = "".join(map(ssl.DER_cert_to_PEM_cert, challenge.pair.chain_der))
    key = challenge.pair.key_pem.decode("ascii")
    return {"server_name": challenge.server_name, "chain": chain, "key": key}


def _challenge(told: Json) -> Challenge | None:
    """Return the challenge that was told; None, and a line in the log, for one that is no use."""
    if "token" in told:
        return HTTP01(told["token"], told["body"])
    chain, key = told["chain"].encode("ascii"), told["key"].encode("ascii")
    try:
        pair = make_pair(chain, key, chain_from="the challenge", key_from="its key")
    except CertificateError as error:
        _log_unanswered(told["server_name"], error)
        return None
    return TLSALPN01(told["server_name"], pair)


def _context(challenge: Challenge) -> ssl.SSLContext | None:
    """Return what answers a challenge by TLS; None for one by HTTP, or that can't be answered."""
    if isinstance(challenge, HTTP01):
        return None
    try:
        return make_challenge_context(challenge.pair)
    except CertificateError as error:
        _log_unanswered(challenge.server_name, error)
        return None


def _log_unanswered(name: str, error: CertificateError) -> None:
    logger.error("a challenge can't be answered", name=name, reason=str(error))


def _parsed(addresses: Sequence[str]) -> list[IPAddress]:
    found = map(parse_ip, addresses)
    return [address for address in found if address is not None]


def _announce_nothing(_: Pair) -> None:
    """Leave it to the supervisor to print the node for the DERP map."""
