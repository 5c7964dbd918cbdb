"""Whoever answers clients with the certificates that are kept here: this process, or others."""

from typing import Protocol

import trio

from certs.acme.challenge import TLSALPN01, Challenge
from certs.context import make_challenge_context
from derp.certificates.contexts import Contexts


class Listeners(Protocol):
    """What those who order and watch certificates need of those who serve them."""

    async def show(self, challenge: Challenge) -> None:
        """Answer `challenge` until it is hidden; return once it is answered.

        Raises CertificateError where it can't be.
        """

    async def hide(self, challenge: Challenge) -> None:
        """Answer `challenge` no longer."""

    async def renewed(self) -> None:
        """Take note that there is a new pair in the files of a certificate."""


class Here:
    """The listeners of this process."""

    def __init__(self, contexts: Contexts) -> None:
        self._contexts = contexts

    async def show(self, challenge: Challenge) -> None:
        """Answer `challenge` until it is hidden. Raises CertificateError."""
        context = None
        if isinstance(challenge, TLSALPN01):
            context = await trio.to_thread.run_sync(make_challenge_context, challenge.pair)
        self._contexts.show(challenge, context)

    async def hide(self, challenge: Challenge) -> None:
        """Answer `challenge` no longer."""
        self._contexts.hide(challenge)

    async def renewed(self) -> None:
        """Do nothing: who has found the new pair installs it."""
