"""Requests for certificates on demand, by clients that connect to an address without one."""

import contextlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, NoReturn

import trio

from certs.hostname import IPAddress, parse_ips
from certs.tasks.plan import CertificateSpec, OnDemand
from certs.tasks.status import Status

MAX_ON_DEMAND: Final = 32
"""Most certificates on demand: a machine may have a whole network of addresses."""
MAX_WAITING: Final = 8
"""Most requests that wait to be passed on; those beyond are made again as clients return."""

Ask = Callable[[IPAddress], Awaitable[bool]]
"""Requests a certificate from the process that renews; returns whether there will be one."""


class Requests:
    """The requests for certificates on demand, decided in this process."""

    def __init__(self, on_demand: OnDemand | None, statuses: Iterable[Status]) -> None:
        """Begin with the addresses that have certificates in `statuses`."""
        self.addresses: set[IPAddress] = set()
        """The addresses that have a certificate or get one; also those that the operator named."""
        self._on_demand = on_demand
        self._send, self.accepted = trio.open_memory_channel[CertificateSpec](MAX_ON_DEMAND)
        if on_demand is not None:
            for status in statuses:
                self.addresses.update(parse_ips(status.certificate.names))

    def add(self, address: IPAddress) -> bool:
        """Request a certificate for an address of this server; return whether there will be one."""
        if address in self.addresses:
            return True
        certificate = self._certificate(address)
        if certificate is None:
            return False
        self.addresses.add(address)
        self._send.send_nowait(certificate)
        return True

    def accepts(self, address: IPAddress) -> bool:
        """Return what `add` would return, but request nothing."""
        return address in self.addresses or self._certificate(address) is not None

    def _certificate(self, address: IPAddress) -> CertificateSpec | None:
        if self._on_demand is None or len(self.addresses) >= MAX_ON_DEMAND:
            return None
        return self._on_demand.certificate(address)


class ForwardedRequests:
    """The requests of this process's clients, decided by the process that renews.

    A ClientHello can't wait for the decision: until then, a certificate is assumed to come.
    """

    def __init__(self, requests: Requests, ask: Ask) -> None:
        self._requests = requests
        self._ask = ask
        self._undecided: set[IPAddress] = set()
        self._send, self._receive = trio.open_memory_channel[IPAddress](MAX_WAITING)

    def add(self, address: IPAddress) -> bool:
        """Request a certificate for an address of this server; return whether one may come."""
        if not self._requests.accepts(address):
            return False
        if address in self._requests.addresses or address in self._undecided:
            return True
        with contextlib.suppress(trio.WouldBlock):
            self._send.send_nowait(address)
            self._undecided.add(address)
        return True

    async def forward(self) -> NoReturn:
        """Pass the requests on, one by one; serve a granted certificate once it is in the files."""
        while True:
            address = await self._receive.receive()
            try:
                if await self._ask(address):
                    self._requests.add(address)
            finally:
                self._undecided.discard(address)
