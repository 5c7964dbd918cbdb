"""All certificates of a server: loaded at start, then kept, each by tasks of its own."""

import contextlib
import ssl
from collections.abc import Callable, Collection
from datetime import datetime
from pathlib import Path
from typing import Final, NoReturn

import trio

from certs import manual
from certs.acme.account import FILE_NAME as ACCOUNT_FILE
from certs.acme.authority import Authority, check
from certs.context import make_context, make_waiting_context
from certs.errors import CertificateError, CertificateFileError
from certs.files import exists, read_pair
from certs.hostname import IPAddress, parse_ip
from certs.pair import Pair
from certs.reload import WatchedFiles
from derp import log
from derp.certificates import selfsigned
from derp.certificates.contexts import ByAddress, Contexts
from derp.certificates.listeners import Here, Listeners
from derp.certificates.plan import OnDemand, Plan
from derp.certificates.served import Certificate, Status
from derp.certificates.watch import Named, install, watch
from derp.files.ownership import warn_if_swappable
from derp.net.tls import TLSEngine

MAX_ON_DEMAND: Final = 32
"""Most certificates had on demand: a machine may have more addresses than it can be held to."""

logger = log.get("certificates")

Announce = Callable[[Pair], None]


class Certificates:
    """The certificates of a server, and the engine that serves them."""

    def __init__(self, plan: Plan, statuses: list[Status], metacert_der: bytes) -> None:
        """Take over what `load` has found. Blocks. Raises CertificateError for what TLS refuses."""
        self.statuses = statuses
        self._plan = plan
        self._metacert_der = metacert_der
        self._asked: set[IPAddress] = set()
        self._to_tasks, self._wanted = trio.open_memory_channel[Certificate](MAX_ON_DEMAND)
        self._wakes: list[trio.MemorySendChannel[None]] = []
        by_address = None
        if plan.on_demand is not None:
            by_address = ByAddress(plan.on_demand.named, self.want)
        self.contexts = Contexts(TLSEngine(_default(plan)), by_address)
        for status in statuses:
            self._serve(status)
            if plan.on_demand is not None:
                self._asked.update(_addresses(status.certificate))

    @property
    def engine(self) -> TLSEngine:
        """What TLS connections are served with."""
        return self.contexts.engine

    def wake(self) -> None:
        """Look, ask and try at once."""
        for wake in self._wakes:
            with contextlib.suppress(trio.WouldBlock):
                wake.send_nowait(None)

    @property
    def addresses(self) -> Collection[IPAddress]:
        """The addresses that have a certificate on demand, or get one, and those named too."""
        return self._asked

    async def run(self, announce: Announce, listeners: Listeners | None = None) -> NoReturn:
        """Keep all certificates; `announce` what replaces a self-signed one.

        `listeners` answer the clients, if those of this process don't.
        """
        listeners = Here(self.contexts) if listeners is None else listeners
        to_listeners, arriving = trio.open_memory_channel[Named](1)
        async with trio.open_nursery() as nursery:

            def start(status: Status) -> None:
                look = self._watch(nursery, status, to_listeners)
                self._keep(nursery, status, look, announce, listeners)

            nursery.start_soon(install, self.contexts, arriving, listeners)
            for status in self.statuses:
                start(status)
            while True:
                status = self._new_status(await self._wanted.receive())
                self.statuses.append(status)
                start(status)

    def want(self, address: IPAddress) -> bool:
        """Have a certificate for an address of ours; return whether there will be one."""
        if address in self._asked:
            return True
        certificate = self._on_demand(address)
        if certificate is None:
            return False
        self._asked.add(address)
        self._to_tasks.send_nowait(certificate)
        return True

    def _on_demand(self, address: IPAddress) -> Certificate | None:
        """Return the certificate to have for one more address; None where none is to be had."""
        on_demand = self._plan.on_demand
        if on_demand is None or len(self._asked) >= MAX_ON_DEMAND:
            return None
        return on_demand.certificate(address)

    def _new_status(self, certificate: Certificate) -> Status:
        return Status(certificate, None)

    def _serve(self, status: Status) -> None:
        """Serve the pair that was found at the start, if there is one."""
        certificate, pair = status.certificate, status.pair
        if pair is None:
            return
        try:
            context = self._make_context(certificate, pair)
        except CertificateError as error:
            self._not_served(certificate, error)
            status.pair, status.unfit = None, pair.chain_der[0]
            return
        status.warn(pair)
        self.contexts.install(certificate.names, context)

    def _not_served(self, certificate: Certificate, error: CertificateError) -> None:
        _tolerate(certificate, error)

    def _make_context(self, certificate: Certificate, pair: Pair) -> ssl.SSLContext:
        return make_context(pair, self._metacert_der, certificate.names[0])

    def _watch(
        self, nursery: trio.Nursery, status: Status, to_listeners: trio.MemorySendChannel[Named]
    ) -> trio.MemorySendChannel[None]:
        """Serve what is new in the files of a certificate; return what has them looked at."""
        certificate = status.certificate
        look, looks = self._open_wake()
        files = WatchedFiles(certificate.files, certificate.names)
        if status.pair is None:
            # One that is had on demand may be there from another time.
            look.send_nowait(None)

        def make(pair: Pair) -> ssl.SSLContext:
            return self._make_context(certificate, pair)

        nursery.start_soon(watch, files, make, status, looks, to_listeners.clone())
        return look

    def _keep(
        self,
        nursery: trio.Nursery,
        status: Status,
        look: trio.MemorySendChannel[None],
        announce: Announce,
        listeners: Listeners,
    ) -> None:
        """Start what has a new pair when it is time."""
        certificate = status.certificate
        address = parse_ip(certificate.names[0])
        if certificate.acme is not None:
            from derp.certificates.renewal import Renewal  # noqa: PLC0415 - loaded by now

            renewal = Renewal(certificate.acme, status, listeners, look)
            _, wakes = self._open_wake()
            nursery.start_soon(renewal.run, wakes)
        elif address is not None and not certificate.is_operators:
            nursery.start_soon(selfsigned.keep, address, status, look, announce)

    def _open_wake(self) -> tuple[trio.MemorySendChannel[None], trio.MemoryReceiveChannel[None]]:
        wake, wakes = trio.open_memory_channel[None](1)
        self._wakes.append(wake)
        return wake, wakes


