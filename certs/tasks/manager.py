"""All certificates of a server: the tasks that serve each and renew it."""

import contextlib
import ssl
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Generic, NoReturn, TypeVar

import trio

from certs.changes import PairChanges
from certs.context import make_context
from certs.errors import CertificateError
from certs.hostname import parse_ip
from certs.pair import Pair
from certs.tasks import expiry
from certs.tasks.plan import CertificateSpec
from certs.tasks.presenter import Contexts, LocalPresenter, Presenter
from certs.tasks.renewal import Renewal
from certs.tasks.report import RENEWS, Reporter
from certs.tasks.requests import Requests
from certs.tasks.status import Status
from certs.tasks.watch import NamedContext, install, watch

AnyContexts = TypeVar("AnyContexts", bound=Contexts)

Announce = Callable[[Pair], None]
"""Called with a new self-signed pair, whose pin clients need."""
Renew = Callable[[Status, trio.MemorySendChannel[None]], Awaitable[None]]
"""Renews a certificate; a send on the channel has its files checked."""


class Certificates(Generic[AnyContexts]):
    """The certificates of a server, and the contexts that serve them."""

    def __init__(
        self,
        statuses: Sequence[Status],
        contexts: AnyContexts,
        requests: Requests,
        metacert_der: bytes,
        report: Reporter = RENEWS,
    ) -> None:
        """Serve the pairs of `statuses`. Blocks. Raises CertificateError for a pair TLS can't use.

        `report` is the Reporter for certificates on demand.
        """
        self.statuses = list(statuses)
        self.contexts = contexts
        self.requests = requests
        self._metacert_der = metacert_der
        self._report = report
        self._wakes: list[trio.MemorySendChannel[None]] = []
        for status in self.statuses:
            self._serve(status)

    def wake(self) -> None:
        """Check all files, ask the authorities, and order what is due, at once."""
        for wake in self._wakes:
            with contextlib.suppress(trio.WouldBlock):
                wake.send_nowait(None)

    async def run(self, announce: Announce, presenter: Presenter | None = None) -> NoReturn:
        """Serve new pairs in the files, and renew all certificates.

        `presenter` stands for the processes that answer clients, by default this one.
        """
        presenter = LocalPresenter(self.contexts) if presenter is None else presenter
        await self._run(presenter, partial(self._renew, announce, presenter))

    async def follow(self) -> NoReturn:
        """Serve new pairs in the files, which another process renews."""
        await self._run(LocalPresenter(self.contexts), None)

    async def _run(self, presenter: Presenter, renew: Renew | None) -> NoReturn:
        to_listeners, arriving = trio.open_memory_channel[NamedContext](1)
        async with trio.open_nursery() as nursery:

            def start(status: Status) -> None:
                check_files = self._watch(nursery, status, to_listeners)
                if renew is not None:
                    nursery.start_soon(renew, status, check_files)

            nursery.start_soon(install, self.contexts, arriving, presenter)
            for status in self.statuses:
                start(status)
            while True:
                status = Status(await self.requests.accepted.receive(), None, report=self._report)
                self.statuses.append(status)
                start(status)

    async def _renew(
        self,
        announce: Announce,
        presenter: Presenter,
        status: Status,
        check_files: trio.MemorySendChannel[None],
    ) -> None:
        """Renew an ACME or self-signed certificate; leave the operator's alone."""
        certificate = status.certificate
        address = parse_ip(certificate.names[0])
        if certificate.acme is not None:
            _, wakes = self._open_wake()
            await Renewal(certificate.acme, status, presenter, check_files).run(wakes)
        elif address is not None and not certificate.operator_managed:
            await expiry.replace_when_expired(address, status, check_files, announce)

    def _serve(self, status: Status) -> None:
        """Serve the pair that was in the files at the start, if any."""
        certificate, pair = status.certificate, status.pair
        if pair is None:
            return
        try:
            context = self._make_context(certificate, pair)
        except CertificateError as error:
            status.report.unservable(certificate, error)
            status.pair, status.unservable_leaf = None, pair.chain_der[0]
            return
        status.report.warnings(pair)
        self.contexts.install(certificate.names, context)

    def _make_context(self, certificate: CertificateSpec, pair: Pair) -> ssl.SSLContext:
        return make_context(pair, self._metacert_der, *filter(pair.covers, certificate.names))

    def _watch(
        self,
        nursery: trio.Nursery,
        status: Status,
        to_listeners: trio.MemorySendChannel[NamedContext],
    ) -> trio.MemorySendChannel[None]:
        """Start watching a certificate's files; return the channel on which to ask for a check."""
        certificate = status.certificate
        check_files, checks = self._open_wake()
        if status.pair is None:
            # A certificate on demand may be in the files from an earlier run.
            check_files.send_nowait(None)
        some = certificate.acme is not None
        changes = PairChanges(certificate.files, certificate.names, some=some)
        make = partial(self._make_context, certificate)
        nursery.start_soon(watch, changes, make, status, checks, to_listeners.clone())
        return check_files

    def _open_wake(self) -> tuple[trio.MemorySendChannel[None], trio.MemoryReceiveChannel[None]]:
        """Return both ends of a new channel to a task that `wake` wakes, too."""
        wake, wakes = trio.open_memory_channel[None](1)
        self._wakes.append(wake)
        return wake, wakes
