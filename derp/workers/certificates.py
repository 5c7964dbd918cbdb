"""The certificates of a relay with workers: renewed by the supervisor, served by the workers.

    SupervisorCertificates                     WorkerCertificates
        certificates.show ───────────────────► answer a challenge …
        certificates.hide ───────────────────► … no longer
        certificates.check ──────────────────► check the files; these addresses are on demand
                      ◄─────────────────────── certificates.request: a client came to an address

All processes read certificates and their keys from the same files. Only the key of a TLS-ALPN-01
challenge, which is stored nowhere, goes over the RPC connection.
"""

import ssl
from datetime import datetime
from typing import Final, NoReturn

import trio

from certs.acme.challenge import HTTP01, TLSALPN01, Challenge
from certs.context import make_challenge_context
from certs.errors import CertificateError
from certs.hostname import IPAddress, parse_ip, parse_ips
from certs.tasks.load import load_followed
from certs.tasks.manager import Announce, Certificates
from certs.tasks.plan import Plan
from certs.tasks.report import FOLLOWS
from certs.tasks.requests import ForwardedRequests, Requests
from derp import log
from derp.errors import RPCFailed
from derp.service.tls import ServerContexts, make_contexts
from derp.workers.pool import WorkerPool
from derp.workers.rpc import Call, Handler, Json

_SHOW: Final = "certificates.show"
_HIDE: Final = "certificates.hide"
_CHECK: Final = "certificates.check"
_REQUEST: Final = "certificates.request"

logger = log.get("certificates")


class SupervisorCertificates:
    """The supervisor's side, a Presenter. `handlers` are for each worker's RPC connection."""

    def __init__(self, certificates: Certificates[ServerContexts], pool: WorkerPool) -> None:
        self._certificates = certificates
        self._pool = pool
        self._shown: dict[Challenge, Json] = {}
        self._last_id = 0
        self.handlers: dict[str, Handler] = {_REQUEST: self._requested}

    def handover(self) -> Json:
        """Return the `handover` that a starting worker needs for `follow`.

        From then on the pool's `call_all` must reach that worker, or it would miss challenges.
        """
        return {"addresses": self._addresses(), "challenges": list(self._shown.values())}

    async def run(self, announce: Announce) -> NoReturn:
        """Renew all certificates; see Certificates.run."""
        await self._certificates.run(announce, self)

    async def wake(self) -> None:
        """Have all processes check the files at once; order the certificates that are due."""
        self._certificates.wake()
        await self.renewed()

    async def show(self, challenge: Challenge) -> None:
        """Have all workers answer `challenge`; a slow worker does not hold up the order."""
        self._last_id += 1
        self._shown[challenge] = message = {"id": self._last_id, **_to_json(challenge)}
        await self._pool.call_all(_SHOW, message)

    async def hide(self, challenge: Challenge) -> None:
        """Have all workers stop answering `challenge`."""
        message = self._shown.pop(challenge, None)
        if message is not None:
            await self._pool.call_all(_HIDE, message["id"])

    async def renewed(self) -> None:
        """Have all workers check the files."""
        await self._pool.call_all(_CHECK, self._addresses())

    async def _requested(self, body: Json) -> Json:
        address = parse_ip(body)
        return address is not None and self._certificates.requests.add(address)

    def _addresses(self) -> list[str]:
        return sorted(map(str, self._certificates.requests.addresses))


class WorkerCertificates:
    """A worker's side. `handlers` are for its RPC connection."""

    def __init__(
        self,
        certificates: Certificates[ServerContexts],
        forwarded: ForwardedRequests,
        handover: Json,
    ) -> None:
        """Begin with the challenges in `handover`. Blocks."""
        self.certificates = certificates
        self._forwarded = forwarded
        # By the messages' ids; None until the challenge in a message has been read.
        self._shown: dict[int, Challenge | None] = {}
        self.handlers: dict[str, Handler] = {
            _SHOW: self._show,
            _HIDE: self._hide,
            _CHECK: self._check,
        }
        for message in handover["challenges"]:
            if (challenge := _from_json(message)) is not None:
                self._shown[message["id"]] = challenge
                self.certificates.contexts.show(challenge, _context(challenge))

    async def run(self) -> None:
        """Serve changed files, and forward requests for certificates to the supervisor."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.certificates.follow)
            nursery.start_soon(self._forwarded.forward)

    async def _show(self, body: Json) -> Json:
        number: int = body["id"]
        self._shown[number] = None
        challenge = await trio.to_thread.run_sync(_from_json, body)
        if challenge is None:
            self._shown.pop(number, None)
            return
        context = await trio.to_thread.run_sync(_context, challenge)
        if number in self._shown:
            # Else it was hidden meanwhile: the order did not wait for this worker.
            self._shown[number] = challenge
            self.certificates.contexts.show(challenge, context)

    async def _hide(self, body: Json) -> Json:
        challenge = self._shown.pop(body, None)
        if challenge is not None:
            self.certificates.contexts.hide(challenge)

    async def _check(self, body: Json) -> Json:
        for address in parse_ips(body):
            self.certificates.requests.add(address)
        self.certificates.wake()


def follow(
    plan: Plan, handover: Json, metacert_der: bytes, now: datetime, call: Call
) -> WorkerCertificates:
    """Read and serve the certificates that the supervisor renews. Blocks.

    `handover` is from SupervisorCertificates.handover; `call` asks the supervisor. A certificate
    that can't be served is only logged.
    """

    async def ask(address: IPAddress) -> bool:
        try:
            return bool(await call(_REQUEST, str(address)))
        except RPCFailed as error:
            logger.debug("a request was not forwarded", address=str(address), reason=str(error))
            return False

    statuses = load_followed(plan, parse_ips(handover["addresses"]), now)
    requests = Requests(plan.on_demand, statuses)
    forwarded = ForwardedRequests(requests, ask)
    contexts = make_contexts(plan, forwarded.add, hidden=not metacert_der)
    certificates = Certificates(statuses, contexts, requests, metacert_der, FOLLOWS)
    return WorkerCertificates(certificates, forwarded, handover)


def _to_json(challenge: Challenge) -> dict[str, Json]:
    """Return a challenge as JSON; for TLS-ALPN-01 with its private key."""
    if isinstance(challenge, HTTP01):
        return {"token": challenge.token, "body": challenge.body}
    chain = "".join(map(ssl.DER_cert_to_PEM_cert, challenge.pair.chain_der))
    key = challenge.pair.key_pem.decode("ascii")
    return {"server_name": challenge.server_name, "chain": chain, "key": key}


def _from_json(message: Json) -> Challenge | None:
    """Return the challenge in `message`; log, and return None, where it can't be answered.

    Blocks.
    """
    if "token" in message:
        return HTTP01(message["token"], message["body"])
    chain, key = message["chain"].encode("ascii"), message["key"].encode("ascii")
    from certs.parse import make_pair  # noqa: PLC0415 - loads cryptography

    try:
        pair = make_pair(chain, key, chain_from="the challenge", key_from="its key")
    except CertificateError as error:
        _log_unanswered(message["server_name"], error)
        return None
    return TLSALPN01(message["server_name"], pair)


def _context(challenge: Challenge) -> ssl.SSLContext | None:
    """Return the context that answers TLS-ALPN-01; None for HTTP-01, or if there can't be one."""
    if isinstance(challenge, HTTP01):
        return None
    try:
        return make_challenge_context(challenge.pair)
    except CertificateError as error:
        _log_unanswered(challenge.server_name, error)
        return None


def _log_unanswered(name: str, error: CertificateError) -> None:
    logger.error("a challenge can't be answered", name=name, reason=str(error))
