"""The certificates that are in the files when the server starts."""

import contextlib
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from certs import apart
from certs.acme.authority import Authority, check
from certs.acme.store import ACCOUNT_FILE
from certs.errors import CertificateError, CertificateFileError
from certs.files import exists
from certs.hostname import IPAddress, parse_ip
from certs.ownership import warn_if_swappable
from certs.pair import Pair
from certs.tasks.plan import CertificateSpec, OnDemand, Plan
from certs.tasks.report import FOLLOWS, RENEWS, Reporter
from certs.tasks.requests import MAX_ON_DEMAND
from certs.tasks.status import Status


def load(plan: Plan, now: datetime) -> list[Status]:
    """Return the certificates of the process that renews them, with the pairs in the files. Blocks.

    Makes a self-signed pair where one is missing. Raises CertificateError for a pair of the
    operator's that can't be served, and for a configuration with which ACME can't work.
    """
    ways = {certificate.acme.dns for certificate in plan.certificates if certificate.acme}
    for dns in filter(None, ways):
        from certs.dns01.check import check as check_dns  # noqa: PLC0415 - seldom needed

        check_dns(dns)
    authorities = _authorities(plan)
    for authority, certdir in authorities:
        check(authority)
        _check_directory(certdir)
        for file in (certdir / ACCOUNT_FILE, authority.ca_bundle):
            if file is not None:
                warn_if_swappable(file)
    statuses = [_find(certificate, now, RENEWS) for certificate in plan.certificates]
    if plan.on_demand is not None:
        statuses += _stored_on_demand(plan.on_demand, now)
    if any(status.pair is None and status.certificate.acme for status in statuses):
        # One is ordered at once: load the library for it while no client waits.
        import certs.acme.order  # noqa: PLC0415

        if any(ways):
            import certs.dns01.present  # noqa: F401, PLC0415
    return statuses


def load_followed(plan: Plan, addresses: Iterable[IPAddress], now: datetime) -> list[Status]:
    """Return the certificates of a process that renews none, also for `addresses`. Blocks.

    For an unreadable pair, an error is logged, and the next pair awaited: the process that renews
    may go on with an earlier one.
    """
    certificates = list(plan.certificates)
    if plan.on_demand is not None:
        certificates += filter(None, map(plan.on_demand.certificate, addresses))
    return [_find(certificate, now, FOLLOWS) for certificate in certificates]


def _find(certificate: CertificateSpec, now: datetime, report: Reporter) -> Status:
    try:
        pair = _read(certificate, now, make=not (certificate.operator_managed or report.follows))
    except CertificateError as error:
        report.unservable(certificate, error)
        pair = None
    return Status(certificate, pair, report=report)


def _read(certificate: CertificateSpec, now: datetime, *, make: bool) -> Pair | None:
    """Return the pair in the files; None if ACME has yet to obtain it."""
    if certificate.acme is None:
        return apart.load_manual(certificate.files, certificate.names, now, make=make)
    if not exists(certificate.files.certificate):
        return None
    # With a name more in -hostname, the old certificate serves the others until there is a new one.
    return apart.read_pair(certificate.files, certificate.names, now, some=True)


def _authorities(plan: Plan) -> set[tuple[Authority, Path]]:
    """Return the authorities to order from, each with the -certdir of its certificates."""
    authorities = {
        (certificate.acme.authority, certificate.files.certificate.parent)
        for certificate in plan.certificates
        if certificate.acme is not None
    }
    if plan.on_demand is not None:
        authorities.add((plan.on_demand.acme.authority, plan.on_demand.certdir))
    return authorities


def _check_directory(certdir: Path) -> None:
    """Raise CertificateFileError if `certdir` is no directory; other faults may be temporary."""
    if exists(certdir) and not certdir.is_dir():
        raise CertificateFileError(f"-certdir {certdir}: not a directory; name one, or a new path")


def _stored_on_demand(on_demand: OnDemand, now: datetime) -> list[Status]:
    """Return the current certificates on demand from an earlier run."""
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
            pair = apart.read_pair(certificate.files, certificate.names, now)
            if now <= pair.not_after:
                statuses.append(Status(certificate, pair))
    return statuses[:MAX_ON_DEMAND]
