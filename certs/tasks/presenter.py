"""The interfaces to the listeners: their TLS contexts, and their answers to ACME challenges."""

import ssl
from collections.abc import Iterable
from typing import Protocol

import trio

from certs.acme.challenge import TLSALPN01, Challenge
from certs.context import make_challenge_context


class Contexts(Protocol):
    """The TLS contexts and the challenge answers of one process."""

    def install(self, names: Iterable[str], context: ssl.SSLContext) -> None:
        """Serve `context` on new connections that ask for one of `names`."""

    def show(self, challenge: Challenge, context: ssl.SSLContext | None) -> None:
        """Answer `challenge` until `hide`; `context` answers TLS-ALPN-01."""

    def hide(self, challenge: Challenge) -> None:
        """Stop answering `challenge`."""


class Presenter(Protocol):
    """The processes that answer the clients of a relay."""

    async def show(self, challenge: Challenge) -> None:
        """Answer `challenge` until `hide`; return once it is answered. Raises CertificateError."""

    async def hide(self, challenge: Challenge) -> None:
        """Stop answering `challenge`."""

    async def renewed(self) -> None:
        """Have the processes serve a new pair in the files."""


class LocalPresenter:
    """The Presenter for the contexts of this process."""

    def __init__(self, contexts: Contexts) -> None:
        self._contexts = contexts

    async def show(self, challenge: Challenge) -> None:
        """Answer `challenge` until `hide`. Raises CertificateError."""
        context = None
        if isinstance(challenge, TLSALPN01):
            context = await trio.to_thread.run_sync(make_challenge_context, challenge.pair)
        self._contexts.show(challenge, context)

    async def hide(self, challenge: Challenge) -> None:
        """Stop answering `challenge`."""
        self._contexts.hide(challenge)

    async def renewed(self) -> None:
        """Do nothing: `install` serves the new pair in this process."""
