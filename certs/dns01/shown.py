"""The wait until all name servers of the zones show the records."""

import logging
from collections.abc import Callable, Sequence
from typing import Final

from certs.dns01.budget import Budget
from certs.dns01.lookup import Answer, Server
from certs.dns01.record import PlacedRecord
from certs.errors import Failure, IssueError

BLIND_WAIT: Final = 60.0
"""Seconds to wait where no server of a zone can be asked, as behind some firewalls."""
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 10.0
_SILENT_ROUNDS: Final = 3
"""How often a server may give no answer before the order goes on without it."""

logger = logging.getLogger("derper.certificates")

Servers = Callable[[str], Sequence[Server]]
"""Returns the name servers of a zone."""
Ask = Callable[[Server, PlacedRecord], Answer]


def wait_until_shown(
    records: Sequence[PlacedRecord], servers: Servers, ask: Ask, budget: Budget
) -> None:
    """Ask until all servers show all records.

    A server that gives no answer for its zone is left out after some tries, with a line in the
    log: the resolver of the ACME server does without it, too. Where all of a zone's are silent, the
    wait is BLIND_WAIT. Raises IssueError (Failure.VALIDATION) where a server does not show a record
    when the time is up.
    """
    waiting = {(record, server): 0 for record in records for server in servers(record.place.zone)}
    answered: set[PlacedRecord] = set()
    silent: dict[Server, None] = {}
    pause = _FIRST_PAUSE
    began_with = budget.left()
    while True:
        for record, server in list(waiting):
            answer = ask(server, record)
            if answer is not Answer.SILENT:
                answered.add(record)
                waiting[record, server] = 0
            else:
                waiting[record, server] += 1
            gave_up = waiting[record, server] >= _SILENT_ROUNDS
            if gave_up:
                silent[server] = None
            if answer is Answer.SHOWN or gave_up:
                del waiting[record, server]
        if not waiting:
            break
        if not budget.left():
            raise _not_shown(waiting, began_with)
        budget.pause(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE)
    if silent:
        names = ", ".join(map(str, silent))
        fields = {"fields": {"servers": names}}
        logger.warning("name servers that don't answer for their zone are left out", extra=fields)
    if len(answered) < len(records):
        budget.pause(BLIND_WAIT)


def _not_shown(waiting: dict[tuple[PlacedRecord, Server], int], seconds: float) -> IssueError:
    record, server = next(iter(waiting))
    others = len({server for _, server in waiting}) - 1
    more = f" and {others} more" if others else ""
    return IssueError(
        f"{server}{more} did not show the TXT record of {record.place.name} within "
        f"{seconds:.0f} s; see at the provider whether it is in the zone {record.place.zone}, "
        f"and give -acme-dns-wait more if it is only slow",
        Failure.VALIDATION,
    )
