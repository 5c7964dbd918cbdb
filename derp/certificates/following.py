"""Certificates that another process of this relay orders, makes and replaces.

This one looks at the files, as that one does, and serves what is there; it writes none of them.
What is wrong with a certificate is told there, once for all. The other process also says for which
addresses there are certificates on demand: those that clients ask for here are passed on to it.
"""

from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime
from typing import Final, NoReturn

import trio

from certs.errors import CertificateError
from certs.files import exists, read_pair
from certs.hostname import IPAddress
from certs.pair import Pair
from derp import log
from derp.certificates.listeners import Listeners
from derp.certificates.plan import Plan
from derp.certificates.served import Certificate, Status
from derp.certificates.tasks import Announce, Certificates

WISHES: Final = 8
"""Most addresses that wait to be passed on; more are passed on when clients come back."""

logger = log.get("certificates")

Want = Callable[[IPAddress], Awaitable[bool]]
"""Has the other process get a certificate for an address; returns whether there will be one."""


class Following(Certificates):
    """The certificates of a server whose files another process sees to."""

    def __init__(
        self,
        plan: Plan,
        statuses: list[Status],
        metacert_der: bytes,
        want: Want,
    ) -> None:
        """Take over what `load` has found. Blocks."""
        super().__init__(plan, statuses, metacert_der)
        self._ask_for = want
        self._wished: set[IPAddress] = set()
        self._to_other, self._wishes = trio.open_memory_channel[IPAddress](WISHES)

    def want(self, address: IPAddress) -> bool:
        """Tell whether there will be a certificate for an address of ours, by all that is known.

        It is the other process that decides, and the ClientHello can't wait for it.
        """
        if address in self._asked:
            return True
        if self._on_demand(address) is None:
            return False
        if address not in self._wished:
            try:
                self._to_other.send_nowait(address)
            except trio.WouldBlock:
                return True
            self._wished.add(address)
        return True

    def follow(self, addresses: Iterable[IPAddress]) -> None:
        """Serve certificates for these addresses, too, once there are any in the files."""
        for address in addresses:
            super().want(address)

    async def pass_wishes_on(self) -> NoReturn:
        """Tell the other process which addresses clients come to that have no certificate."""
        while True:
            address = await self._wishes.receive()
            try:
                if await self._ask_for(address):
                    self.follow([address])
            finally:
                self._wished.discard(address)

    def _new_status(self, certificate: Certificate) -> Status:
        return Status(certificate, None, told_elsewhere=True)

    def _keep(
        self,
        nursery: trio.Nursery,
        status: Status,
        look: trio.MemorySendChannel[None],
        announce: Announce,
        listeners: Listeners,
    ) -> None:
        """Do nothing: that is for the other process."""

    def _not_served(self, certificate: Certificate, error: CertificateError) -> None:
        _log_missing(certificate, error)


def load(plan: Plan, addresses: Iterable[IPAddress], now: datetime) -> list[Status]:
    """Read the certificates that are there, those for `addresses` among them. Blocks.

    What can't be read is logged, and awaited: that is where the other process still has in force
    what the files no longer give.
    """
    certificates = list(plan.certificates)
    if plan.on_demand is not None:
        certificates += filter(None, map(plan.on_demand.certificate, addresses))
    return [
        Status(certificate, _read(certificate, now), told_elsewhere=True)
        for certificate in certificates
    ]


def _read(certificate: Certificate, now: datetime) -> Pair | None:
    try:
        if certificate.acme is not None and not exists(certificate.files.certificate):
            return None
        return read_pair(certificate.files, certificate.names, now)
    except CertificateError as error:
        _log_missing(certificate, error)
        return None


def _log_missing(certificate: Certificate, error: CertificateError) -> None:
    names = certificate.text
    logger.error("this process has no certificate to serve", names=names, reason=str(error))
