"""Presentation of DNS challenges: records are set, shown by all name servers, and removed."""

import contextlib
import logging
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from certs.acme import store
from certs.acme.challenge import DNS01, AnyChallenge
from certs.dns01.budget import Budget
from certs.dns01.lookup import Lookup
from certs.dns01.options import REMOVE_TIMEOUT, DNSOptions
from certs.dns01.provider import Provider, make_provider
from certs.dns01.record import PlacedRecord, Record
from certs.dns01.recordfile import RecordFile
from certs.dns01.shown import wait_until_shown
from certs.errors import CertificateError, Failure, IssueError

logger = logging.getLogger("derper.certificates")


class Records:
    """The records of one order. `present` is called in the thread that orders."""

    def __init__(self, options: DNSOptions, certdir: Path, lookup: Lookup | None = None) -> None:
        self.stop = threading.Event()
        """Set to have the order given up and its records removed."""
        self.none_left = threading.Event()
        """Set while no record is left to remove."""
        self.none_left.set()
        self._options = options
        self._certdir = certdir
        self._lookup = lookup

    @contextlib.contextmanager
    def present(self, challenges: Sequence[AnyChallenge]) -> Iterator[None]:
        """Set the records for DNS01 challenges; they are shown while the context lasts.

        Records that an earlier order has left are removed first. Raises IssueError.
        """
        wanted = [Record(each.domain, each.value) for each in challenges if isinstance(each, DNS01)]
        if not wanted:
            yield
            return
        budget = Budget.of(self._options.wait, self.stop)
        lookup = self._lookup or Lookup(self._options.resolvers)
        try:
            provider = make_provider(self._options, lookup)
        except CertificateError as error:
            raise IssueError(str(error)) from error
        record_file = RecordFile(self._certdir)
        _remove(record_file.read(), provider, record_file, self._options.name)
        placed: list[PlacedRecord] = []
        self.none_left.clear()
        try:
            domains = tuple(record.domain for record in wanted)
            for record in wanted:
                remaining = len(wanted) - len(placed) - 1
                place = lookup.place(record, budget)
                new = PlacedRecord(self._options.name, record, place, domains, remaining)
                record_file.add(new)
                placed.append(new)
                try:
                    output = provider.set(new, budget)
                except IssueError as error:
                    if error.failure is Failure.REFUSED and self._options.program is None:
                        # It was not set, and to remove it would be refused, too.
                        record_file.forget(placed.pop())
                    raise
                if output:
                    placed[-1] = attrs.evolve(new, output=output)
                    record_file.add(placed[-1])
            wait_until_shown(
                placed,
                lambda zone: lookup.servers(zone, budget),
                lambda server, each: lookup.ask(server, each.place, each.record.value, budget),
                budget,
            )
            yield
        finally:
            _remove(placed, provider, record_file, self._options.name)
            self.none_left.set()


def remove_leftovers(options: DNSOptions, certdir: Path) -> None:
    """Remove the records of an order that was cut off, unless another order is under way."""
    record_file = RecordFile(certdir)
    if not record_file.path.exists():
        return
    try:
        with store.locked(certdir):
            provider = make_provider(options, Lookup(options.resolvers))
            _remove(record_file.read(), provider, record_file, options.name)
    except CertificateError as error:
        logger.info("DNS records of an earlier order stay for now", extra=_fields(str(error)))


def _remove(
    records: Sequence[PlacedRecord], provider: Provider, record_file: RecordFile, name: str
) -> None:
    """Remove records and forget them; one that can't be removed is logged, and tried again later.

    A record of another provider is only logged.
    """
    budget = Budget.of(REMOVE_TIMEOUT)
    for placed in records:
        try:
            if placed.provider == name:
                provider.remove(placed, budget)
            else:
                reason = f"{placed.provider} has set it; remove it there"
                message = "a DNS record is left of an earlier order"
                logger.warning(message, extra=_fields(reason, placed))
            record_file.forget(placed)
        except IssueError as error:
            message = "a DNS record can't be removed; the next order tries it again"
            logger.warning(message, extra=_fields(str(error), placed))


def _fields(reason: str, placed: PlacedRecord | None = None) -> dict[str, dict[str, str]]:
    fields = {"reason": reason}
    if placed is not None:
        fields = {"record": placed.place.name, "value": placed.record.value, **fields}
    return {"fields": fields}