def load(plan: Plan, now: datetime) -> list[Status]:
    """Read the certificates that are there. Blocks.

    Raises CertificateError for the operator's own, and for what no certificate can be had with.
    """
    orders = _orders(plan)
    if orders:
        # Now, because it takes a while: no packet moves meanwhile.
        import derp.certificates.renewal  # noqa: F401, PLC0415
    for authority, certdir in orders:
        check(authority)
        _check_directory(certdir)
        for file in (certdir / ACCOUNT_FILE, authority.ca_bundle):
            if file is not None:
                warn_if_swappable(file)
    statuses = []
    for certificate in plan.certificates:
        pair = None
        try:
            pair = _read(certificate, now)
        except CertificateError as error:
            _tolerate(certificate, error)
        statuses.append(Status(certificate, pair))
    if plan.on_demand is not None:
        statuses += _had_on_demand(plan.on_demand, now)
    return statuses


def _orders(plan: Plan) -> set[tuple[Authority, Path]]:
    """Return who is asked for certificates, and where those are kept."""
    orders = {
        (certificate.acme.authority, certificate.files.certificate.parent)
        for certificate in plan.certificates
        if certificate.acme is not None
    }
    if plan.on_demand is not None:
        orders.add((plan.on_demand.acme.authority, plan.on_demand.certdir))
    return orders


def _check_directory(certdir: Path) -> None:
    """See that a directory is or can be there. Whatever else is wrong with it may pass."""
    if exists(certdir) and not certdir.is_dir():
        raise CertificateFileError(f"-certdir {certdir}: not a directory; want one, or a new name")


def _had_on_demand(on_demand: OnDemand, now: datetime) -> list[Status]:
    """Return the certificates from another time that are still good for addresses of ours."""
    statuses = []
    try:
        files = sorted(on_demand.certdir.iterdir())
    except OSError:
        return []
    for file in files:
        # An IPv6 address has dots for its colons.
        address = parse_ip(file.name) or parse_ip(file.name.replace(".", ":"))
        certificate = None if address is None else on_demand.certificate(address)
        if certificate is None or certificate.files.certificate != file:
            continue
        with contextlib.suppress(CertificateError):
            pair = read_pair(certificate.files, certificate.names, now)
            if now <= pair.not_after:
                statuses.append(Status(certificate, pair))
    return statuses[:MAX_ON_DEMAND]


def _addresses(certificate: Certificate) -> list[IPAddress]:
    found = map(parse_ip, certificate.names)
    return [address for address in found if address is not None]


def _tolerate(certificate: Certificate, error: CertificateError) -> None:
    """Log that a certificate can't be served where it will be replaced, or raise the error."""
    if certificate.acme is None:
        raise error
    logger.warning("a certificate can't be served and is ordered anew", reason=str(error))


def _default(plan: Plan) -> ssl.SSLContext:
    """Return the context for whoever asks for no address, until there is a certificate."""
    for certificate in plan.certificates:
        if plan.on_demand is None or parse_ip(certificate.names[0]) is None:
            return make_waiting_context(f"there is no certificate for {certificate.text} yet")
    return make_waiting_context(
        "the client asked for a name, and this server has certificates for addresses only",
        ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME,
    )


def _read(certificate: Certificate, now: datetime) -> Pair | None:
    """Return the pair that is there; None where it is yet to be had."""
    if certificate.acme is not None:
        if not exists(certificate.files.certificate):
            return None
        return read_pair(certificate.files, certificate.names, now)
    make = not certificate.is_operators
    return manual.load(certificate.files, certificate.names[0], now, make=make)
