"""The ACME protocol with an authority, from the directory to the chain (RFC 8555, 7.1).

directory ► account ► order ► challenge answered for each name ► CSR ► chain
"""

import re
from collections.abc import Sequence
from typing import Final

import attrs
import requests
from acme import challenges, messages
from acme.client import ClientV2
from acme.errors import ConflictError
from josepy.b64 import b64encode
from josepy.jwk import JWKEC

from certs.acme.answer import make_challenge
from certs.acme.authority import Authority
from certs.acme.challenge import Kind, Present
from certs.acme.explain import (
    EAB_FLAGS,
    explained,
    failed_validation,
    problem,
    problem_type,
)
from certs.acme.network import POLL_EVERY, Network
from certs.acme.store import plain_name
from certs.errors import Failure, IssueError, printable

_NO_ACCOUNT: Final = ("accountDoesNotExist", "externalAccountRequired")
_UNDECIDED: Final = (messages.STATUS_PENDING, messages.STATUS_PROCESSING)
_LONGEST_PAUSE: Final = 16.0
"""Seconds between two tries of `fetch`, at most; more where a Retry-After asks for it."""
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{16,512}")


@attrs.frozen
class _Offer:
    """A challenge that the authority offers for one name."""

    name: str
    authorization: messages.AuthorizationResource
    challenge: messages.ChallengeBody
    token: str


class Issuer:
    """A session with an authority under one account key. Every method raises IssueError."""

    def __init__(self, network: Network, authority: Authority, key: JWKEC) -> None:
        self._network = network
        self._authority = authority
        self._key = key
        with explained(network):
            directory = ClientV2.get_directory(authority.directory, network)
            self._client = ClientV2(directory, network)

    def ensure_account(self) -> None:
        """Look up the account of the key, or register one.

        The external account is sent only to register: some authorities accept its key only once.
        """
        empty = messages.RegistrationResource(body=messages.Registration(), uri=None)
        with explained(self._network):
            try:
                self._client.query_registration(empty)
            except messages.Error as error:
                if problem_type(error) not in _NO_ACCOUNT:
                    raise
            else:
                return
        self._register()

    def _register(self) -> None:
        with explained(self._network):
            external_only = self._client.external_account_required()
        external = self._authority.external_account
        if external is None and external_only:
            raise IssueError(
                f"{self._network.host} requires an external account; "
                f"give {EAB_FLAGS} what it issued for that account",
                Failure.REFUSED,
            )
        cures = {}
        if external is not None:
            cure = f"give {EAB_FLAGS} what the authority issued; some accept it only once"
            cures = dict.fromkeys(("unauthorized", "malformed", "externalAccountRequired"), cure)
        with explained(self._network, cures):
            binding = None
            if external is not None:
                binding = messages.ExternalAccountBinding.from_data(
                    self._key.public_key(),
                    external.kid,
                    b64encode(external.hmac_key).decode("ascii"),
                    self._client.directory,
                )
            registration = messages.NewRegistration.from_data(
                email=self._authority.email or None,
                terms_of_service_agreed=True,
                external_account_binding=binding,
            )
            try:
                account = self._client.new_account(registration)
            except ConflictError as error:
                account = messages.RegistrationResource(body=registration, uri=error.location)
            if not account.uri:
                raise ValueError("no URL of the account")
            self._network.account = account

    def order(self, csr_pem: bytes, profile: str) -> messages.OrderResource:
        """Order a certificate for the names in a CSR; `profile` may be ""."""
        cure = f"point -acme-directory at an authority that has the profile {profile!r}"
        with explained(self._network, {"invalidProfile": cure}):
            order = self._client.new_order(csr_pem, profile=profile or None)
            if not order.uri or not order.authorizations:
                raise ValueError("no URL of the order, or no authorizations")
            return order

    def validate(
        self, order: messages.OrderResource, names: Sequence[str], kind: Kind, present: Present
    ) -> None:
        """Validate `names` by challenges of one kind. After Failure.VALIDATION, another may work.

        All answers are presented from before the first validation to the end of the last.
        """
        with explained(self._network):
            offers = [
                self._offer(authorization, names, kind)
                for authorization in order.authorizations
                if authorization.body.status != messages.STATUS_VALID
            ]
        now = self._network.now
        answers = [
            make_challenge(kind, offer.name, offer.token, self._key_authorization(offer.token), now)
            for offer in offers
        ]
        with present(answers):
            with explained(self._network):
                for offer in offers:
                    # The response is "{}" for every kind (RFC 8555, 7.5.1).
                    ready = challenges.HTTP01Response(key_authorization="")
                    self._client.answer_challenge(offer.challenge, ready)
            for offer in offers:
                self._await_validation(offer, kind)

    def _offer(
        self, authorization: messages.AuthorizationResource, names: Sequence[str], kind: Kind
    ) -> _Offer:
        name = plain_name(authorization.body.identifier.value)
        if authorization.body.wildcard:
            # The identifier is the wildcard's parent (RFC 8555, 7.1.4).
            name = f"*.{name}"
        if name not in names:
            raise ValueError("an authorization for a name that was not ordered")
        offered = {}
        for challenge in authorization.body.challenges:
            # The library does not know tls-alpn-01, but keeps unknown challenges.
            fields = challenge.chall.to_partial_json()
            offered[fields["type"]] = challenge, fields.get("token", "")
        if kind not in offered:
            others = printable(", ".join(sorted(offered)), 100) or "nothing"
            raise IssueError(
                f"{self._network.host} offers no {kind} for {name}, only {others}",
                Failure.VALIDATION,
            )
        challenge, token = offered[kind]
        if not _TOKEN.fullmatch(token):
            raise ValueError("the token is not base64url")
        return _Offer(name, authorization, challenge, token)

    def _key_authorization(self, token: str) -> str:
        """Return the key authorization (RFC 8555, 8.1)."""
        return f"{token}.{b64encode(self._key.thumbprint()).decode('ascii')}"

    def _await_validation(self, offer: _Offer, kind: Kind) -> None:
        while True:
            with explained(self._network):
                authorization, _ = self._client.poll(offer.authorization)
                body = authorization.body
                errors = [challenge.error for challenge in body.challenges if challenge.error]
            if body.status == messages.STATUS_VALID:
                return
            if body.status not in _UNDECIDED:
                error = errors[0] if errors else None
                raise failed_validation(self._network, error, kind, offer.name)
            self._network.pause()

    def fetch(self, order: messages.OrderResource) -> str:
        """Finalize the order, and return the chain in PEM.

        A finalize request may use up a certificate, except a first one that is refused. So failures
        after it are retried with growing pauses while there is time, then raised as Failure.SPENT.
        """
        spent, pause = False, 0.1
        while True:
            finalizing_first, last_error = False, None
            try:
                with explained(self._network):
                    answer = self._read(order.uri)
                    order = order.update(body=messages.Order.from_json(answer.json()))
                    if order.body.status == messages.STATUS_READY:
                        finalizing_first, spent = not spent, True
                        order = self._client.begin_finalization(order)
                        finalizing_first = False
                    if order.body.status == messages.STATUS_VALID and order.body.certificate:
                        return self._read(order.body.certificate).text
            except IssueError as error:
                if not spent or (finalizing_first and error.failure is not Failure.TRANSIENT):
                    raise
                last_error = error
            else:
                if order.body.status == messages.STATUS_INVALID:
                    raise self._invalid(order, spent=spent)
            if spent and (last_error or order.body.status != messages.STATUS_PROCESSING):
                pause = min(max(2 * pause, POLL_EVERY), _LONGEST_PAUSE)
            try:
                self._network.pause(pause)
            except IssueError as error:
                if not spent:
                    raise
                raise _spent(last_error or error) from error

    def _invalid(self, order: messages.OrderResource, *, spent: bool) -> IssueError:
        if order.body.error is None:
            return IssueError(
                f"{self._network.host} calls the order invalid and does not say why; "
                f"the relay tries again later",
                Failure.REFUSED,
            )
        error = problem(self._network, order.body.error)
        return _spent(error) if spent and error.failure is Failure.TRANSIENT else error

    def _read(self, url: str) -> requests.Response:
        """Read a resource by POST-as-GET (RFC 8555, 6.3)."""
        return self._network.post(url, None, new_nonce_url=self._client.directory["newNonce"])


def _spent(error: IssueError) -> IssueError:
    message = f"an order was spent, and perhaps a certificate issued: {error}"
    return IssueError(message, Failure.SPENT, error.retry_after)
